"""GPT-2 classifiers on unpadded tokens, with what our defenses insert; the numbers are transformers'.

A pre-norm decoder with learned positions (Radford et al. 2019); its matrices are stored [in, out], queries, keys and
values come from one map, and dropout is on embeddings, attention probabilities and both outputs of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional
from transformers.activations import ACT2FN

from bench.victim.joint.attention import Heads, attend
from bench.victim.joint.last_token import LastToken, head_rate


@dataclass(frozen=True)
class Numbers:
    """What the config and the modules of such a decoder say."""

    heads: Heads
    scales: tuple[float, ...]  # of the scores in each layer
    epsilon: float
    activation: str
    embedding_dropout: float
    attention_dropout: float  # of what the attention adds
    inner_dropout: float  # of what the feed-forward block adds
    head_dropout: float


class GPT2(LastToken):
    """The forward pass of one joint batch."""

    kinds = {"GPT2ForSequenceClassification": "gpt2"}

    @classmethod
    def refusal(cls, model: Any) -> str:
        """Return what of a model the pass does not know: attention to an encoder, or a head of somebody else's."""
        if model.config.add_cross_attention:
            return "it attends to an encoder"
        return super().refusal(model)

    @classmethod
    def rates(cls, model: Any) -> tuple[float, ...]:
        """Return the dropout rates that the modules of a model hold now."""
        backbone = model.base_model
        attention, inner = backbone.h[0].attn, backbone.h[0].mlp
        layer = (attention.attn_dropout.p, attention.resid_dropout.p, inner.dropout.p)
        return (backbone.drop.p, *layer, head_rate(model))

    @classmethod
    def numbers(cls, model: Any) -> Numbers:
        """Return what the pass reads off a model."""
        config = model.config
        embedding, probabilities, attention, inner, head = cls.rates(model)
        return Numbers(
            heads=Heads(config.num_attention_heads, rate=probabilities, causal=True),
            scales=tuple(float(block.attn.scaling) for block in model.base_model.h),
            epsilon=config.layer_norm_epsilon,
            activation=config.activation_function,
            embedding_dropout=embedding,
            attention_dropout=attention,
            inner_dropout=inner,
            head_dropout=head,
        )

    def logits(self) -> Tensor:
        """Return the logits [rows, classes] in fp32, rows in the order of the layout."""
        weights, layout, numbers = self.weights, self.layout, self.sizes.numbers
        name = self.sizes.backbone
        hidden = self.words(f"{name}.wte.weight")
        hidden = hidden + functional.embedding(layout.positions, weights.single(f"{name}.wpe.weight"))
        hidden = self.streams.drop(hidden, self.tokens, numbers.embedding_dropout)
        hidden = self.through_layers(hidden, self._layer)
        return self.classified(weights.norm(hidden.index_select(0, layout.ends), f"{name}.ln_f", numbers.epsilon))

    def _layer(self, hidden: Tensor, number: int, prefix: Tensor | None) -> Tensor:
        weights, numbers, name = self.weights, self.sizes.numbers, f"{self.sizes.backbone}.h.{number}"
        normed = weights.norm(hidden, f"{name}.ln_1", numbers.epsilon)
        joined = self.site(normed, f"{name}.attn.c_attn", self.tokens)
        scale = numbers.scales[number]
        mixed = attend(*joined.chunk(3, dim=-1), self.layout, numbers.heads, self.streams, prefix, scale)
        hidden = self._added(mixed, hidden, f"{name}.attn.c_proj", numbers.attention_dropout)
        normed = weights.norm(hidden, f"{name}.ln_2", numbers.epsilon)
        inner = ACT2FN[numbers.activation](self.site(normed, f"{name}.mlp.c_fc", self.tokens))
        return self._added(inner, hidden, f"{name}.mlp.c_proj", numbers.inner_dropout)

    def _added(self, values: Tensor, residual: Tensor, name: str, rate: float) -> Tensor:
        """Return residual + dropout(map(values)), in the type of the residual stream."""
        return residual + self.streams.drop(self.site(values, name, self.tokens), self.tokens, rate).to(residual.dtype)
