"""The bottleneck adapter of Houlsby et al. (2019, arXiv 1902.00751), as OpenDelta 0.3 builds it.

At each site the output h becomes h + up(gelu_new(down(h))): `down` maps the width w to the bottleneck d,
`up` maps it back, both with biases, so one adapter holds 2 w d + d + w numbers. Weights start as
N(0, 0.01) and biases at 0, so the model starts close to, but not at, the pre-trained one. A site is a
linear map whose output still goes through its layer's own dropout, residual and normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bench.core.errors import CellError
from bench.victim.victim import Victim

INITIAL_STANDARD_DEVIATION = 0.01  # OpenDelta's


def attach_adapter(
    victim: Victim, sites: Sequence[str], dimension: int, *, seed: int, train_head: bool = False
) -> None:
    """Change `victim` in place: an adapter at every site of its backbone; nothing else trains but, if asked, the head.

    Raises:
        CellError: a site that no module matches; the victim is then as it was.
    """
    generator = torch.Generator().manual_seed(seed)
    names = adapter_sites(victim.backbone, sites)
    victim.freeze()
    insert_adapters(victim.backbone, names, dimension, generator)
    victim.attached += [f"{victim.model.base_model_prefix}.{name}.adapter" for name in names]
    if train_head:
        victim.train_head()


class Bottleneck(nn.Module):
    """One adapter: [..., width] -> [..., width], its own residual included."""

    def __init__(self, width: int, dimension: int, generator: torch.Generator, like: torch.Tensor) -> None:
        """Draw fp32 weights on the CPU from `generator` alone, and put them where `like` is."""
        super().__init__()
        self.down = _drawn_linear(width, dimension, generator, like)
        self.up = _drawn_linear(dimension, width, generator, like)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return `hidden + up(gelu_new(down(hidden)))`."""
        return hidden + self.up(nn.functional.gelu(self.down(hidden), approximate="tanh"))


def _drawn_linear(inputs: int, outputs: int, generator: torch.Generator, like: torch.Tensor) -> nn.Linear:
    # skip_init, because the constructor of Linear draws from the global generator.
    linear = nn.utils.skip_init(nn.Linear, inputs, outputs, device=like.device, dtype=torch.float32)
    drawn = torch.empty(outputs, inputs).normal_(0.0, INITIAL_STANDARD_DEVIATION, generator=generator)
    with torch.no_grad():
        linear.weight.copy_(drawn)
        linear.bias.zero_()
    return linear


def _apply(site: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
    # The adapter hangs below its site, so that no pre-trained tensor changes its name and a copy of the
    # model carries its own adapters.
    return site.adapter(output)


def adapter_sites(backbone: nn.Module, sites: Sequence[str]) -> list[str]:
    """Return the names of the modules of `backbone` whose dotted name ends in one of `sites`, in its order.

    Raises:
        CellError: a site that no module matches, or no site at all.
    """
    if not sites:
        raise CellError("The adapter has no sites to attach to.", "Set model.adapter_sites.")
    names = [name for name, _ in backbone.named_modules()]
    found = {site: {name for name in names if f".{name}".endswith(f".{site}")} for site in sites}
    for site, matched in found.items():
        if not matched:
            raise CellError(
                f"No module of {type(backbone).__name__} is called {site!r}, so the adapter attaches to nothing there.",
                "Name the output projections of the attention and of the feed-forward block in model.adapter_sites.",
            )
    matched = set().union(*found.values())
    return [name for name in names if name in matched]


def insert_adapters(backbone: nn.Module, names: Sequence[str], dimension: int, generator: torch.Generator) -> None:
    """Change `backbone` in place: give each named module an adapter, drawn in this order; nothing is frozen."""
    for name in names:
        site = backbone.get_submodule(name)
        width = getattr(site, "out_features", None) or site.nf  # `nf` is what GPT-2's Conv1D calls it
        site.add_module("adapter", Bottleneck(width, dimension, generator, site.weight))
        site.register_forward_hook(_apply)
