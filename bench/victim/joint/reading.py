"""What a victim makes of texts without dropout and without training, on unpadded tokens: for a CPU.

There padding costs as much as text, and small batches stay in the cache. On a GPU transformers' own padded pass, in
large batches of like lengths, launches less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from bench.core.memory import part_size
from bench.victim.batching import Encoded, by_tokens
from bench.victim.joint.encoder import Encoder
from bench.victim.joint.forward import Soft
from bench.victim.joint.layout import Source
from bench.victim.joint.passes import JointModel
from bench.victim.joint.support import forward_of, kind_of
from bench.victim.victim import Victim

TOKENS = 384  # of one pass: with MiniLM on one core, 128 and 1,024 take 1.2 times as long for each token


class Reader:
    """Reads texts by the weights that a victim has now; whatever mode it is in, nothing is dropped."""

    def __init__(self, victim: Victim) -> None:
        """Take a victim for which `reader` is not None."""
        self.joint = JointModel([victim], reading=True)

    def collect(
        self,
        texts: Encoded,
        compute: Callable[[Encoder], Tensor],
        batches: Iterable[Sequence[int]] | None = None,
        soft: Soft | None = None,
    ) -> Tensor:
        """Return `compute` of all texts, fp32 [n, width], in their own order; no gradients.

        Args:
            compute: what is wanted of a pass, [rows, width].
            batches: the rows of each pass, all rows once; by default as many of like length as make TOKENS tokens.
            soft: vectors to read in place of some tokens.
        """
        order: list[int] = []
        found: list[Tensor] = []
        with torch.inference_mode():
            for rows in batches or by_tokens(texts, part_size(TOKENS)):
                encoder, places = self._pass(texts, rows, soft)
                found.append(compute(encoder).float())
                order += places
            return torch.cat(found)[torch.tensor(order).argsort()]

    def logits(self, texts: Encoded, rows: Sequence[int], soft: Soft) -> Tensor:
        """Return the logits [rows, classes] in fp32, with the graph that leads to the vectors of `soft`."""
        encoder, places = self._pass(texts, rows, soft)
        back = {row: place for place, row in enumerate(places)}
        return encoder.logits()[[back[row] for row in rows]]

    def _pass(self, texts: Encoded, rows: Sequence[int], soft: Soft | None) -> tuple[Encoder, tuple[int, ...]]:
        """Return a pass over distinct rows, and the rows in the order in which it has them."""
        layout = self.joint.lay_out([Source(0, texts, rows)])
        return self.joint.encoder(layout, [0], None, None, (soft,)), layout.order[0]


def reader(victim: Victim) -> Reader | None:
    """Return what reads unpadded, None on a GPU or where the unpadded pass does not know every part of the victim."""
    if victim.device.type != "cpu" or kind_of(victim) is None or not forward_of(victim).reads:
        return None
    return Reader(victim)
