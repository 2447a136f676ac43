"""Nucleus sampling whose draws are given, so that a row's tokens hang on no global state and on no other row."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Nucleus:
    """A logits processor of transformers: each row keeps the one token drawn from its nucleus (Holtzman et al. 2020).

    The nucleus is the likeliest tokens in order, up to and with the first at which their sum exceeds `top_p`, as in
    the published code of STRAP. `draws` is [rows, steps] of numbers in [0, 1): the share of the nucleus at which the
    token of that step lies.
    """

    def __init__(self, draws: Sequence[Sequence[float]], top_p: float, temperature: float) -> None:
        self.draws = torch.tensor(draws)
        self.top_p, self.temperature = top_p, temperature
        self.step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores [rows, vocabulary] of minus infinity but for one token of each row."""
        probabilities, order = (scores.float() / self.temperature).softmax(-1).sort(descending=True, stable=True)
        before = probabilities.cumsum(-1) - probabilities
        kept = torch.where(before <= self.top_p, probabilities, 0.0)
        kept[:, 0] = probabilities[:, 0]
        if self.top_p == 0.0:
            kept[:, 1:] = 0.0
        sums = kept.cumsum(-1)
        draw = self.draws[:, self.step].to(scores.device) * sums[:, -1]
        self.step += 1
        place = torch.searchsorted(sums, draw[:, None], right=True)
        place = place.clamp(max=(kept > 0).sum(-1, keepdim=True) - 1)  # rounding may lead beyond the last one
        left = torch.full_like(scores, -torch.inf)
        return left.scatter_(1, order.gather(1, place), 0.0)
