"""BERT, RoBERTa and ELECTRA classifiers on unpadded tokens, with our defenses' parts; the numbers are transformers'.

Post-norm encoders (Devlin et al., arXiv 1810.04805; Liu et al., arXiv 1907.11692; Clark et al., arXiv 2003.10555). Only
the order in which random numbers are drawn differs from transformers, and sums of floats may differ in their last bits;
and a padding token inside a text has a position in RoBERTa too, for which transformers counts none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional
from transformers.activations import ACT2FN

from bench.victim.joint.attention import Heads, attend, attend_first
from bench.victim.joint.forward import Forward
from bench.victim.victim import first_position


@dataclass(frozen=True)
class Numbers:
    """What the config and the modules of such an encoder say."""

    heads: Heads
    epsilon: float
    activation: str
    padding: int | None  # the word that gets no gradient
    position_offset: int
    hidden_dropout: float
    head_dropout: float


class Encoder(Forward):
    """The forward pass of one joint batch."""

    kinds = {
        "BertForSequenceClassification": "bert",
        "RobertaForSequenceClassification": "roberta",
        "ElectraForSequenceClassification": "electra",
    }
    reads = bare_words = True
    compact = False  # only transformers' own pass computes an encoder's layers again, or keeps its weights in bf16

    @classmethod
    def refusal(cls, model: Any) -> str:
        """Return what of a model the pass does not know: relative positions, or a decoder made of an encoder."""
        config = model.config
        if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
            return f"its positions are {config.position_embedding_type}"
        if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
            return "it is set up as a decoder"
        return ""

    @classmethod
    def rates(cls, model: Any) -> tuple[float, ...]:
        """Return the dropout rates that the modules of a model hold now: hidden, attention, head."""
        backbone = model.base_model
        head = model.dropout if hasattr(model, "dropout") else model.classifier.dropout
        return backbone.embeddings.dropout.p, backbone.encoder.layer[0].attention.self.dropout.p, head.p

    @classmethod
    def numbers(cls, model: Any) -> Numbers:
        """Return what the pass reads off a model."""
        config = model.config
        hidden, attention, head = cls.rates(model)
        return Numbers(
            heads=Heads(config.num_attention_heads, rate=attention),
            epsilon=config.layer_norm_eps,
            activation=config.hidden_act,
            padding=model.get_input_embeddings().padding_idx,
            position_offset=first_position(model),
            hidden_dropout=hidden,
            head_dropout=head,
        )

    def logits(self) -> Tensor:
        """Return the logits [rows, classes] in fp32, rows in the order of the layout."""
        name = "classifier" if self.sizes.kind == "bert" else "classifier.out_proj"
        return self.site(self.features(), name, self.rows).float()

    def features(self) -> Tensor:
        """Return what the last linear map of the classifier reads, [rows, width]."""
        kind, first, rate = self.sizes.kind, self.states(), self.sizes.numbers.head_dropout
        if kind == "bert":
            return self.streams.drop(self.site(first, "bert.pooler.dense", self.rows).tanh(), self.rows, rate)
        dropped = self.streams.drop(first, self.rows, rate)
        pooled = self.site(dropped, "classifier.dense", self.rows)
        pooled = functional.gelu(pooled) if kind == "electra" else pooled.tanh()
        return self.streams.drop(pooled, self.rows, rate)

    def states(self) -> Tensor:
        """Return the last hidden state of the first token of each row, [rows, width]: the head reads no other."""
        return self.through_layers(self._embedded(f"{self.sizes.kind}.embeddings"), self._layer, self._last_layer)

    def _embedded(self, name: str) -> Tensor:
        weights, layout, numbers = self.weights, self.layout, self.sizes.numbers
        positions = layout.positions + numbers.position_offset
        hidden = self.words(f"{name}.word_embeddings.weight", numbers.padding)
        hidden = hidden + weights.single(f"{name}.token_type_embeddings.weight")[0]
        hidden = hidden + functional.embedding(positions, weights.single(f"{name}.position_embeddings.weight"))
        hidden = weights.norm(hidden, f"{name}.LayerNorm", numbers.epsilon)
        hidden = self.streams.drop(hidden, self.tokens, numbers.hidden_dropout)
        projection = f"{self.sizes.kind}.embeddings_project"  # ELECTRA's, where its words are narrower than its layers
        return self.site(hidden, projection, self.tokens) if weights.has(f"{projection}.weight") else hidden

    def _layer(self, hidden: Tensor, number: int, prefix: Tensor | None) -> Tensor:
        numbers, tokens, name = self.sizes.numbers, self.tokens, f"{self.sizes.kind}.encoder.layer.{number}"
        parts = [self.site(hidden, f"{name}.attention.self.{part}", tokens) for part in ("query", "key", "value")]
        mixed = attend(*parts, self.layout, numbers.heads, self.streams, prefix)
        hidden = self._added(mixed, hidden, f"{name}.attention.output")
        inner = ACT2FN[numbers.activation](self.site(hidden, f"{name}.intermediate.dense", tokens))
        return self._added(inner, hidden, f"{name}.output")

    def _last_layer(self, hidden: Tensor, number: int, prefix: Tensor | None) -> Tensor:
        """Return what `_layer` makes of the first tokens, [rows, width]: of all others it needs keys and values only.

        Random numbers are drawn for all tokens, so that each number is the one that it would be in a whole layer.
        """
        numbers, name = self.sizes.numbers, f"{self.sizes.kind}.encoder.layer.{number}"
        first = hidden.index_select(0, self.layout.starts)
        query = self.site(first, f"{name}.attention.self.query", self.rows)
        key, value = (self.site(hidden, f"{name}.attention.self.{part}", self.tokens) for part in ("key", "value"))
        mixed = attend_first(query, key, value, self.layout, numbers.heads, self.streams, prefix)
        first = self._added_first(mixed, first, f"{name}.attention.output")
        inner = ACT2FN[numbers.activation](self.site(first, f"{name}.intermediate.dense", self.rows))
        return self._added_first(inner, first, f"{name}.output")

    def _added(self, values: Tensor, residual: Tensor, name: str) -> Tensor:
        """Return norm(residual + dropout(dense(values)))."""
        numbers = self.sizes.numbers
        out = self.site(values, f"{name}.dense", self.tokens)
        out = self.streams.drop(out, self.tokens, numbers.hidden_dropout)
        return self.weights.norm(out + residual, f"{name}.LayerNorm", numbers.epsilon)

    def _added_first(self, values: Tensor, residual: Tensor, name: str) -> Tensor:
        """Return `_added` of the first tokens alone, [rows, width]."""
        numbers, out = self.sizes.numbers, self.site(values, f"{name}.dense", self.rows)
        out = self.streams.drop_first(out, self.layout, numbers.hidden_dropout)
        return self.weights.norm(out + residual, f"{name}.LayerNorm", numbers.epsilon)
