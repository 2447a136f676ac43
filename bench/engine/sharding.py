"""Which trainings are spread over several devices, and who has those devices; no torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.core.errors import CellError
from bench.core.spec import Part
from bench.engine import plugins
from bench.engine.stages import Stage
from defenders.base import Defender


def shards_of(content: Mapping[str, Any]) -> int:
    """Return over how many devices a training stage's content, of parts or of JSON values, spreads its training.

    1 where a defense inserts what trains, or LoRA stands for the whole model: that fits one device.
    """
    options = _options(content["model"])
    if "stand_in_rank" in options or options.get("shards", 1) == 1:
        return 1
    defense = content.get("defense")
    return 1 if defense is not None and inserts(plugins.defender(defense)) else options["shards"]


def inserts(defense: Any) -> bool:
    """Tell whether a defense puts into the victim what then trains in place of the whole model."""
    return type(defense).wrap is not Defender.wrap


def most_shards(stages: Iterable[Stage]) -> int:
    """Return the most devices that one of the stages trains on; what each worker needs."""
    return max((shards_of(stage.content) for stage in stages if stage.kind == "train"), default=1)


def groups_of(devices: Sequence[str], shards: int) -> list[tuple[str, ...]]:
    """Return the devices in groups of `shards`, the devices of one worker each; what is left over stays idle.

    A CPU stands in for any number of devices. Fewer GPUs than that are one group.
    """
    if list(devices) == ["cpu"]:
        return [("cpu",) * shards]
    whole = [tuple(devices[first : first + shards]) for first in range(0, len(devices) - shards + 1, shards)]
    return whole or [tuple(devices)]


def too_few(shards: int, devices: Sequence[str], model: str) -> CellError | None:
    """Return why a training cannot be spread over these devices, None where it can."""
    if len(devices) >= shards or set(devices) == {"cpu"}:
        return None
    return CellError(
        f"A training of model {model!r} is to be sharded over {shards} devices, and there are {len(devices)}.",
        "Lower model.shards, let LoRA stand for the whole model with model.stand_in_rank=1024, or use other machines"
        " with --engine ray or slurm.",
    )


def _options(model: Part | Mapping[str, Any]) -> Mapping[str, Any]:
    return model.options if isinstance(model, Part) else model["options"]
