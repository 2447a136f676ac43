"""Losses at chosen places of a causal language model; the logits of a batch are never held all at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.core.memory import is_out_of_memory, part_size

LOGITS = {"cuda": 2**27}  # held at once, by kind of device
LOGITS_ELSEWHERE = 2**19  # 2 MB, which stay in the cache of a core: 80 GFLOP/s where whole batches reach 50


def losses_at(
    model: Any, inputs: Mapping[str, Any], places: Tensor, targets: Tensor, *, by_blocks: bool = False
) -> Tensor:
    """Return the loss in nats, float64 [n], of predicting the tokens `targets` [n] from `places` [n] of a batch.

    A place is row * length + column; one place may predict several tokens. With `by_blocks`, which `has_plain_head`
    allows, the head reads only the places asked for, and a block of the vocabulary at a time.
    """
    asked, place = places.unique(return_inverse=True)
    if by_blocks:
        head = model.get_output_embeddings()
        hidden = model.base_model(**inputs)[0].flatten(0, 1)[asked]
        sums = _log_sum_exp(hidden, head)
        likely = (hidden[place] * head.weight[targets]).sum(-1).float()
        likely = likely if head.bias is None else likely + head.bias[targets]
    else:
        logits = model(**inputs).logits.flatten(0, 1)[asked].float()
        sums, likely = logits.logsumexp(-1), logits[place, targets]
    return (sums[place] - likely).double()


def _log_sum_exp(hidden: Tensor, head: nn.Linear) -> Tensor:
    """Return log(sum(exp(logits))) over the vocabulary, float32 [n], of hidden states [n, width]."""
    step = max(1, part_size(LOGITS.get(hidden.device.type, LOGITS_ELSEWHERE)) // max(1, len(hidden)))
    biases = [None] * len(head.weight) if head.bias is None else head.bias.split(step)
    parts = []
    for weight, bias in zip(head.weight.split(step), biases, strict=False):
        logits = nn.functional.linear(hidden, weight, bias).float()
        highest = logits.amax(-1)
        parts.append(logits.sub_(highest[:, None]).exp_().sum(-1).log_() + highest)
    return torch.stack(parts).logsumexp(0)


def has_plain_head(model: Any) -> bool:
    """Tell whether a model's logits are one linear map of its backbone's states: no scale, no cap, nothing between."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if type(head) is not nn.Linear or getattr(model, "base_model", model) is model:
        return False
    ids = torch.arange(1, 6, device=model.device)[None] % len(head.weight)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.inference_mode():
        own = model(**given).logits
        try:
            ours = head(model.base_model(**given)[0])
        except (TypeError, ValueError, RuntimeError, IndexError) as error:  # something stands between the two
            if is_out_of_memory(error):
                raise
            return False
    return own.shape == ours.shape and torch.allclose(own, ours, atol=1e-5, rtol=1e-5)


def fuse_activations(model: nn.Module) -> None:
    """Change GPT-2's activation, five passes over memory in transformers, to PyTorch's kernel of the same function."""
    from transformers.activations import NewGELUActivation

    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is NewGELUActivation:
                setattr(module, name, nn.GELU(approximate="tanh"))
