"""A text and its variants in one sequence: what a variant shares with the text, from the start on, is read once.

Leaving out word i of n changes nothing before it, so the variants of a text hold half as many new tokens as tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

SHEET = 384  # tokens of a packed sequence, which longer families take several of: bounds the square of its mask


@dataclass
class _Sheet:
    """One packed sequence: a text, and what some of its variants add to what they share with it."""

    text: list[int]
    ids: list[int]
    positions: list[int]
    spans: list[tuple[int, int, int]] = field(default_factory=list)  # begin and end of what is added, tokens shared
    members: list[int] = field(default_factory=list)  # the variant of each span, counted through all families

    def add(self, member: int, variant: list[int], shared: int) -> None:
        """Append what a variant does not share with the text."""
        begin = len(self.ids)
        self.ids += variant[shared:]
        self.positions += range(shared, len(variant))
        self.spans.append((begin, len(self.ids), shared))
        self.members.append(member)


def family_losses(
    model: Any, families: Sequence[Sequence[list[int]]], device: torch.device, budget: int
) -> list[np.ndarray]:
    """Return the mean loss in nats of the predicted tokens of each member of each family, float64 [members].

    A family is a text and its variants as token ids; the loss of a member of fewer than two tokens is infinite. The
    `model` takes `attention_mask` [batch, 1, length, length], added to the scores, and `position_ids`; a batch holds at
    most `budget` tokens, or one sequence.
    """
    total = [np.full(len(family), np.inf) for family in families]
    place = [(family, member) for family, members in enumerate(families) for member in range(len(members))]
    sheets = sorted(_sheets(families), key=lambda sheet: -len(sheet.ids))
    begin = 0
    while begin < len(sheets):
        group = sheets[begin : begin + max(1, budget // len(sheets[begin].ids))]
        for member, loss in _losses(model, group, device):
            family, at = place[member]
            total[family][at] = loss
        begin += len(group)
    return total


def _sheets(families: Sequence[Sequence[list[int]]]) -> Iterator[_Sheet]:
    member = 0
    for family in families:
        text = family[0]
        sheet = _Sheet(text, list(text), list(range(len(text))))
        for variant in family:
            shared = _shared(text, variant)
            if sheet.spans and len(sheet.ids) + len(variant) - shared > SHEET:
                yield sheet
                sheet = _Sheet(text, list(text), list(range(len(text))))
            sheet.add(member, variant, shared)
            member += 1
        yield sheet


def _shared(text: list[int], variant: list[int]) -> int:
    """Return how many tokens of a variant, from its start on, are those of the text."""
    pairs = zip(text, variant, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(text), len(variant)))


def _losses(model: Any, sheets: Sequence[_Sheet], device: torch.device) -> Iterator[tuple[int, float]]:
    """Yield the mean loss of every variant on the sheets, which are one batch."""
    longest = max(1, *(len(sheet.ids) for sheet in sheets))
    ids = torch.zeros((len(sheets), longest), dtype=torch.long)
    positions = torch.zeros((len(sheets), longest), dtype=torch.long)
    seen = torch.eye(longest, dtype=torch.bool).repeat(len(sheets), 1, 1)  # padding sees itself: no empty softmax
    rows, sources, targets, ends = [], [], [], []
    for row, sheet in enumerate(sheets):
        ids[row, : len(sheet.ids)] = torch.tensor(sheet.ids, dtype=torch.long)
        positions[row, : len(sheet.ids)] = torch.tensor(sheet.positions, dtype=torch.long)
        length = len(sheet.text)
        seen[row, :length, :length] = torch.ones(length, length, dtype=torch.bool).tril()
        source, target = list(range(length - 1)), sheet.text[1:]
        for begin, end, shared in sheet.spans:
            seen[row, begin:end, :shared] = True
            seen[row, begin:end, begin:end] = torch.ones(end - begin, end - begin, dtype=torch.bool).tril()
            if end > begin:
                first = [shared - 1] if shared else []  # the last shared token predicts the first added one
                source += [*first, *range(begin, end - 1)]
                target = target + (sheet.ids[begin:end] if shared else sheet.ids[begin + 1 : end])
        rows += [row] * len(source)
        sources += source
        targets += target
        ends.append(len(rows))
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
    each = _each(model, (ids, positions, mask), (rows, sources, targets), device)
    for sheet, begin, end in zip(sheets, [0, *ends], ends, strict=False):
        yield from _means(sheet, each[begin:end])


def _each(
    model: Any, inputs: tuple[Tensor, Tensor, Tensor], wanted: tuple[list[int], ...], device: torch.device
) -> np.ndarray:
    """Return the loss, float64 [predictions], of predicting a target from a place in a row, for all of these."""
    ids, positions, mask = (tensor.to(device) for tensor in inputs)
    rows, places, targets = (torch.tensor(values, dtype=torch.long, device=device) for values in wanted)
    logits = model(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False).logits.float()
    # One place predicts both the text's next token and a variant's: the sum over the vocabulary is taken once.
    return (logits.logsumexp(-1)[rows, places] - logits[rows, places, targets]).double().cpu().numpy()


def _means(sheet: _Sheet, each: np.ndarray) -> Iterator[tuple[int, float]]:
    """Yield each variant's mean loss, from the losses of the text's tokens and then of what the variants add."""
    at = max(0, len(sheet.text) - 1)
    before = np.concatenate([[0.0], np.cumsum(each[:at])])
    for member, (begin, end, shared) in zip(sheet.members, sheet.spans, strict=True):
        added = end - begin - (shared == 0) if end > begin else 0
        predicted = max(0, shared - 1) + added
        total = before[max(0, shared - 1)] + each[at : at + added].sum()
        at += added
        yield member, total / predicted if predicted else np.inf
