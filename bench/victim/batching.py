"""Texts as token ids: tokenised once, padded batch by batch to their own longest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One padded batch: `inputs` for the model (each [batch, length]), `labels` [batch], `rows` into its set."""

    inputs: dict[str, Tensor]
    labels: Tensor
    rows: tuple[int, ...]


class Encoded:
    """Token ids of n texts and their labels, with the padding rule of one tokenizer."""

    def __init__(self, ids: Sequence[Sequence[int]], labels: Sequence[int], pad: int) -> None:
        self.ids = [torch.tensor(row, dtype=torch.long) for row in ids]
        self.labels = torch.tensor(list(labels), dtype=torch.long)
        self.lengths = [len(row) for row in ids]
        self.pad = pad

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Sequence[int], device: torch.device | str = "cpu") -> Batch:
        """Return the rows as one batch, padded on the right to the longest of them."""
        longest = max(self.lengths[row] for row in rows)
        ids = torch.full((len(rows), longest), self.pad, dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : self.lengths[row]] = self.ids[row]
            mask[place, : self.lengths[row]] = 1
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        return Batch(inputs, self.labels[list(rows)].to(device), tuple(rows))

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


def encode(tokenizer: Any, texts: Iterable[str], labels: Iterable[int] | None, max_length: int) -> Encoded:
    """Tokenise texts, cut to `max_length` tokens; a text without any token becomes one separator or padding token.

    Segment ids are left out: every model here takes their absence as all zeros, which is what one text has.
    """
    texts = list(texts)
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
