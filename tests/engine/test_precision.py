"""Under precision bf16 every matrix product of every stage that holds a model is one in bf16."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.core.errors import CellError
from bench.engine.work import Machine, execute

# `prefix` is not among the defenses: the encoder of its few tokens is computed in fp32 at any precision.
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "_addmm_activation"}
DEFENDERS = (
    *("vanilla", "lora", "adapter", "musclelora", "ga", "mslr", "lora+ga", "fine-mixing", "fine-pruning", "e-pur"),
    *("strip", "rap", "rap(protected_label=0)", "bki", "cube", "fine-tuning"),
)


class Products(TorchDispatchMode):
    """Notes the types of what matrix products take, those of autograd's backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        """Run the operation as ever."""
        if function.overloadpacket.__name__ in PRODUCTS:
            self.types |= {value.dtype for value in arguments if isinstance(value, torch.Tensor)}
        return function(*arguments, **(options or {}))


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "expected"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_every_product_of_every_stage_has_the_precision_of_the_cell(
    tiny: Any, precision: str, expected: torch.dtype
) -> None:
    plan = tiny.plan(defenders=list(DEFENDERS), precisions=[precision])
    seen: dict[str, set[torch.dtype]] = defaultdict(set)
    refused: list[str] = []
    for stage in plan.unique():
        defense = stage.payload()["content"].get("defense", {}).get("name", "")
        with Products() as products:
            try:
                execute(stage.payload(), tiny.out / "store", Machine(None))
            except CellError as error:
                refused.append(f"{defense}: {error}")
        seen[f"{stage.kind} {defense}".strip()] |= products.types
    # A victim of two steps takes every text for one label, which one of the two raps does not protect.
    assert len(refused) <= 1 and all(reason.startswith("rap: ") for reason in refused), refused
    used = {name: types for name, types in seen.items() if types}
    assert {name: types for name, types in used.items() if types != {expected}} == {}
    wanted = {
        "train",
        "train lora",
        "train ga",
        "cleanse bki",
        "cleanse cube",
        "detect strip",
        "detect rap",
        "evaluate",
    }
    assert wanted | {"repair fine-mixing", "repair fine-pruning"} <= set(used)
