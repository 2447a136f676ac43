"""The numbers of a model that its memory follows from: read off its config.json, or off its file in configs/models.

No torch here. What the model files say under `shape` is what the config.json of the pinned commit says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.victim.loading import local_config
from bench.victim.spec import HEAD_WIDTH, ModelSpec, shape_of_file

# What GPT-2's config.json calls them.
ALIASES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "intermediate_size": "n_inner",
}
KINDS = ("bert", "roberta", "modernbert", "gpt2", "llama", "qwen2", "qwen3")
DECODERS = ("gpt2", "llama", "qwen2", "qwen3")
# Which of them the unpadded pass (bench/victim/joint) knows: with bf16 weights and checkpointing too, and without.
COMPACT = ("modernbert", *DECODERS)
UNPADDED = ("bert", "roberta", *COMPACT)


@dataclass(frozen=True)
class Linear:
    """One linear map of a layer: its sizes, and which of the layer's tensors it reads."""

    inputs: int
    outputs: int
    reads: str  # attention (the layer's input), context (of the heads), feed-forward or product


@dataclass(frozen=True)
class Shape:
    """The sizes of a transformer; `kind` is transformers' model_type, widths count numbers."""

    kind: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    key_value_heads: int
    head_width: int
    inner: int
    positions: int
    segments: int

    @property
    def queries(self) -> int:
        """The width of all heads together."""
        return self.heads * self.head_width

    @property
    def keys(self) -> int:
        """The width of the keys (as of the values) before they are repeated for grouped queries."""
        return self.key_value_heads * self.head_width

    def linears(self) -> dict[str, Linear]:
        """Return the linear maps of one layer by their names in transformers."""
        w, i = self.width, self.inner
        if self.kind == "gpt2":
            maps = {"attn.c_attn": (w, 3 * w, "attention"), "attn.c_proj": (w, w, "context")}
            return _linears(maps | {"mlp.c_fc": (w, i, "feed-forward"), "mlp.c_proj": (i, w, "product")})
        if self.kind == "modernbert":
            maps = {"attn.Wqkv": (w, 3 * w, "attention"), "attn.Wo": (w, w, "context")}
            return _linears(maps | {"mlp.Wi": (w, 2 * i, "feed-forward"), "mlp.Wo": (i, w, "product")})
        if self.kind in ("bert", "roberta"):
            maps = {f"attention.self.{name}": (w, w, "attention") for name in ("query", "key", "value")}
            maps["attention.output.dense"] = (w, w, "context")
            return _linears(maps | {"intermediate.dense": (w, i, "feed-forward"), "output.dense": (i, w, "product")})
        maps = {"self_attn.q_proj": (w, self.queries, "attention"), "self_attn.o_proj": (self.queries, w, "context")}
        maps |= {f"self_attn.{name}_proj": (w, self.keys, "attention") for name in "kv"}
        maps |= {f"mlp.{name}_proj": (w, i, "feed-forward") for name in ("gate", "up")}
        return _linears(maps | {"mlp.down_proj": (i, w, "product")})

    def matching(self, suffixes: tuple[str, ...]) -> list[Linear]:
        """Return the linear maps of one layer whose dotted name ends in one of the suffixes."""
        found = self.linears().items()
        return [one for name, one in found if any(f".{name}".endswith(f".{suffix}") for suffix in suffixes)]

    def mapped(self) -> int:
        """Return how many numbers the linear maps of all layers hold, biases left out."""
        return self.layers * sum(one.inputs * one.outputs for one in self.linears().values())

    def backbone(self) -> int:
        """Return how many numbers the backbone of the classifier holds, BERT's pooler included."""
        w, biased = self.width, self.kind in ("bert", "roberta", "gpt2")
        count = self.vocabulary * w + self.mapped()
        if biased:
            count += (self.positions + self.segments) * w + 2 * w  # and the first (BERT) or last (GPT-2) norm
            count += self.layers * (4 * w + sum(one.outputs for one in self.linears().values()))
            return count + (w * w + w if self.kind == "bert" else 0)
        count += self.layers * 2 * w + w
        if self.kind == "qwen3":
            count += self.layers * 2 * self.head_width
        if self.kind == "qwen2":
            count += self.layers * (self.queries + 2 * self.keys)
        return count  # ModernBERT: its first layer has one norm less, its embeddings have one

    def head(self, paper: bool, classes: int) -> int:
        """Return how many numbers the classification head holds."""
        w = self.width
        if paper:
            return HEAD_WIDTH * (w + classes)
        own = {"roberta": w * w + w, "modernbert": w * w + w}.get(self.kind, 0)
        return own + w * classes + (0 if self.kind in DECODERS else classes)

    def penultimate_in_head(self, paper: bool) -> int:
        """Return how many numbers of the head are those of the linear before the classifier; BERT has it below."""
        w = self.width
        return HEAD_WIDTH * w if paper else {"roberta": w * w + w, "modernbert": w * w}.get(self.kind, 0)


def _linears(maps: Mapping[str, tuple[int, int, str]]) -> dict[str, Linear]:
    return {name: Linear(*sizes) for name, sizes in maps.items()}


def shape_of(spec: ModelSpec) -> Shape | None:
    """Return the shape of a model, None where its numbers or its architecture are not known."""
    folder = local_config(spec)
    content = _read(folder) if folder is not None else shape_of_file(spec.name)
    return None if content is None else shape_from(content)


def shape_from(content: Mapping[str, Any]) -> Shape | None:
    """Return the shape that a config.json's content describes, None for an architecture that is not known."""
    kind = content.get("model_type")
    if kind not in KINDS:
        return None

    def number(name: str, default: int = 0) -> int:
        return int(content.get(name) or content.get(ALIASES.get(name, name)) or default)

    width, heads = number("hidden_size"), number("num_attention_heads")
    return Shape(
        kind=kind,
        vocabulary=number("vocab_size"),
        width=width,
        layers=number("num_hidden_layers"),
        heads=heads,
        key_value_heads=number("num_key_value_heads", heads),
        head_width=number("head_dim", width // max(1, heads)),
        inner=number("intermediate_size", 4 * width),
        positions=number("max_position_embeddings"),
        segments=number("type_vocab_size") if kind in ("bert", "roberta") else 0,
    )


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
