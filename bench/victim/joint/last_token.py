"""The head of a decoder in a joint pass, on the last real token: the paper's two maps, or transformers' one."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bench.victim.head import SCORE, TwoLayerHead
from bench.victim.joint.forward import Forward


class LastToken(Forward):
    """A decoder; its `Sizes.numbers` name a `head_dropout`."""

    @classmethod
    def refusal(cls, model: Any) -> str:
        """Return why the head is not known, "" where it is."""
        head = getattr(model, SCORE, None)
        return "" if isinstance(head, TwoLayerHead | nn.Linear) else "its head is neither the paper's nor one linear"

    def classified(self, last: Tensor) -> Tensor:
        """Return the logits [rows, classes] in fp32 of the states [rows, width] of every text's last token."""
        if not self.weights.has(f"{SCORE}.out_proj.weight"):
            return self.site(last, SCORE, self.rows).float()
        inner = self.site(last, f"{SCORE}.dense", self.rows)
        inner = self.streams.drop(inner, self.rows, self.sizes.numbers.head_dropout)
        return self.site(inner, f"{SCORE}.out_proj", self.rows).float()


def head_rate(model: Any) -> float:
    """Return the dropout rate that the head of a decoder holds now; 0 where it has none."""
    head = getattr(model, SCORE)
    return head.dropout.p if isinstance(head, TwoLayerHead) else 0.0
