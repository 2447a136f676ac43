"""ModernBERT classifiers on unpadded tokens, with what our defenses insert; the numbers are transformers'.

A pre-norm encoder (Warner et al., arXiv 2412.13663): rotary positions, a gated feed-forward block, and layers that see
a window of the text, with angles of their own. The first layer's attention has no norm before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.activations import ACT2FN

from bench.victim.joint.attention import Heads, attend
from bench.victim.joint.forward import Forward
from bench.victim.joint.rotary import angles, by_length, rotated


@dataclass(frozen=True)
class Numbers:
    """What the config and the modules of such an encoder say."""

    heads: tuple[Heads, ...]  # of each layer
    types: tuple[str, ...]  # of each layer: which angles it takes
    by_length: bool  # whether angles depend on the longest text
    rotary: Any  # transformers' module
    epsilon: float
    activation: str
    head_activation: str
    padding: int | None  # the word whose embedding gets no gradient
    pooling: str  # cls or mean
    embedding_dropout: float
    attention_dropout: float  # of what the attention adds
    inner_dropout: float  # within the feed-forward block
    head_dropout: float


class ModernBert(Forward):
    """The forward pass of one joint batch."""

    kinds = {"ModernBertForSequenceClassification": "modernbert"}

    @classmethod
    def refusal(cls, model: Any) -> str:
        """Return what of a model the pass does not know: layers of another type."""
        types = set(model.config.layer_types) - {"full_attention", "sliding_attention"}
        return f"its layers attend by {', '.join(sorted(types))}" if types else ""

    @classmethod
    def rates(cls, model: Any) -> tuple[float, ...]:
        """Return the dropout rates: embeddings, attention probabilities, what it adds, feed-forward block, head."""
        backbone = model.base_model
        attention, inner = backbone.layers[0].attn, backbone.layers[0].mlp
        added = getattr(attention.out_drop, "p", 0.0)
        return backbone.embeddings.drop.p, attention.attention_dropout, added, inner.drop.p, model.drop.p

    @classmethod
    def numbers(cls, model: Any) -> Numbers:
        """Return what the pass reads off a model."""
        config = model.config
        embedding, probabilities, attention, inner, head = cls.rates(model)
        types = tuple(config.layer_types)
        window = {"full_attention": None, "sliding_attention": config.sliding_window}
        return Numbers(
            heads=tuple(Heads(config.num_attention_heads, rate=probabilities, window=window[kind]) for kind in types),
            types=types,
            by_length=any(by_length(str(config.rope_parameters[kind]["rope_type"])) for kind in types),
            rotary=model.base_model.rotary_emb,
            epsilon=config.norm_eps,
            activation=config.hidden_activation,
            head_activation=config.classifier_activation,
            padding=model.base_model.embeddings.tok_embeddings.padding_idx,
            pooling=config.classifier_pooling,
            embedding_dropout=embedding,
            attention_dropout=attention,
            inner_dropout=inner,
            head_dropout=head,
        )

    def logits(self) -> Tensor:
        """Return the logits [rows, classes] in fp32, rows in the order of the layout."""
        weights, numbers, layout, name = self.weights, self.sizes.numbers, self.layout, self.sizes.backbone
        hidden = self.words(f"{name}.embeddings.tok_embeddings.weight", numbers.padding)
        hidden = weights.norm(hidden, f"{name}.embeddings.norm", numbers.epsilon)
        hidden = self.streams.drop(hidden, self.tokens, numbers.embedding_dropout)
        bounds = self.tokens if numbers.by_length else ((0, len(hidden)),)
        self.angles = {
            kind: angles(numbers.rotary, hidden, layout.positions, bounds, kind) for kind in sorted(set(numbers.types))
        }
        hidden = self.through_layers(hidden, self._layer)
        if numbers.pooling == "cls":
            hidden = hidden.index_select(0, layout.starts)
        hidden = weights.norm(hidden, f"{name}.final_norm", numbers.epsilon)
        pooled = self._mean(hidden) if numbers.pooling == "mean" else hidden
        pooled = ACT2FN[numbers.head_activation](self.site(pooled, "head.dense", self.rows))
        pooled = weights.norm_each(pooled, "head.norm", numbers.epsilon, self.rows)
        pooled = self.streams.drop(pooled, self.rows, numbers.head_dropout)
        return self.site(pooled, "classifier", self.rows).float()

    def _layer(self, hidden: Tensor, number: int, prefix: Tensor | None) -> Tensor:
        weights, numbers, tokens = self.weights, self.sizes.numbers, self.tokens
        name, heads = f"{self.sizes.backbone}.layers.{number}", self.sizes.numbers.heads[number]
        normed = weights.norm(hidden, f"{name}.attn_norm", numbers.epsilon) if number else hidden
        query, key, value = self.site(normed, f"{name}.attn.Wqkv", tokens).chunk(3, dim=-1)
        by = self.angles[numbers.types[number]]
        query, key = (rotated(part.view(len(part), heads.queries, -1).float(), by) for part in (query, key))
        query, key = (part.flatten(1).to(value.dtype) for part in (query, key))
        mixed = attend(query, key, value, self.layout, heads, self.streams, prefix)
        added = self.site(mixed, f"{name}.attn.Wo", tokens)
        hidden = hidden + self.streams.drop(added, tokens, numbers.attention_dropout)
        normed = weights.norm(hidden, f"{name}.mlp_norm", numbers.epsilon)
        left, gate = self.site(normed, f"{name}.mlp.Wi", tokens).chunk(2, dim=-1)
        inner = self.streams.drop(ACT2FN[numbers.activation](left) * gate, tokens, numbers.inner_dropout)
        return hidden + self.site(inner, f"{name}.mlp.Wo", tokens)

    def _mean(self, hidden: Tensor) -> Tensor:
        """Return the mean over the tokens of each row [rows, width]."""
        lengths = self.layout.ends - self.layout.starts + 1
        rows = torch.arange(len(lengths), device=hidden.device).repeat_interleave(lengths)
        summed = hidden.new_zeros(len(lengths), hidden.shape[1]).index_add(0, rows, hidden)
        return summed / lengths[:, None]
