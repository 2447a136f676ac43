"""Llama, Qwen2 and Qwen3 classifiers on unpadded tokens, with what our defenses insert; the numbers are transformers'.

Pre-norm decoders (Touvron et al., arXiv 2302.13971 and 2307.09288; Yang et al., arXiv 2407.10671 and 2505.09388) with
RMS norms, rotary positions, heads that share keys and values, and a gated feed-forward block. Angles of positions are
those of transformers' own rotary module, so that every kind of scaling that it knows is known here. The residual
stream has the type of the word embedding, as in transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.activations import ACT2FN

from bench.victim.joint.attention import Heads, attend
from bench.victim.joint.last_token import LastToken, head_rate
from bench.victim.joint.rotary import angles, by_length, rotated


@dataclass(frozen=True)
class Numbers:
    """What the config and the modules of such a decoder say."""

    heads: Heads
    epsilon: float
    activation: str
    padding: int | None  # the word whose embedding gets no gradient
    rotary: Any  # transformers' module: (states, positions [1, tokens]) -> cosines and sines [1, tokens, head width]
    by_length: bool  # whether its angles depend on the longest text
    normed_heads: bool  # Qwen3: an RMS norm on every query and key
    head_dropout: float


class Decoder(LastToken):
    """The forward pass of one joint batch."""

    kinds = {
        "LlamaForSequenceClassification": "llama",
        "Qwen2ForSequenceClassification": "qwen2",
        "Qwen3ForSequenceClassification": "qwen3",
    }

    @classmethod
    def refusal(cls, model: Any) -> str:
        """Return what of a model the pass does not know: layers that see a window, or a head of somebody else's."""
        types = set(getattr(model.config, "layer_types", None) or ["full_attention"])
        if types != {"full_attention"}:
            return f"its layers attend by {', '.join(sorted(types))}"
        return super().refusal(model)

    @classmethod
    def rates(cls, model: Any) -> tuple[float, ...]:
        """Return the dropout rates that the modules of a model hold now: attention, head."""
        return model.base_model.layers[0].self_attn.attention_dropout, head_rate(model)

    @classmethod
    def numbers(cls, model: Any) -> Numbers:
        """Return what the pass reads off a model."""
        config, backbone = model.config, model.base_model
        attention, head = cls.rates(model)
        return Numbers(
            heads=Heads(config.num_attention_heads, config.num_key_value_heads, attention, causal=True),
            epsilon=config.rms_norm_eps,
            activation=config.hidden_act,
            padding=backbone.embed_tokens.padding_idx,
            rotary=backbone.rotary_emb,
            by_length=by_length(str(config.rope_parameters["rope_type"])),
            normed_heads=hasattr(backbone.layers[0].self_attn, "q_norm"),
            head_dropout=head,
        )

    def logits(self) -> Tensor:
        """Return the logits [rows, classes] in fp32, rows in the order of the layout."""
        weights, numbers, name = self.weights, self.sizes.numbers, self.sizes.backbone
        hidden = self.words(f"{name}.embed_tokens.weight", numbers.padding)
        # Where angles depend on the longest text, each source has its own, so that none depends on its gang.
        bounds = self.tokens if numbers.by_length else ((0, len(hidden)),)
        self.angles = angles(numbers.rotary, hidden, self.layout.positions, bounds)
        hidden = self.through_layers(hidden, self._layer)
        last = hidden.index_select(0, self.layout.ends)
        return self.classified(weights.root_mean_square(last, f"{name}.norm", numbers.epsilon))

    def _layer(self, hidden: Tensor, number: int, prefix: Tensor | None) -> Tensor:
        weights, numbers, tokens = self.weights, self.sizes.numbers, self.tokens
        name = f"{self.sizes.backbone}.layers.{number}"
        normed = weights.root_mean_square(hidden, f"{name}.input_layernorm", numbers.epsilon)
        query, key, value = (self.site(normed, f"{name}.self_attn.{part}_proj", tokens) for part in "qkv")
        query = self._turned(query, numbers.heads.queries, f"{name}.self_attn.q_norm").to(value.dtype)
        key = self._turned(key, numbers.heads.keys, f"{name}.self_attn.k_norm").to(value.dtype)
        mixed = attend(query, key, value, self.layout, numbers.heads, self.streams, prefix)
        hidden = hidden + self.site(mixed, f"{name}.self_attn.o_proj", tokens)
        normed = weights.root_mean_square(hidden, f"{name}.post_attention_layernorm", numbers.epsilon)
        gate = ACT2FN[numbers.activation](self.site(normed, f"{name}.mlp.gate_proj", tokens))
        inner = gate * self.site(normed, f"{name}.mlp.up_proj", tokens)
        return hidden + self.site(inner, f"{name}.mlp.down_proj", tokens)

    def _turned(self, values: Tensor, heads: int, norm: str) -> Tensor:
        """Return queries or keys [tokens, width], normed head by head where the model does so, then rotated."""
        numbers = self.sizes.numbers
        split = values.view(len(values), heads, -1)
        if numbers.normed_heads:
            split = self.weights.root_mean_square(split, norm, numbers.epsilon)
        return rotated(split, self.angles).reshape(values.shape)
