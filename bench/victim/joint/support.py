"""Which victims can run unpadded, and which of them together; all others take transformers' own forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bench.victim.joint.encoder import Sizes, dropout_rates
from bench.victim.victim import Victim

KINDS = {"BertForSequenceClassification": "bert", "RobertaForSequenceClassification": "roberta"}
KNOWN = (
    "torch.nn.modules.",
    "transformers.models.bert.",
    "transformers.models.roberta.",
    "transformers.activations",
    "peft.tuners.lora.",
    "peft.tuners.prefix_tuning.",
    "bench.victim.",
)
HOOKED = ("bench.victim.adapter", "bench.victim.prefix")
LORA = "Linear"  # PEFT's plain LoRA around a linear layer


def kind_of(victim: Victim) -> str | None:
    """Return "bert" or "roberta" where the unpadded pass knows every part of the victim, else None."""
    model = victim.model
    kind = KINDS.get(type(model).__name__)
    if kind is None or not type(model).__module__.startswith("transformers.models."):
        return None
    if victim.spec.checkpointing or victim.spec.weights != "fp32":
        return None  # only transformers' own pass computes activations again, or keeps weights in bf16
    config = model.config
    plain = (
        getattr(config, "position_embedding_type", None) in (None, "absolute")
        and not getattr(config, "is_decoder", False)
        and not getattr(config, "add_cross_attention", False)
    )
    return kind if plain and all(_known(module) for module in model.modules()) else None


def _known(module: torch.nn.Module) -> bool:
    if not type(module).__module__.startswith(KNOWN) or module._backward_hooks or module._backward_pre_hooks:
        return False
    if type(module).__module__.startswith("peft.tuners.lora.") and not _plain_lora(module):
        return False
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    # An adapter and a prefix enter by hooks; any other hook wants the ordinary forward pass.
    return all(getattr(hook, "__module__", "") in HOOKED for hook in hooks)


def _plain_lora(module: Any) -> bool:
    return (
        type(module).__name__ == LORA
        and list(module.lora_A) == ["default"]
        and isinstance(module.lora_dropout["default"], torch.nn.Identity)
        and not module.use_dora.get("default", False)
        and not module.merged
        and not module.disable_adapters
        and module.lora_A["default"].bias is None
    )


def sizes_of(victims: Sequence[Victim], kind: str) -> Sizes:
    """Return what the pass reads from the victims besides their tensors."""
    model = victims[0].model
    config, backbone = model.config, model.get_submodule(kind)
    hidden, attention, head = dropout_rates(model, kind)
    modules = [dict(victim.model.named_modules()) for victim in victims]
    low_rank = [name for name, module in modules[0].items() if hasattr(module, "lora_A")]
    multi_scale = [name for name, module in modules[0].items() if hasattr(module, "lower")]
    prefix = getattr(backbone, "prefix", None)
    return Sizes(
        kind=kind,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        epsilon=config.layer_norm_eps,
        activation=config.hidden_act,
        position_offset=config.pad_token_id + 1 if kind == "roberta" else 0,
        hidden_dropout=hidden,
        attention_dropout=attention,
        head_dropout=head,
        low_rank={name: tuple(float(own[name].scaling["default"]) for own in modules) for name in low_rank},
        multi_scale={name: tuple(float(own[name].scaling) for own in modules) for name in multi_scale},
        prefix=None if prefix is None else prefix.shape,
    )


def own_names(victim: Victim, trains: bool = True) -> list[str]:
    """Return the tensors that a member has for itself: what trains (if anything is to), what was inserted, the head."""
    buffers = [name.removeprefix("model.") for name, _ in victim.named_buffers() if name.endswith(".scales")]
    inserted = tuple(f"{name}." for name in victim.attached)
    names = []
    for name, value in victim.tensors().items():
        mine = name.startswith(inserted) and not _pretrained(name) if inserted else False
        if (value.requires_grad if trains else _stackable(name)) or mine or name.partition(".")[0] in victim.head:
            names.append(name)
    return names + buffers


def _pretrained(name: str) -> bool:
    """Tell whether a tensor below an inserted module is the one that was there before."""
    return ".base_layer." in name or ".original." in name


def shareable(victims: Sequence[Victim]) -> str:
    """Return why victims cannot train together, or "" when they can: one backbone, one shape of what is their own."""
    first = victims[0]
    kinds = {kind_of(victim) for victim in victims}
    if None in kinds or len(kinds) > 1:
        return "the unpadded pass does not know every part of them"
    names = own_names(first)
    tensors = all_tensors(first)
    for name in names:
        if len(victims) > 1 and name.partition(".")[0] not in first.head and not _stackable(name):
            return f"{name} trains, and is no inserted module"
    for other in victims[1:]:
        theirs = all_tensors(other)
        if own_names(other) != names or theirs.keys() != tensors.keys():
            return "they do not have the same modules"
        if (other.precision, other.device) != (first.precision, first.device):
            return "they differ in precision or device"
        if rates(other) != rates(first):
            return "they differ in dropout"
        for name, value in tensors.items():
            if value.shape != theirs[name].shape:
                return f"{name} has another shape in some"
            if name not in set(names) and not torch.equal(value, theirs[name]):
                return f"{name} is frozen and differs"
    return ""


def rates(victim: Victim) -> tuple[float, float, float]:
    """Return the dropout rates of a victim that `kind_of` knows."""
    return dropout_rates(victim.model, KINDS[type(victim.model).__name__])


def _stackable(name: str) -> bool:
    inserted = (".lora_", ".adapter.", ".lower", ".upper", ".scales", ".prefix.")
    return any(part in name for part in inserted)


def all_tensors(victim: Victim) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by name."""
    buffers = {name.removeprefix("model."): value for name, value in victim.named_buffers()}
    return {**victim.tensors(), **buffers}
