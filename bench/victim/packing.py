"""A text and its variants in one sequence: what a variant shares with the text, from the start on, is read once.

Leaving out word i of n changes nothing before it, so the variants of a text hold half as many new tokens as tokens. The
last token of a variant predicts nothing and is seen by nothing, so that it is not read at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.victim.reading import losses_at

SHEET = 128  # tokens of a packed sequence, which longer families take several of: bounds the square of its mask
TEXTS = 3  # as many texts' tokens a sheet takes at least, or little would be shared on it


@dataclass
class _Sheet:
    """One packed sequence: the first tokens of a text, and what some of its variants add to what they share with it.

    Token i sees the tokens before `shared[i]`, which are the text's, and those from `begins[i]` to itself.
    """

    ids: list[int]
    positions: list[int] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  # of the tokens that predict, and what they predict
    targets: list[int] = field(default_factory=list)
    members: list[tuple[int, int]] = field(default_factory=list)  # whose predictions these are, and how many

    def __post_init__(self) -> None:
        self.positions = list(range(len(self.ids)))
        self.shared, self.begins = [0] * len(self.ids), [0] * len(self.ids)

    def predict(self, member: int, places: Sequence[int], targets: Sequence[int]) -> None:
        """Append predictions of a member."""
        self.places += places
        self.targets += targets
        self.members.append((member, len(targets)))

    def add(self, member: int, variant: Sequence[int], shared: int) -> None:
        """Append what a variant does not share with the text, but for its last token, and all that this predicts."""
        begin = len(self.ids)
        self.ids += variant[shared:-1]
        added = len(self.ids) - begin
        self.positions += range(shared, shared + added)
        self.shared += [shared] * added
        self.begins += [begin] * added
        # The last shared token predicts the first one that is not.
        first = [shared - 1] if shared else []
        self.predict(member, [*first, *range(begin, begin + added)], variant[max(shared, 1) :])


def family_losses(
    model: Any,
    families: Sequence[Sequence[list[int]]],
    device: torch.device,
    budget: int,
    *,
    by_blocks: bool = False,
) -> list[np.ndarray]:
    """Return the mean loss in nats of the predicted tokens of each member of each family, float64 [members].

    A family is a text and its variants as token ids; equal ones are read once, and the loss of a member of fewer than
    two tokens is infinite. The `model` takes `attention_mask` [batch, 1, length, length], added to the scores, and
    `position_ids`; a batch holds at most `budget` tokens, or one sequence. `by_blocks` is that of `losses_at`.
    """
    unique = [list(dict.fromkeys(map(tuple, family))) for family in families]
    starts = np.cumsum([0, *map(len, unique)]).tolist()
    shared = [[_shared(rows[0], row) for row in rows] for rows in unique]
    sheets: list[_Sheet] = []
    for rows, common, first in zip(unique, shared, starts, strict=False):
        sheets += _sheets(rows, common, first)
    sheets.sort(key=lambda sheet: -len(sheet.ids))
    found = [np.zeros(0)] * starts[-1]
    begin = 0
    while begin < len(sheets):
        group = sheets[begin : begin + max(1, budget // len(sheets[begin].ids))]
        members = [member for sheet in group for member in sheet.members]
        each = _each(model, group, device, by_blocks)
        ends = np.cumsum([count for _, count in members])[:-1]
        for (member, _), losses in zip(members, np.split(each, ends), strict=True):
            found[member] = losses
        begin += len(group)
    means = []
    for family, rows, common, first in zip(families, unique, shared, starts, strict=False):
        loss = dict(zip(rows, _means(rows, common, found[first : first + len(rows)]), strict=True))
        means.append(np.array([loss[tuple(row)] for row in family]))
    return means


def sheet_size(text: Sequence[int]) -> int:
    """Return how many tokens a sheet of a text's family may hold."""
    return max(SHEET, TEXTS * len(text))


def _shared(text: Sequence[int], variant: Sequence[int]) -> int:
    """Return how many tokens of a variant, from its start on, are those of the text."""
    pairs = zip(text, variant, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(text), len(variant)))


def _sheets(rows: Sequence[tuple[int, ...]], shared: Sequence[int], first: int) -> Iterator[_Sheet]:
    """Yield the sheets of a family, whose members count from `first`; those that share most come first.

    A later sheet then needs no more of the text than its first variant shares.
    """
    text = rows[0]
    adding = sorted((row for row in range(1, len(rows)) if shared[row] < len(rows[row])), key=lambda row: -shared[row])
    sheet = _Sheet(list(text[: max([len(text) - 1, *(shared[row] for row in adding[:1])])]))
    if len(text) > 1:
        sheet.predict(first, range(len(text) - 1), text[1:])
    for row in adding:
        if sheet.places and len(sheet.ids) + len(rows[row]) - 1 - shared[row] > sheet_size(text):
            yield sheet
            sheet = _Sheet(list(text[: shared[row]]))
        sheet.add(first + row, rows[row], shared[row])
    if sheet.places:
        yield sheet


def _each(model: Any, sheets: Sequence[_Sheet], device: torch.device, by_blocks: bool) -> np.ndarray:
    """Return the losses of all predictions of the sheets, which are one batch, float64 [predictions]."""
    longest = max(len(sheet.ids) for sheet in sheets)
    columns = torch.arange(longest, device=device)

    def padded(values: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([[*row, *[0] * (longest - len(row))] for row in values], device=device)

    begins = [[*sheet.begins, *range(len(sheet.begins), longest)] for sheet in sheets]  # padding sees itself
    of_text = columns < padded([sheet.shared for sheet in sheets])[..., None]
    own = (columns >= padded(begins)[..., None]) & (columns <= columns[:, None])
    mask = torch.zeros(own.shape, device=device).masked_fill(~(of_text | own), torch.finfo(torch.float32).min)
    inputs = {
        "input_ids": padded([sheet.ids for sheet in sheets]),
        "position_ids": padded([sheet.positions for sheet in sheets]),
        "attention_mask": mask[:, None],
        "use_cache": False,
    }
    places = [row * longest + place for row, sheet in enumerate(sheets) for place in sheet.places]
    targets = [target for sheet in sheets for target in sheet.targets]
    wanted = (torch.tensor(places, device=device), torch.tensor(targets, device=device))
    return losses_at(model, inputs, *wanted, by_blocks=by_blocks).cpu().numpy()


def _means(rows: Sequence[tuple[int, ...]], shared: Sequence[int], found: Sequence[np.ndarray]) -> Iterator[float]:
    """Yield each member's mean loss, from the losses of the text's tokens and of what every variant adds."""
    before = np.concatenate([[0.0], np.cumsum(found[0])])
    for row, common, losses in zip(rows, shared, found, strict=True):
        total = before[max(0, common - 1)] + (losses.sum() if row is not rows[0] else 0.0)
        yield total / (len(row) - 1) if len(row) > 1 else np.inf
