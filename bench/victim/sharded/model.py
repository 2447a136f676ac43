"""A victim whose parameters are spread over ranks: each layer is gathered while it computes, then let go.

Each rank holds 1/n of every parameter, of its gradient and of AdamW's moments, in fp32. With bf16 precision layers are
gathered in bf16, which is what autocast would make of their linear maps; their norms' weights are rounded to bf16 for
the pass, which autocast does not do. Gradients are added in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn import functional

from bench.core.errors import CellError
from bench.victim.sharded.group import Group
from bench.victim.victim import Victim, write_tensors

# How configs call the dropout inside attention, which fused kernels draw: nobody can hand them a mask.
ATTENTION_DROPOUT = ("attention_dropout", "attention_probs_dropout_prob", "attn_pdrop")


@dataclass
class Rows:
    """Which rows of a batch of `count` the pass under way computes on this rank."""

    count: int = 1
    own: list[int] = field(default_factory=lambda: [0])


class RowDropout(nn.Module):
    """Dropout of this rank's rows by a mask that is drawn for the whole batch.

    It takes from the global generator what `nn.Dropout` takes when one process computes the whole batch, so that the
    same generators on every rank give every row the mask that it has there.
    """

    def __init__(self, p: float, rows: Rows) -> None:
        super().__init__()
        self.p, self.rows = p, rows

    def forward(self, states: Tensor) -> Tensor:
        """Return states [rows, ...] times their mask."""
        if not self.training:
            return states
        if len(states) != len(self.rows.own):  # of no row in particular: positions, say
            return functional.dropout(states, self.p, training=True)
        whole = torch.ones(self.rows.count, *states.shape[1:], dtype=states.dtype, device=states.device)
        return states * functional.dropout(whole, self.p, training=True)[self.rows.own]


def shard(victim: Victim, group: Group) -> Rows:
    """Spread a victim's parameters in place, from wherever they are, over the devices of the group.

    Every rank has loaded the same victim. Returns what is to be set before each pass, where dropout can be the same
    whatever the number of ranks; the global generators must then be, too (see `draws_alike`).

    Raises:
        CellError: part of the victim is frozen, or it has no list of layers.
    """
    frozen = next((name for name, value in victim.tensors().items() if not value.requires_grad), None)
    if frozen is not None:
        reason = f"{frozen} of model {victim.spec.name!r} does not train, and a sharded training trains all of it."
        raise CellError(reason, "Leave model.shards out.")
    rows = Rows()
    if draws_alike(victim):
        for name, part in list(victim.named_modules()):
            if isinstance(part, nn.Dropout) and part.p > 0:
                victim.set_submodule(name, RowDropout(part.p, rows))
    mesh = DeviceMesh.from_group(torch.distributed.group.WORLD, group.device.type)
    narrow = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for layer in layers(victim):
        fully_shard(layer, mesh=mesh, mp_policy=narrow if victim.precision == "bf16" else MixedPrecisionPolicy())
    fully_shard(victim, mesh=mesh, reshard_after_forward=True)
    return rows


def draws_alike(victim: Victim) -> bool:
    """Tell whether dropout does not depend on the number of ranks: all but that of attention comes from modules."""
    config = victim.model.config
    return not any(getattr(config, name, 0.0) for name in ATTENTION_DROPOUT)


def layers(victim: Victim) -> nn.ModuleList:
    """Return the layers of the backbone: of its lists of modules the one with the most parameters.

    Raises:
        CellError: there is none.
    """
    lists = [part for part in victim.backbone.modules() if isinstance(part, nn.ModuleList)]
    if not lists:
        reason = f"Model {victim.spec.name!r} has no list of layers over which a training could be sharded."
        raise CellError(reason, "Leave model.shards out.")
    return max(lists, key=lambda part: sum(value.numel() for value in part.parameters()))


def write_whole(victim: Victim, group: Group, folder: Path) -> None:
    """Write what `Victim.save` writes of the same victim on one device; every rank takes part, the first one writes."""
    content = {}
    for name, value in victim.kept().items():
        whole = value.full_tensor().detach()
        if group.rank == 0:
            content[name] = whole.cpu().contiguous()
    if group.rank == 0:
        write_tensors(folder, content)
