"""Stages and cells in a few words, for who watches a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from bench.core.spec import Cell, Part
from bench.engine.stages import Stage, with_ancestors
from bench.report.telling import Telling

WORDS = {
    "load": "reading",
    "poison": "poisoning",
    "trigger": "poisoning the test split of",
    "cleanse": "cleansing",
    "train": "training",
    "repair": "repairing",
    "filter": "filtering",
    "detect": "detecting",
    "evaluate": "evaluating",
}
AXES = ("dataset", "attack", "defense", "model")
SCALARS = ("target_label", "recipe", "precision")


def words(stage: Stage) -> str:
    """Return what a stage does, in a few words."""
    names = [_name(stage.content[axis]) for axis in AXES if axis in stage.content]
    return f"{WORDS[stage.kind]} {' '.join(names)}".strip()


def told(stage: Stage) -> str:
    """Return what a stage does and to what: the data, the poison and the victim that it is made from."""
    behind = with_ancestors([stage])
    found = [f"{_poison(one)}" for one in behind if one.kind == "poison"]
    data = [_name(one.content["dataset"]) for one in behind if one.kind == "load" and one is not stage]
    victim = [words(one).removeprefix("training ") for one in behind if one.kind == "train" and one is not stage]
    if stage.kind == "poison":
        return f"poisoning {data[0]} with {found[0]}" if stage.content else f"leaving {data[0]} clean"
    names = words(stage)
    if stage.kind in ("evaluate", "filter", "trigger"):
        names = " ".join([names, *victim[-1:]])
    where = ", ".join([*data[:1], *found[:1]])
    return f"{names}: {where}" if where else names


def _name(part: Part) -> str:
    return part.read_from or part.name


def _poison(stage: Stage) -> str:
    if not stage.content:
        return "clean"
    return f"{stage.content['attack'].name} @ {stage.content['poison_ratio']:g}, seed {stage.content['seed']}"


class Titles:
    """Names the cells of one plan: what all of them share is left out, and options that tell two apart are not."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        """Take the cells of the plan."""
        parts: dict[tuple[str, str], Part] = {}
        values: dict[str, set[Any]] = defaultdict(set)
        rules: dict[tuple[str, str], set[str]] = defaultdict(set)  # each attack has a rule of its own
        for cell in cells:
            parts.update({(axis, (part := getattr(cell, axis)).identity): part for axis in AXES})
            values["model"].add(cell.model.name)
            rules[cell.dataset.name, cell.attack.name].add(cell.label_rule)
            for name in SCALARS:
                values[name].add(getattr(cell, name))
        self._telling = Telling((axis, part.name, part.options) for (axis, _), part in parts.items())
        self._scalars = [name for name in SCALARS if len(values[name]) > 1]
        self._scalars += ["label_rule"] if any(len(found) > 1 for found in rules.values()) else []
        self._files = {part.name: _name(part) for (axis, _), part in parts.items() if axis == "dataset"}
        self._models = len(values["model"]) > 1

    def of(self, cell: Mapping[str, Any]) -> str:
        """Return the title of a cell as it stands in a record."""
        dataset, attack, defense, model = (self._telling.name(axis, cell[axis]) for axis in AXES)
        names = [self._files.get(dataset, dataset), attack, f"@ {cell['poison_ratio']:g}", defense]
        names += [model] if self._models or model != cell["model"]["name"] else []
        more = [f"{name.replace('_', ' ')} {cell[name]}" for name in self._scalars]
        return ", ".join([" ".join(names), *more, f"seed {cell['seed']}"])
