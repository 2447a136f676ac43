"""The rows of a word embedding that a training reads: the only ones that a step has to touch.

A word that no text of a training has gets no gradient, and AdamW without weight decay leaves it where it is. Of
MiniLM's 30,522 words, 2,000 sentences of SST-2 have a fifth, and the embedding is half of all that is trained:
gradients of 0, their norms and their moments cost a tenth of a training of all weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from bench.victim.batching import Encoded
from bench.victim.victim import Victim

SHARE = 0.5  # of the words: where more are read, the whole embedding trains


class ReadWords:
    """Stands for the word embedding while it trains: its rows that are read, and each word's row among them."""

    def __init__(self, name: str, table: nn.Parameter, rows: torch.Tensor, padding: int | None) -> None:
        """Take name, table [vocabulary, width] and padding of the embedding, and the distinct words that are read."""
        self.name, self.table, self.rows = name, table, rows
        self.read = nn.Parameter(table.detach()[rows])
        self.places = torch.full((len(table),), -1, dtype=torch.long)
        self.places[rows.cpu()] = torch.arange(len(rows))
        place = -1 if padding is None else int(self.places[padding])
        self.padding = place if place >= 0 else None  # its row in `read`, if a text itself has it

    def renamed(self, data: Encoded) -> Encoded:
        """Return texts with each word's row in `read` in place of the word.

        Raises:
            ValueError: a word that was not among those that are read.
        """
        ids = [self.places[row].tolist() for row in data.ids]
        if any(min(row, default=0) < 0 for row in ids):
            raise ValueError("A text has a word of which it was not said that this training reads it.")
        return Encoded(ids, data.labels.tolist(), data.pad)

    @torch.no_grad()
    def put_back(self) -> None:
        """Write the rows into the embedding, for whoever looks at the victim."""
        self.table[self.rows] = self.read


def read_words(victim: Victim, parameters: Mapping[str, nn.Parameter], texts: Iterable[Encoded]) -> ReadWords | None:
    """Return what stands for the word embedding in a training on these texts; None where it is better left whole.

    For an architecture whose unpadded pass reads the embedding for words alone.
    """
    table = victim.word_embedding
    name = next((name for name, value in parameters.items() if value is table), None)
    if name is None:
        return None
    rows = torch.cat([row for data in texts for row in data.ids]).unique()
    if len(rows) > SHARE * len(table):
        return None
    return ReadWords(name, table, rows.to(table.device), victim.model.get_input_embeddings().padding_idx)
