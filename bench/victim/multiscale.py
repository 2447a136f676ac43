"""MuScleLoRA's multi-scale low-rank module at the linear before the classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.core.errors import CellError
from bench.core.seeding import derived_seed
from bench.victim.victim import Victim


class MultiScaleLinear(nn.Module):
    """A frozen linear plus a low-rank update whose directions are scaled by S.

    out = X (R diag(K) L)^T * scale_factor / inner_rank + original(X), for X [..., in]. L is `lower`
    [len(S) * inner_rank, in], R is `upper` [out, len(S) * inner_rank], K repeats each entry of S `inner_rank` times.
    """

    def __init__(
        self,
        original: nn.Linear,
        scales: Sequence[float],
        *,
        scale_factor: float,
        inner_rank: int = 1,
        zero_start: bool = False,
        generator: torch.Generator,
    ) -> None:
        """Take over `original`, which stops training; draw L and R kaiming-uniform (a = sqrt 5), or R = 0."""
        super().__init__()
        self.original = original.requires_grad_(False)
        self.scaling = scale_factor / inner_rank
        repeated = torch.tensor(scales, dtype=torch.float32).repeat_interleave(inner_rank)
        like = original.weight
        lower = torch.empty(len(repeated), original.in_features)
        upper = torch.empty(original.out_features, len(repeated))
        nn.init.kaiming_uniform_(lower, a=math.sqrt(5), generator=generator)
        if zero_start:
            nn.init.zeros_(upper)
        else:
            nn.init.kaiming_uniform_(upper, a=math.sqrt(5), generator=generator)
        self.lower = nn.Parameter(lower.to(like.device))
        self.upper = nn.Parameter(upper.to(like.device))
        self.register_buffer("scales", repeated.to(like.device))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., out] for inputs [..., in]."""
        inner = functional.linear(inputs, self.lower) * self.scales
        return functional.linear(inner, self.upper) * self.scaling + self.original(inputs)


def attach_multiscale(
    victim: Victim, scales: Sequence[float], *, scale_factor: float, inner_rank: int, zero_start: bool, seed: int
) -> None:
    """Replace the victim's penultimate linear in place by a multi-scale module around it; L and R train, it does not.

    Other parameters keep training or not as they did. The published code puts it at the same place: BERT's pooler,
    RoBERTa's `classifier.dense`, the first linear of a decoder's head, not at the attention, whose LoRA is unscaled.

    Raises:
        CellError: the model file names no penultimate linear, or none of that name is there.
    """
    where = victim.spec.penultimate
    found = dict(victim.model.named_modules()).get(where) if where else None
    if not isinstance(found, nn.Linear):
        kind = "is not there" if found is None else f"is a {type(found).__name__}, not a linear"
        raise CellError(
            f"The layer before the classifier of model {victim.spec.name!r}, {where!r}, {kind}.",
            "Set model.penultimate to the dotted name of a linear layer.",
        )
    generator = torch.Generator().manual_seed(derived_seed(seed, "multi-scale"))
    module = MultiScaleLinear(
        found,
        scales,
        scale_factor=scale_factor,
        inner_rank=inner_rank,
        zero_start=zero_start,
        generator=generator,
    )
    victim.model.set_submodule(where, module)
    victim.attached.append(where)
