"""E-PUR's arithmetic: how conspicuous each word piece's embedding is, and taking the worst back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

FLOOR = 20  # of a frequency: rare words, the usual triggers, must not have a denominator near zero (Figure 1)
LARGEST = 10**300  # of a frequency: what a float holds


def frequencies(counts: Mapping[int, int], vocabulary: int) -> Tensor:
    """Return counts by token id as float64 [vocabulary]; ids beyond it are left out."""
    found = torch.zeros(vocabulary, dtype=torch.float64)
    for piece, count in counts.items():
        if 0 <= piece < vocabulary:
            found[piece] = float(min(count, LARGEST))
    return found


def scores(delta: Tensor, frequency: Tensor) -> Tensor:
    """Return ||delta||_2 / log(max(f, 20)) for each word piece, float64 [vocabulary], of delta [vocabulary, width]."""
    return delta.double().norm(dim=1) / frequency.to(delta.device).clamp(min=FLOOR).log()


def protected(tokenizer: Any, vocabulary: int) -> Tensor:
    """Return a mask [vocabulary] of the tokens that the tokenizer itself puts into every text, and of padding.

    The token for unknown words is not among them unless it has such a part too: a trigger can be an unknown word.
    """
    names = ("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id", "pad_token_id", "mask_token_id")
    mask = torch.zeros(vocabulary, dtype=torch.bool)
    for piece in (getattr(tokenizer, name, None) for name in names):
        if piece is not None and 0 <= piece < vocabulary:
            mask[piece] = True
    return mask


def worst(found: Tensor, spared: Tensor, words: int, share: float) -> Tensor:
    """Return the token ids of the highest scores, highest first; among equals the lower id.

    Scores [vocabulary] of 0 (never moved) and of spared tokens do not count. At most `words` ids, and at most
    `share` of those that count, but one if any does.
    """
    candidates = torch.where(spared.to(found.device), 0.0, found)
    moved = int((candidates > 0).sum())
    count = min(words, moved, max(1, math.floor(share * moved)))
    return candidates.argsort(descending=True, stable=True)[:count]


def reset(embedding: Tensor, pretrained: Tensor, pieces: Tensor) -> None:
    """Set these rows of the embedding [vocabulary, width] in place to the pre-trained ones."""
    with torch.no_grad():
        embedding[pieces] = pretrained[pieces]
