"""Texts as token ids: tokenised once, padded batch by batch to their own longest."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LONGEST_TOKEN = 200  # characters: more than `max_length` times as many cannot reach the model, but for blanks
GROUP_COST = 64  # tokens: what one more pass over the layers and the embedding's gradient costs on a CPU


@dataclass(frozen=True)
class Batch:
    """Rows of one set; their padded tensors are made when they are first asked for."""

    data: Encoded
    rows: tuple[int, ...]
    device: torch.device | str = "cpu"
    grouped: bool = False

    @functools.cached_property
    def inputs(self) -> dict[str, Tensor]:
        """The inputs of the model, each [batch, longest], padded on the right."""
        ids, mask = self.data.padded(self.rows)
        return {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}

    @functools.cached_property
    def labels(self) -> Tensor:
        """The labels [batch]."""
        return self.data.labels[list(self.rows)].to(self.device)

    @functools.cached_property
    def parts(self) -> tuple[Batch, ...]:
        """The same rows in groups of like lengths, where that saves padding; empty: the batch is one group."""
        if not self.grouped:
            return ()
        groups = like_lengths([(self.data.lengths[row], row) for row in self.rows])
        return tuple(Batch(self.data, tuple(group), self.device) for group in groups) if len(groups) > 1 else ()


def pieces(batch: Batch, count: int) -> list[tuple[Batch, float]]:
    """Return a batch in `count` parts, each with its share of the rows; where it has fewer rows some parts weigh 0."""
    if count == 1:
        return [(batch, 1.0)]
    size = -(-len(batch.rows) // count)
    rows = [batch.rows[first : first + size] for first in range(0, len(batch.rows), size)]
    parts = [(Batch(batch.data, part, batch.device, batch.grouped), len(part) / len(batch.rows)) for part in rows]
    return parts + [(parts[-1][0], 0.0)] * (count - len(parts))


class Encoded:
    """Token ids of n texts and their labels, with the padding rule of one tokenizer."""

    def __init__(self, ids: Sequence[Sequence[int]], labels: Sequence[int], pad: int) -> None:
        self.ids = [torch.tensor(row, dtype=torch.long) for row in ids]
        self.labels = torch.tensor(list(labels), dtype=torch.long)
        self.lengths = [len(row) for row in ids]
        self.pad = pad

    def __len__(self) -> int:
        return len(self.ids)

    def padded(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return token ids and mask [rows, longest], padded on the right."""
        longest = max(self.lengths[row] for row in rows)
        ids = torch.full((len(rows), longest), self.pad, dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : self.lengths[row]] = self.ids[row]
            mask[place, : self.lengths[row]] = 1
        return ids, mask

    def batch(self, rows: Sequence[int], device: torch.device | str = "cpu") -> Batch:
        """Return the rows as one batch, padded on the right to the longest of them."""
        return Batch(self, tuple(rows), device)

    def grouped(self, rows: Sequence[int], device: torch.device | str = "cpu") -> Batch:
        """Return the rows as one batch that also stands in groups of like lengths, each padded to its own longest.

        The mean loss over the groups, weighted by their sizes, is that of the batch.
        """
        return Batch(self, tuple(rows), device, grouped=True)

    def by_length(self, size: int) -> Iterator[list[int]]:
        """Yield all rows in groups of at most `size`, longest texts first: little padding, peak memory first."""
        order = sorted(range(len(self)), key=lambda row: -self.lengths[row])
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[list[int]]:
        """Yield all rows once in random order in groups of `size`; the last group may be smaller."""
        order = torch.randperm(len(self), generator=generator).tolist()
        for start in range(0, len(order), size):
            yield order[start : start + size]


def like_lengths(rows: Sequence[tuple[int, int]], cost: int = GROUP_COST) -> list[list[int]]:
    """Return the rows, given as (length, row), in groups that need the fewest padded tokens.

    Every group counts for `cost` tokens more, so that a batch of like lengths stays whole. Exact, by dynamic
    programming over the rows in order of length.
    """
    ordered = sorted(rows)
    best: list[tuple[float, int]] = [(0.0, 0)]  # cost of the first k rows, and where their last group starts
    for end in range(1, len(ordered) + 1):
        longest = ordered[end - 1][0]
        best.append(min((best[start][0] + (end - start) * longest + cost, start) for start in range(end)))
    groups: list[list[int]] = []
    end = len(ordered)
    while end:
        start = best[end][1]
        groups.append([row for _, row in ordered[start:end]])
        end = start
    return groups[::-1]


def by_tokens(texts: Encoded, tokens: int) -> Iterator[list[int]]:
    """Yield all rows, longest first, in groups of at most `tokens` padded tokens, or of one row that is longer."""
    group: list[int] = []
    for row in sorted(range(len(texts)), key=lambda row: -texts.lengths[row]):
        if group and (len(group) + 1) * texts.lengths[group[0]] > tokens:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def encode(tokenizer: Any, texts: Iterable[str], labels: Iterable[int] | None, max_length: int) -> Encoded:
    """Tokenise texts, cut to `max_length` tokens; a text without any token becomes one separator or padding token.

    Segment ids are left out: every model here takes their absence as all zeros, which is what one text has.
    """
    # A tokenizer reads the whole text before it cuts: one of 10 MB would take it a minute.
    texts = [text[: LONGEST_TOKEN * max_length] for text in texts]
    filler = next(
        (
            token
            for token in (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
            if token is not None
        ),
        0,
    )
    ids = tokenizer(texts, truncation=True, max_length=max_length, padding=False)["input_ids"] if texts else []
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else filler
    return Encoded([row or [filler] for row in ids], [0] * len(texts) if labels is None else list(labels), pad)
