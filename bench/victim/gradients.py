"""The gradients of a step: as many members in one pass as memory takes, then fewer, then pieces of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.core.errors import CellError
from bench.core.memory import cut, free, is_out_of_memory
from bench.victim.batching import Batch, pieces
from bench.victim.run import REFERENCE, TRAINING, Hook

if TYPE_CHECKING:
    from bench.victim.training import Member

Wanted = tuple["Member", Hook | None, Batch]  # whose pass, for which riding hook (None: the training batch), of what


class Passes:
    """Runs the passes of a gang; `width` and `pieces` stay where they fitted."""

    def __init__(self, width: int) -> None:
        self.width = width  # members in one pass
        self.pieces = cut()  # parts of a batch that run one after another

    def of(self, members: Sequence[Member]) -> Iterator[Sequence[Member]]:
        """Yield parts of the members, each with its loss, its gradients and those of the batches that ride along.

        Gradients stay until the optimizer's step, so a part is to be stepped before the next one is asked for.

        Raises:
            CellError: a single row of a single member does not fit the memory.
        """
        for member in members:
            member.draw()
        first = 0
        while first < len(members):
            part = members[first : first + self.width]
            states = [(stream, stream.get_state()) for member in part for stream in member.run.streams.values()]
            try:
                self._run(part)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                # What was drawn is drawn again, so that the numbers are those of the pass that did not fit.
                for stream, state in states:
                    stream.set_state(state)
                for member in part:
                    member.optimizer.zero_grad(set_to_none=True)
                self._shrink(len(part), max(len(batch.rows) for member in part for batch in member.batches_of_step))
                continue
            yield part
            first += len(part)

    def _shrink(self, members: int, rows: int) -> None:
        free()
        if members > 1:
            self.width = (members + 1) // 2
        elif self.pieces < rows:
            self.pieces *= 2
        else:
            raise CellError("A single row does not fit the memory of the device.", "Use a smaller model, or bf16.")

    def _run(self, members: Sequence[Member]) -> None:
        wanted: list[Wanted] = []
        for member in members:
            wanted.append((member, None, member.batch))
            wanted += [(member, hook, batch) for hook, batch in member.rides]
        if len(wanted) == 1:
            self._alone(*wanted[0])
        else:
            self._together(wanted)

    def _alone(self, member: Member, _: Hook | None, batch: Batch) -> None:
        """Leave the gradients of one batch on the member's own parameters."""
        losses = []
        for piece, share in pieces(batch, self.pieces):
            loss = member.run.loss(piece, TRAINING) * share
            loss.backward()
            losses.append(loss.detach())
        member.loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _together(self, wanted: Sequence[Wanted]) -> None:
        """Run several batches in one pass, each with its own copy of what trains, and hand the gradients out."""
        joint = wanted[0][0].run.joint
        own = joint.stacked([member.place for member, _, _ in wanted])
        totals: list[Tensor] = []
        for parts in zip(*(pieces(batch, self.pieces) for _, _, batch in wanted), strict=False):
            sources = [member.run.source(part) for (member, _, _), (part, _) in zip(wanted, parts, strict=True)]
            streams = [member.run.streams[TRAINING if hook is None else REFERENCE] for member, hook, _ in wanted]
            losses = joint.losses(sources, streams, own)
            weighted = torch.stack([loss * share for loss, (_, share) in zip(losses, parts, strict=True)])
            weighted.sum().backward()
            totals.append(weighted.detach())
        summed = totals[0] if len(totals) == 1 else torch.stack(totals).sum(0)
        for place, (member, hook, _) in enumerate(wanted):
            grads = {name: None if own[name].grad is None else own[name].grad[place] for name in member.run.parameters}
            if hook is not None:
                member.references[id(hook)] = (summed[place], list(grads.values()))
                continue
            member.loss = summed[place]
            for name, parameter in member.run.parameters.items():
                parameter.grad = grads[name]
