"""The tensors of a joint pass by name: frozen ones once, those of the members with a leading axis of sources."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bench.victim.joint.attention import Pad, Unpad

Bounds = Sequence[tuple[int, int]]


class Weights:
    """Tensors under the names of `Victim.tensors`, and the maps made of them.

    Args:
        frozen: tensors that all members share.
        own: tensors [sources, ...]; with one source they may be parameters with a leading axis of 1.
        half: compute linear maps in bfloat16; weights that never change are converted once, outside.
        turned: names of matrices that are stored [in, out], as GPT-2's are.
    """

    def __init__(
        self, frozen: Mapping[str, Tensor], own: Mapping[str, Tensor], half: bool, turned: Collection[str] = ()
    ) -> None:
        self.frozen, self.own, self.turned = frozen, own, turned
        self.type = torch.bfloat16 if half else torch.float32
        self._places: dict[Bounds, tuple[Tensor, int]] = {}

    def has(self, name: str) -> bool:
        """Tell whether there is a tensor of that name."""
        return name in self.own or name in self.frozen

    def single(self, name: str) -> Tensor:
        """Return a tensor that is the same for every source.

        Raises:
            KeyError: each source has its own.
        """
        if name not in self.own:
            return self.frozen[name]
        stacked = self.own[name]
        if stacked.shape[0] != 1:
            raise KeyError(f"{name} differs between the sources of a pass")
        return stacked.squeeze(0)

    def linear(self, values: Tensor, name: str, bounds: Bounds) -> Tensor:
        """Return the linear map `name` of values [n, in], whose rows `bounds` divides among the sources."""
        weight, bias = f"{name}.weight", f"{name}.bias"
        values = values.to(self.type)
        if weight in self.frozen and bias not in self.own:
            given = self.frozen[bias].to(self.type) if self.has(bias) else None
            return functional.linear(values, self._matrix(self.frozen, weight).to(self.type), given)
        stacked = self._matrix(self.own if weight in self.own else self.frozen, weight)
        stacked = stacked if weight in self.own else stacked.expand(len(bounds), -1, -1)
        biases = None if not self.has(bias) else self.own[bias] if bias in self.own else self.frozen[bias][None]
        return self.each(values, stacked, bounds, biases)

    def _matrix(self, tensors: Mapping[str, Tensor], name: str) -> Tensor:
        """Return a matrix [..., out, in]."""
        return tensors[name].transpose(-1, -2) if name in self.turned else tensors[name]

    def each(self, values: Tensor, stacked: Tensor, bounds: Bounds, biases: Tensor | None = None) -> Tensor:
        """Return values [n, in] times each source's own matrix [sources, out, in], plus its bias [sources or 1, out].

        Rows of one source never meet those of another, so a member whose numbers are no longer finite spoils none.
        """
        stacked, values = stacked.to(self.type), values.to(self.type)
        biases = None if biases is None else biases.to(self.type)
        if stacked.shape[0] == 1:  # squeezed: the gradient of an index is a matrix of zeros with a copy in it
            return functional.linear(values, stacked.squeeze(0), None if biases is None else biases.squeeze(0))
        blocks, places = self.spread(values, bounds)
        mixed = torch.bmm(blocks, stacked.transpose(1, 2))
        if biases is not None:
            mixed = mixed + biases[:, None, :]
        return Unpad.apply(mixed.reshape(-1, mixed.shape[-1]), places)

    def spread(self, values: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
        """Return values [n, width] as [sources, most rows, width], padded with zeros, and where each row lies in it."""
        bounds = tuple(bounds)
        if bounds not in self._places:
            most = max(last - first for first, last in bounds)
            rows = [torch.arange(last - first) + number * most for number, (first, last) in enumerate(bounds)]
            self._places[bounds] = (torch.cat(rows).to(values.device), most)
        places, most = self._places[bounds]
        return Pad.apply(values, places, len(bounds) * most).view(len(bounds), most, -1), places

    def norm(self, values: Tensor, name: str, epsilon: float) -> Tensor:
        """Return the layer norm `name` of values, in the type of its weight; torch computes it in fp32 in any case."""
        weight = self.single(f"{name}.weight")
        bias = self.single(f"{name}.bias") if self.has(f"{name}.bias") else None
        return functional.layer_norm(values.to(weight.dtype), (values.shape[-1],), weight, bias, epsilon)

    def norm_each(self, values: Tensor, name: str, epsilon: float, bounds: Bounds) -> Tensor:
        """Return the layer norm `name` of values [n, width], in fp32, where each source may have its own."""
        out = functional.layer_norm(values.float(), (values.shape[-1],), eps=epsilon)
        counts = torch.tensor([last - first for first, last in bounds], device=values.device)
        weight, bias = (self.own.get(f"{name}.{part}") for part in ("weight", "bias"))
        out = out * weight.repeat_interleave(counts, 0)
        return out if bias is None else out + bias.repeat_interleave(counts, 0)

    def root_mean_square(self, values: Tensor, name: str, epsilon: float) -> Tensor:
        """Return the RMS norm `name` of values, computed in fp32 and given back in the type of its weight."""
        weight, wide = self.single(f"{name}.weight"), values.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
        return weight * wide.to(weight.dtype)
