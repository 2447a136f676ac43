"""What every architecture's joint pass shares: the maps with what hangs on them, the prefix, layers computed again.

An architecture is one file beside this one: a subclass of `Forward`, named in `support.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from bench.victim.joint.dropout import Streams
from bench.victim.joint.layout import Layout
from bench.victim.joint.weights import Weights

Layer = Callable[[Tensor, int, Tensor | None], Tensor]


@dataclass(frozen=True)
class Sizes:
    """What a forward pass reads from its victims besides their tensors."""

    kind: str  # transformers' model_type
    backbone: str  # the name of the pre-trained model in the classifier
    layers: int
    numbers: Any  # what the architecture alone knows of
    low_rank: dict[str, tuple[float, ...]]  # site -> scaling of its LoRA update, of each member
    multi_scale: dict[str, tuple[float, ...]]
    prefix: tuple[int, ...] | None  # tokens, layers, 2, key-value heads, width of a head
    checkpointing: bool = False  # a layer's activations are computed again in the backward pass


class Soft(NamedTuple):
    """Vectors [pieces, width] that are read as the word embedding from token `begin` of every row on."""

    begin: int
    vectors: Tensor


class Forward:
    """The forward pass of one joint batch; a subclass is an architecture."""

    kinds: ClassVar[Mapping[str, str]]  # transformers' class of the classifier -> Sizes.kind
    compact: ClassVar[bool] = True  # whether it knows bf16 weights, and layers that are computed again
    reads: ClassVar[bool] = False  # whether it has `features` and `states`
    bare_words: ClassVar[bool] = False  # whether the word embedding is read by `words` alone, by all words alike

    def __init__(
        self,
        sizes: Sizes,
        weights: Weights,
        layout: Layout,
        streams: Streams,
        members: list[int],
        soft: Sequence[Soft | None] = (),
    ) -> None:
        """Take everything that the pass needs; `members` says whose each source is, `soft` what is soft in each."""
        self.sizes, self.weights, self.layout, self.streams = sizes, weights, layout, streams
        self.members, self.soft = members, soft
        self.tokens, self.rows = layout.token_bounds, layout.row_bounds

    @classmethod
    def refusal(cls, model: Any) -> str:
        """Return what of a model of these kinds the pass does not know, "" where it knows all."""
        raise NotImplementedError

    @classmethod
    def rates(cls, model: Any) -> tuple[float, ...]:
        """Return the dropout rates that the modules of a model hold now."""
        raise NotImplementedError

    @classmethod
    def numbers(cls, model: Any) -> Any:
        """Return `Sizes.numbers` of a model."""
        raise NotImplementedError

    def logits(self) -> Tensor:
        """Return the logits [rows, classes] in fp32, rows in the order of the layout."""
        raise NotImplementedError

    def words(self, name: str, padding: int | None = None) -> Tensor:
        """Return the word embedding [tokens, width] out of the table `name`, with what is soft in place of its tokens.

        Args:
            padding: the word whose vector gets no gradient.
        """
        hidden = functional.embedding(self.layout.ids, self.weights.single(name), padding)
        places, vectors = [], []
        for (first, last), soft in zip(self.rows, self.soft, strict=False):
            if soft is not None:
                pieces = torch.arange(len(soft.vectors), device=hidden.device)
                places.append((self.layout.starts[first:last, None] + soft.begin + pieces).flatten())
                vectors.append(soft.vectors.to(hidden.dtype).repeat(last - first, 1))
        return hidden.index_copy(0, torch.cat(places), torch.cat(vectors)) if places else hidden

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

    def prefix(self) -> Tensor | None:
        """Return the learned keys and values [sources, layers, 2, heads, tokens, width of a head]."""
        shape = self.sizes.prefix
        if shape is None:
            return None
        own, name = self.weights.own, f"{self.sizes.backbone}.prefix.encoder"
        inner = torch.baddbmm(
            own[f"{name}.transform.0.bias"][:, None],
            own[f"{name}.embedding.weight"],
            own[f"{name}.transform.0.weight"].transpose(1, 2),
        ).tanh()
        out = torch.baddbmm(
            own[f"{name}.transform.2.bias"][:, None], inner, own[f"{name}.transform.2.weight"].transpose(1, 2)
        )
        return out.view(-1, *shape).permute(0, 2, 3, 4, 1, 5)

    def through_layers(self, hidden: Tensor, layer: Layer, last: Layer | None = None) -> Tensor:
        """Return hidden [tokens, width] after `layer(hidden, number, prefix)` of every layer; `last` is the last one's.

        The last may return fewer rows than it is given.
        """
        prefix = self.prefix()
        again = self.sizes.checkpointing and torch.is_grad_enabled()
        for number in range(self.sizes.layers):
            own = None if prefix is None else prefix[:, number]
            act = last if last is not None and number == self.sizes.layers - 1 else layer
            if again:
                settings = {"use_reentrant": False, "preserve_rng_state": False, "context_fn": self.streams.twice}
                hidden = checkpoint(act, hidden, number, own, **settings)
            else:
                hidden = act(hidden, number, own)
        return hidden

    def _multi_scale(self, values: Tensor, name: str, bounds: tuple[tuple[int, int], ...]) -> Tensor:
        weights = self.weights
        scales = weights.own[f"{name}.scales"]
        lower = weights.own[f"{name}.lower"] * scales[:, :, None]
        upper = weights.own[f"{name}.upper"] * self._scalings(self.sizes.multi_scale[name], values)
        update = weights.each(weights.each(values, lower, bounds), upper, bounds)
        return update + weights.linear(values, f"{name}.original", bounds)

    def _scalings(self, scalings: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor([scalings[member] for member in self.members], device=like.device)[:, None, None]
