"""A joint model: the losses and predictions of one or more victims in one pass over their unpadded batches."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from bench.victim.batching import Encoded
from bench.victim.joint.dropout import Streams
from bench.victim.joint.forward import Forward, Soft
from bench.victim.joint.layout import Layout, Source, lay_out
from bench.victim.joint.support import (
    all_tensors,
    embeddings,
    forward_of,
    kind_of,
    own_names,
    share,
    shareable,
    sizes_of,
    turned,
)
from bench.victim.joint.weights import Weights
from bench.victim.victim import Victim

NONE_SOFT: Mapping[int, Soft] = MappingProxyType({})


class JointModel:
    """Victims that share their frozen tensors; a single victim is a gang of one.

    From the second member on frozen tensors are those of the first: the members' own copies are let go.
    """

    def __init__(self, victims: Sequence[Victim], reading: bool = False) -> None:
        """Take victims for which `shareable` is "".

        Args:
            reading: nothing is to train, so that all but what was inserted, and the head, counts as frozen.
        """
        self.victims = tuple(victims)
        first = self.victims[0]
        self.kind = str(kind_of(first))
        self.device, self.half = first.device, first.precision == "bf16"
        self.own = own_names(first, trains=not reading)
        mine, own = all_tensors(first), set(self.own)
        self.frozen = {name: value.detach() for name, value in mine.items() if name not in own}
        for other in self.victims[1:]:
            share(first, other)
        self.tensors = [all_tensors(victim) for victim in self.victims]
        self.sizes = sizes_of(self.victims, self.kind)
        self.forward, self.turned = forward_of(first), turned(first)
        tables = embeddings(first)
        # A frozen matrix is converted once, not in every pass; embeddings and norms are used as they are.
        self.calculated = {
            name: value if name in tables else self._calculated(value) for name, value in self.frozen.items()
        }

    def _calculated(self, value: Tensor) -> Tensor:
        matrix = self.half and value.ndim == 2 and value.is_floating_point()
        return value.detach().to(torch.bfloat16) if matrix else value

    def put_words(self, member: int, name: str, read: nn.Parameter, padding: int | None) -> None:
        """Change a member so that `read` [words, width] is its word embedding `name`, with its row `padding` fixed."""
        self.tensors[member][name] = read
        self.sizes = replace(self.sizes, numbers=replace(self.sizes.numbers, padding=padding))

    @functools.cached_property
    def stackable(self) -> bool:
        """Whether several sources can run in one pass: nothing that trains is a part of the backbone itself."""
        return not shareable([self.victims[0], self.victims[0]])

    def lay_out(self, sources: Sequence[Source]) -> Layout:
        """Return the layout of a pass over sources."""
        return lay_out(sources, self.device, split=self.device.type == "cpu")

    def stacked(self, members: Sequence[int]) -> dict[str, Tensor]:
        """Return each member's own tensors [sources, ...], one per source; new leaves where they train."""
        leaves = {}
        for name in self.own:
            parts = [self.tensors[member][name] for member in members]
            leaf = torch.stack([part.detach() for part in parts])
            leaves[name] = leaf.requires_grad_(parts[0].requires_grad)
        return leaves

    def losses(
        self,
        sources: Sequence[Source],
        generators: Sequence[torch.Generator] | None,
        own: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """Return the mean cross-entropy of each source, a scalar with its graph.

        Args:
            generators: of each source's dropout; None: nothing is dropped.
            own: what `stacked` returned; None, for one source: the member's own parameters take the gradient.
        """
        layout = self.lay_out(sources)
        members = [source.member for source in sources]
        logits = self.encoder(layout, members, generators, own).logits()
        parts = [(logits[first:last], layout.labels[first:last]) for first, last in layout.row_bounds]
        return [nn.functional.cross_entropy(*part) for part in parts]

    def encoder(
        self,
        layout: Layout,
        members: list[int],
        generators: Sequence[torch.Generator] | None,
        own: Mapping[str, Tensor] | None,
        soft: Sequence[Soft | None] = (),
    ) -> Forward:
        """Return the pass over a layout; the arguments are those of `losses` and of `Forward`."""
        if own is None:
            (member,) = set(members)
            own = {name: self.tensors[member][name].unsqueeze(0) for name in self.own}
        weights = Weights(self.calculated, own, self.half, self.turned)
        return self.forward(self.sizes, weights, layout, Streams(generators), members, soft)

    @torch.no_grad()
    def probabilities(
        self, texts: Mapping[int, Encoded], batch_size: int, soft: Mapping[int, Soft] = NONE_SOFT
    ) -> dict[int, np.ndarray]:
        """Return the class probabilities, float32 [n, classes], of members on their own texts; nothing is dropped.

        Args:
            batch_size: how many texts of each member one pass takes.
            soft: of members: vectors that are read in place of some tokens of each text.
        """
        out = {member: np.zeros((len(data), self.victims[0].classes), np.float32) for member, data in texts.items()}
        queues = {member: list(data.by_length(batch_size)) for member, data in texts.items()}
        stacked = self.stacked(list(texts)) if len(texts) > 1 else None
        place = {member: index for index, member in enumerate(texts)}
        for turn in range(max((len(queue) for queue in queues.values()), default=0)):
            active = [member for member, queue in queues.items() if turn < len(queue)]
            layout = self.lay_out([Source(member, texts[member], queues[member][turn]) for member in active])
            own = None
            if stacked is not None:
                own = {name: value[[place[member] for member in active]] for name, value in stacked.items()}
            vectors = [soft.get(member) for member in active]
            found = self.encoder(layout, active, None, own, vectors).logits().softmax(-1).cpu().numpy()
            for member, rows, (first, last) in zip(active, layout.order, layout.row_bounds, strict=True):
                out[member][list(rows)] = found[first:last]
        return out
