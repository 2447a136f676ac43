"""DistilBERT classifiers on unpadded tokens, with what our defenses insert; the numbers are transformers'.

BERT's post-norm layers under other names, without segments (Sanh et al., arXiv 1910.01108), and a head of two maps with
a ReLU between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional
from transformers.activations import ACT2FN

from bench.victim.joint.attention import Heads, attend
from bench.victim.joint.forward import Forward

EPSILON = 1e-12  # written into transformers' modules


@dataclass(frozen=True)
class Numbers:
    """What the config and the modules of such an encoder say."""

    heads: Heads
    activation: str
    padding: int | None  # the word whose embedding gets no gradient
    embedding_dropout: float
    inner_dropout: float
    head_dropout: float


class DistilBert(Forward):
    """The forward pass of one joint batch."""

    kinds = {"DistilBertForSequenceClassification": "distilbert"}

    @classmethod
    def refusal(cls, model: Any) -> str:
        """Return ""; there is nothing in such a model that the pass does not know."""
        return ""

    @classmethod
    def rates(cls, model: Any) -> tuple[float, ...]:
        """Return the dropout rates: embeddings, attention probabilities, feed-forward block, head."""
        backbone = model.base_model
        layer = backbone.transformer.layer[0]
        return backbone.embeddings.dropout.p, layer.attention.dropout.p, layer.ffn.dropout.p, model.dropout.p

    @classmethod
    def numbers(cls, model: Any) -> Numbers:
        """Return what the pass reads off a model."""
        embedding, probabilities, inner, head = cls.rates(model)
        return Numbers(
            heads=Heads(model.config.n_heads, rate=probabilities),
            activation=model.config.activation,
            padding=model.base_model.embeddings.word_embeddings.padding_idx,
            embedding_dropout=embedding,
            inner_dropout=inner,
            head_dropout=head,
        )

    def logits(self) -> Tensor:
        """Return the logits [rows, classes] in fp32, rows in the order of the layout."""
        weights, numbers, layout, name = self.weights, self.sizes.numbers, self.layout, "distilbert.embeddings"
        hidden = self.words(f"{name}.word_embeddings.weight", numbers.padding)
        hidden = hidden + functional.embedding(layout.positions, weights.single(f"{name}.position_embeddings.weight"))
        hidden = weights.norm(hidden, f"{name}.LayerNorm", EPSILON)
        hidden = self.streams.drop(hidden, self.tokens, numbers.embedding_dropout)
        first = self.through_layers(hidden, self._layer).index_select(0, layout.starts)
        pooled = self.site(first, "pre_classifier", self.rows).relu()
        pooled = self.streams.drop(pooled, self.rows, numbers.head_dropout)
        return self.site(pooled, "classifier", self.rows).float()

    def _layer(self, hidden: Tensor, number: int, prefix: Tensor | None) -> Tensor:
        weights, numbers, tokens = self.weights, self.sizes.numbers, self.tokens
        name = f"distilbert.transformer.layer.{number}"
        parts = [self.site(hidden, f"{name}.attention.{part}_lin", tokens) for part in "qkv"]
        mixed = attend(*parts, self.layout, numbers.heads, self.streams, prefix)
        added = self.site(mixed, f"{name}.attention.out_lin", tokens)
        hidden = weights.norm(added + hidden, f"{name}.sa_layer_norm", EPSILON)
        inner = ACT2FN[numbers.activation](self.site(hidden, f"{name}.ffn.lin1", tokens))
        added = self.streams.drop(self.site(inner, f"{name}.ffn.lin2", tokens), tokens, numbers.inner_dropout)
        return weights.norm(added + hidden, f"{name}.output_layer_norm", EPSILON)
