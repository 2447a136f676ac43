"""Which victims can run unpadded, and which of them together; all others take transformers' own forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bench.victim.joint.decoder import Decoder
from bench.victim.joint.distilbert import DistilBert
from bench.victim.joint.encoder import Encoder
from bench.victim.joint.forward import Forward, Sizes
from bench.victim.joint.gpt2 import GPT2
from bench.victim.joint.modernbert import ModernBert
from bench.victim.victim import Victim

ARCHITECTURES: tuple[type[Forward], ...] = (Encoder, DistilBert, ModernBert, Decoder, GPT2)
FORWARDS = {name: architecture for architecture in ARCHITECTURES for name in architecture.kinds}
KNOWN = (
    "torch.nn.modules.",
    *(f"transformers.models.{kind}." for architecture in ARCHITECTURES for kind in architecture.kinds.values()),
    "transformers.activations",
    "transformers.pytorch_utils",
    "peft.tuners.lora.",
    "peft.tuners.prefix_tuning.",
    "bench.victim.",
)
HOOKED = ("bench.victim.adapter", "bench.victim.prefix")
LORA = "Linear"  # PEFT's plain LoRA around a linear layer, GPT-2's kind of it too
BESIDE = ".make_inputs_require_grads"
TURNED = "Conv1D"  # GPT-2's linear layer, whose matrix is stored [in, out]


def kind_of(victim: Victim) -> str | None:
    """Return transformers' model_type where the unpadded pass knows every part of the victim, else None."""
    return None if refusal(victim) else forward_of(victim).kinds[type(victim.model).__name__]


def forward_of(victim: Victim) -> type[Forward]:
    """Return the architecture of a victim that `refusal` lets through."""
    return FORWARDS[type(victim.model).__name__]


def refusal(victim: Victim) -> str:
    """Return why a victim takes transformers' own pass, "" where it takes the unpadded one."""
    model, name = victim.model, type(victim.model).__name__
    architecture = FORWARDS.get(name)
    if architecture is None or not type(model).__module__.startswith("transformers.models."):
        return f"{name} is none of {', '.join(FORWARDS)}"
    if not architecture.compact and (victim.spec.checkpointing or victim.spec.weights != "fp32"):
        return f"{name} is to save memory, which only transformers' own pass does for it"
    unknown = next((part for part, module in model.named_modules() if not _known(module)), None)
    if unknown is not None:
        return f"its part {unknown!r} is, or has a hook, that the unpadded pass does not know"
    return architecture.refusal(model)


def _known(module: torch.nn.Module) -> bool:
    if not type(module).__module__.startswith(KNOWN) or module._backward_hooks or module._backward_pre_hooks:
        return False
    if type(module).__module__.startswith("peft.tuners.lora.") and not _plain_lora(module):
        return False
    return all(map(_known_hook, [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]))


def _known_hook(hook: Any) -> bool:
    # An adapter and a prefix enter by hooks; any other hook wants the ordinary forward pass. The one that
    # transformers sets beside checkpointing lets the embeddings require a gradient, which nobody reads.
    place, name = getattr(hook, "__module__", ""), getattr(hook, "__qualname__", "")
    return place in HOOKED or (place.startswith("transformers.") and name.endswith(BESIDE))


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
    first = victims[0]
    modules = [dict(victim.model.named_modules()) for victim in victims]
    low_rank = [name for name, module in modules[0].items() if hasattr(module, "lora_A")]
    multi_scale = [name for name, module in modules[0].items() if hasattr(module, "lower")]
    prefix = getattr(first.backbone, "prefix", None)
    return Sizes(
        kind=kind,
        backbone=first.model.base_model_prefix,
        layers=first.model.config.num_hidden_layers,
        numbers=forward_of(first).numbers(first.model),
        low_rank={name: tuple(float(own[name].scaling["default"]) for own in modules) for name in low_rank},
        multi_scale={name: tuple(float(own[name].scaling) for own in modules) for name in multi_scale},
        prefix=None if prefix is None else prefix.shape,
        checkpointing=first.spec.checkpointing,
    )


def turned(victim: Victim) -> frozenset[str]:
    """Return the names of the matrices that are stored [in, out]."""
    modules = victim.model.named_modules()
    return frozenset(f"{name}.weight" for name, module in modules if type(module).__name__ == TURNED)


def embeddings(victim: Victim) -> frozenset[str]:
    """Return the names of the matrices that are tables of vectors, and no linear maps."""
    modules = victim.model.named_modules()
    return frozenset(f"{name}.weight" for name, module in modules if isinstance(module, torch.nn.Embedding))


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
    if None in kinds:
        reason = next(filter(None, map(refusal, victims)))
        return f"the unpadded pass does not know every part of them: {reason}"
    if len(kinds) > 1:
        return "they are of different architectures"
    names = own_names(first)
    mine = set(names)
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
        if other.spec.checkpointing != first.spec.checkpointing:
            return "some of them compute activations again"
        for name, value in tensors.items():
            if value.shape != theirs[name].shape:
                return f"{name} has another shape in some"
            if name not in mine and not _same(value, theirs[name]):
                return f"{name} is frozen and differs"
    return ""


def rates(victim: Victim) -> tuple[float, ...]:
    """Return the dropout rates of a victim that `refusal` lets through."""
    return forward_of(victim).rates(victim.model)


def _stackable(name: str) -> bool:
    inserted = (".lora_", ".adapter.", ".lower", ".upper", ".scales", ".prefix.")
    return any(part in name for part in inserted)


def all_tensors(victim: Victim) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by name."""
    buffers = {name.removeprefix("model."): value for name, value in victim.named_buffers()}
    return {**victim.tensors(), **buffers}


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    # Members that share a tensor already are not to read 13 GB again to find that they do.
    return one.data_ptr() == other.data_ptr() or (one.dtype == other.dtype and torch.equal(one, other))


def share(first: Victim, other: Victim) -> None:
    """Let go of `other`'s frozen tensors in place and give it those of `first`; for two that `shareable` lets."""
    mine, theirs, own = all_tensors(first), all_tensors(other), set(own_names(first))
    for name, value in mine.items():
        if name not in own:
            theirs[name].data = value.data
