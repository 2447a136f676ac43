"""BERT and RoBERTa classifiers on unpadded tokens, with what our defenses insert; the numbers are transformers'.

Post-norm encoders (Devlin et al., arXiv 1810.04805; Liu et al., arXiv 1907.11692). Only the order in which random
numbers are drawn differs from transformers, and sums of floats may differ in their last bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers.activations import ACT2FN

from bench.victim.joint.attention import attend, attend_first
from bench.victim.joint.dropout import Streams
from bench.victim.joint.layout import Layout
from bench.victim.joint.weights import Weights


@dataclass(frozen=True)
class Sizes:
    """What the forward pass reads from a model besides its tensors."""

    kind: str  # bert or roberta
    layers: int
    heads: int
    epsilon: float
    activation: str
    position_offset: int
    hidden_dropout: float
    attention_dropout: float
    head_dropout: float
    low_rank: dict[str, tuple[float, ...]]  # site -> scaling of its LoRA update, of each member
    multi_scale: dict[str, tuple[float, ...]]
    prefix: tuple[int, ...] | None  # tokens, layers, 2, heads, width of a head


class Soft(NamedTuple):
    """Vectors [pieces, width] that are read as the word embedding from token `begin` of every row on."""

    begin: int
    vectors: Tensor


class Encoder:
    """The forward pass of one joint batch."""

    def __init__(
        self,
        sizes: Sizes,
        weights: Weights,
        layout: Layout,
        streams: Streams,
        members: list[int],
        soft: Soft | None = None,
    ) -> None:
        """Take everything that the pass needs; `members` says whose each source is."""
        self.sizes, self.weights, self.layout, self.streams = sizes, weights, layout, streams
        self.members, self.soft = members, soft
        self.tokens, self.rows = layout.token_bounds, layout.row_bounds

    def logits(self) -> Tensor:
        """Return the logits [rows, classes] in fp32, rows in the order of the layout."""
        name = "classifier" if self.sizes.kind == "bert" else "classifier.out_proj"
        return self.site(self.features(), name, self.rows).float()

    def features(self) -> Tensor:
        """Return what the last linear map of the classifier reads, [rows, width]."""
        first, rate = self.states(), self.sizes.head_dropout
        if self.sizes.kind == "bert":
            return self.streams.drop(self.site(first, "bert.pooler.dense", self.rows).tanh(), self.rows, rate)
        dropped = self.streams.drop(first, self.rows, rate)
        return self.streams.drop(self.site(dropped, "classifier.dense", self.rows).tanh(), self.rows, rate)

    def states(self) -> Tensor:
        """Return the last hidden state of the first token of each row, [rows, width]: the head reads no other."""
        kind, prefix = self.sizes.kind, self._prefix()
        hidden = self._embedded(f"{kind}.embeddings")
        for number in range(self.sizes.layers):
            act = self._layer if number < self.sizes.layers - 1 else self._last_layer
            hidden = act(hidden, f"{kind}.encoder.layer.{number}", None if prefix is None else prefix[:, number])
        return hidden

    def _embedded(self, name: str) -> Tensor:
        weights, layout = self.weights, self.layout
        positions = layout.positions + self.sizes.position_offset
        hidden = functional.embedding(layout.ids, weights.single(f"{name}.word_embeddings.weight"))
        if self.soft is not None:
            begin, vectors = self.soft
            places = layout.starts[:, None] + begin + torch.arange(len(vectors), device=hidden.device)
            hidden = hidden.index_copy(0, places.flatten(), vectors.to(hidden.dtype).repeat(len(places), 1))
        hidden = hidden + weights.single(f"{name}.token_type_embeddings.weight")[0]
        hidden = hidden + functional.embedding(positions, weights.single(f"{name}.position_embeddings.weight"))
        hidden = weights.norm(hidden, f"{name}.LayerNorm", self.sizes.epsilon)
        return self.streams.drop(hidden, self.tokens, self.sizes.hidden_dropout)

    def _layer(self, hidden: Tensor, name: str, prefix: Tensor | None) -> Tensor:
        sizes, tokens = self.sizes, self.tokens
        parts = [self.site(hidden, f"{name}.attention.self.{part}", tokens) for part in ("query", "key", "value")]
        mixed = attend(*parts, self.layout, sizes.heads, sizes.attention_dropout, self.streams, prefix)
        hidden = self._added(mixed, hidden, f"{name}.attention.output")
        inner = ACT2FN[sizes.activation](self.site(hidden, f"{name}.intermediate.dense", tokens))
        return self._added(inner, hidden, f"{name}.output")

    def _last_layer(self, hidden: Tensor, name: str, prefix: Tensor | None) -> Tensor:
        """Return what `_layer` makes of the first tokens, [rows, width]: of all others it needs keys and values only.

        Random numbers are drawn for all tokens, so that each number is the one that it would be in a whole layer.
        """
        sizes, first = self.sizes, hidden.index_select(0, self.layout.starts)
        query = self.site(first, f"{name}.attention.self.query", self.rows)
        key, value = (self.site(hidden, f"{name}.attention.self.{part}", self.tokens) for part in ("key", "value"))
        mixed = attend_first(query, key, value, self.layout, sizes.heads, sizes.attention_dropout, self.streams, prefix)
        first = self._added_first(mixed, first, f"{name}.attention.output")
        inner = ACT2FN[sizes.activation](self.site(first, f"{name}.intermediate.dense", self.rows))
        return self._added_first(inner, first, f"{name}.output")

    def _added(self, values: Tensor, residual: Tensor, name: str) -> Tensor:
        """Return norm(residual + dropout(dense(values)))."""
        out = self.site(values, f"{name}.dense", self.tokens)
        out = self.streams.drop(out, self.tokens, self.sizes.hidden_dropout)
        return self.weights.norm(out + residual, f"{name}.LayerNorm", self.sizes.epsilon)

    def _added_first(self, values: Tensor, residual: Tensor, name: str) -> Tensor:
        """Return `_added` of the first tokens alone, [rows, width]."""
        out = self.streams.drop_first(
            self.site(values, f"{name}.dense", self.rows), self.layout, self.sizes.hidden_dropout
        )
        return self.weights.norm(out + residual, f"{name}.LayerNorm", self.sizes.epsilon)

    def site(self, values: Tensor, name: str, bounds: tuple[tuple[int, int], ...]) -> Tensor:
        """Return a linear map of the model with the LoRA, adapter or multi-scale module that hangs on it."""
        weights = self.weights
        if weights.has(f"{name}.lower"):
            return self._multi_scale(values, name, bounds)
        low_rank = weights.has(f"{name}.lora_A.default.weight")
        out = weights.linear(values, f"{name}.base_layer" if low_rank else name, bounds)
        if low_rank:
            scaling = self._scalings(self.sizes.low_rank[name], out)
            inner = weights.each(values, weights.own[f"{name}.lora_A.default.weight"], bounds)
            update = weights.own[f"{name}.lora_B.default.weight"] * scaling
            out = out + weights.each(inner, update, bounds)
        if weights.has(f"{name}.adapter.down.weight"):
            inner = functional.gelu(weights.linear(out, f"{name}.adapter.down", bounds), approximate="tanh")
            out = out + weights.linear(inner, f"{name}.adapter.up", bounds)
        return out

    def _multi_scale(self, values: Tensor, name: str, bounds: tuple[tuple[int, int], ...]) -> Tensor:
        weights = self.weights
        scales = weights.own[f"{name}.scales"]
        lower = weights.own[f"{name}.lower"] * scales[:, :, None]
        upper = weights.own[f"{name}.upper"] * self._scalings(self.sizes.multi_scale[name], values)
        update = weights.each(weights.each(values, lower, bounds), upper, bounds)
        return update + weights.linear(values, f"{name}.original", bounds)

    def _scalings(self, scalings: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor([scalings[member] for member in self.members], device=like.device)[:, None, None]

    def _prefix(self) -> Tensor | None:
        """Return the learned keys and values [sources, layers, 2, heads, tokens, width of a head]."""
        shape = self.sizes.prefix
        if shape is None:
            return None
        own, name = self.weights.own, f"{self.sizes.kind}.prefix.encoder"
        inner = torch.baddbmm(
            own[f"{name}.transform.0.bias"][:, None],
            own[f"{name}.embedding.weight"],
            own[f"{name}.transform.0.weight"].transpose(1, 2),
        ).tanh()
        out = torch.baddbmm(
            own[f"{name}.transform.2.bias"][:, None], inner, own[f"{name}.transform.2.weight"].transpose(1, 2)
        )
        return out.view(-1, *shape).permute(0, 2, 3, 4, 1, 5)


def dropout_rates(model: Any, kind: str) -> tuple[float, float, float]:
    """Return the rates that the modules of a model hold now: hidden, attention, head."""
    backbone = model.get_submodule(kind)
    layer = backbone.encoder.layer[0]
    head = model.dropout if kind == "bert" else model.classifier.dropout
    return backbone.embeddings.dropout.p, layer.attention.self.dropout.p, head.p
