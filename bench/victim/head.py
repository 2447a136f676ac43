"""Classification heads of decoders, on the last real token of a text.

`paper` is that of Table 4 (REFERENCE section 6): two linear maps without biases, 16 wide between them, dropout 0.1 and
no non-linearity. `plain` is the one linear map of transformers. Differs from the published code, as from transformers,
in how the last real token is found: by the attention mask, not as the last that is no padding token, which is
another one where a text itself ends in the end token that stands for padding. Neither looks at the other tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.core.errors import CellError
from bench.core.seeding import derived_seed
from bench.victim.spec import HEAD_WIDTH, ModelSpec

DROPOUT = 0.1
SCORE = "score"  # what transformers calls the head of every decoder


class TwoLayerHead(nn.Module):
    """The paper's head: [..., width] -> [..., 16] -> [..., classes]; `dense` is where the multi-scale module goes."""

    def __init__(self, width: int, classes: int) -> None:
        """Make both maps without drawing them: whoever loads the model does."""
        super().__init__()
        self.dense = nn.utils.skip_init(nn.Linear, width, HEAD_WIDTH, bias=False)
        self.dropout = nn.Dropout(DROPOUT)
        self.out_proj = nn.utils.skip_init(nn.Linear, HEAD_WIDTH, classes, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """Return the logits [..., classes] of hidden states [..., width]."""
        return self.out_proj(self.dropout(self.dense(states)))


def plain_head(model: nn.Module) -> nn.Linear:
    """Return the one linear map that transformers gives a decoder classifier as its head.

    Raises:
        CellError: the model has no head called `score` that is one linear map.
    """
    found = getattr(model, SCORE, None)
    if not isinstance(found, nn.Linear):
        raise CellError(
            f"{type(model).__name__} has no one linear map called {SCORE!r}, which is a decoder's head.",
            "Set model.family=encoder, or choose another model.",
        )
    return found


def check_family(model: nn.Module, spec: ModelSpec) -> None:
    """Check that a decoder's head is one linear map, and that an encoder's first token sees the others.

    Raises:
        CellError: the model is not of the family that its spec says, or of neither, or its head reads what may be
            padding.
    """
    if model.config.is_encoder_decoder:
        # The first of its last states is that of the decoder's start, and the head reads another token.
        raise CellError(
            f"Model {spec.name!r} is an encoder-decoder ({type(model).__name__}): it has no token of which it is known"
            " that it stands for the text, neither an encoder's first nor a decoder's last.",
            "Choose another model: an encoder, such as BERT, or a decoder, such as GPT-2.",
        )
    if spec.family == "decoder":
        plain_head(model)
        return
    summary = getattr(getattr(model, "sequence_summary", None), "summary_type", "first")
    if summary != "first":
        raise CellError(
            f"The head of model {spec.name!r} reads {summary!r} of a text (summary_type in its config.json), padding"
            " included: its answers would depend on what else is in a batch.",
            "Choose a model whose head reads the first token.",
        )
    if isinstance(getattr(model, SCORE, None), nn.Linear):
        remedy = "Set model.family=decoder; whatever else it needs (rates, epochs, lora_targets) stays an encoder's."
    elif any(getattr(part, "is_causal", False) for part in model.modules()):
        remedy = "Choose another model."  # such as a BERT that is set up as a decoder
    else:
        return
    raise CellError(
        f"Model {spec.name!r} is to be an encoder (model.family), and {type(model).__name__} is a decoder: its first"
        " token, which stands for the text in an encoder, sees no other.",
        remedy,
    )


def insert_two_layer_head(model: nn.Module, classes: int) -> set[str]:
    """Replace the head of a decoder classifier in place; return the names of the tensors that are still to be drawn."""
    found = plain_head(model)
    model.set_submodule(SCORE, TwoLayerHead(found.in_features, classes))
    return {f"{SCORE}.dense.weight", f"{SCORE}.out_proj.weight"}


def class_map(model: Any, classes: int) -> set[str]:
    """Return the names of the tensors of the last linear map to the classes in a head; none where there is none."""
    head = [(name, part) for name, part in model.named_children() if name != model.base_model_prefix]
    inner = [(name, module) for part, top in head for name, module in top.named_modules(prefix=part)]
    found = [(n, module) for n, module in inner if isinstance(module, nn.Linear) and module.out_features == classes]
    return {f"{name}.{part}" for name, module in found[-1:] for part, _ in module.named_parameters()}


def draw_linears(model: Any, names: set[str], seed: int) -> None:
    """Fill the tensors of linear layers in place: weights N(0, initializer_range), biases 0; leave all others alone."""
    spread = float(getattr(model.config, "initializer_range", 0.02))
    modules = dict(model.named_modules())
    with torch.no_grad():
        for name in sorted(names):
            owner, _, part = name.rpartition(".")
            if not isinstance(modules.get(owner), torch.nn.Linear):
                continue
            tensor = getattr(modules[owner], part)
            if part == "bias":
                tensor.zero_()
            else:
                generator = torch.Generator().manual_seed(derived_seed(seed, f"head {name}"))
                tensor.normal_(0.0, spread, generator=generator)


def last_real(states: Tensor, mask: Tensor) -> Tensor:
    """Return of `states` [batch, length, width] those of the last token that `mask` [batch, length] lets through."""
    ends = mask.to(torch.long).sum(-1) - 1
    return states[torch.arange(len(states), device=states.device), ends]


def classify_last(model: nn.Module, inputs: Mapping[str, Tensor], hidden_states: bool) -> Any:
    """Return logits [batch, classes] and, when asked, `hidden_states` of a decoder classifier, padded on the right.

    No keys and values are kept: they are for a generation that never comes.
    """
    from transformers.modeling_outputs import SequenceClassifierOutput

    found = model.base_model(**inputs, use_cache=False, output_hidden_states=hidden_states)
    logits = model.get_submodule(SCORE)(last_real(found.last_hidden_state, inputs["attention_mask"]))
    return SequenceClassifierOutput(logits=logits, hidden_states=found.hidden_states)


def prepare(model: Any, spec: ModelSpec) -> None:
    """Make the head fp32, since it may train, and turn checkpointing on where the spec asks for it."""
    for name, part in model.named_children():
        if name != model.base_model_prefix:
            part.float()
    if not spec.checkpointing:
        return
    try:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise CellError(
            f"{type(model).__name__} cannot compute activations again in the backward pass.",
            "Leave model.checkpointing out.",
        ) from error
