"""Stages and cells in a few words, for who watches a run."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from bench.core.spec import Cell
from bench.engine.stages import Stage, with_ancestors

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
    names = [stage.content[axis].name for axis in AXES if axis in stage.content]
    return f"{WORDS[stage.kind]} {' '.join(names)}".strip()


def told(stage: Stage) -> str:
    """Return what a stage does and to what: the data, the poison and the victim that it is made from."""
    behind = with_ancestors([stage])
    found = [f"{_poison(one)}" for one in behind if one.kind == "poison"]
    data = [one.content["dataset"].name for one in behind if one.kind == "load" and one is not stage]
    victim = [words(one).removeprefix("training ") for one in behind if one.kind == "train" and one is not stage]
    if stage.kind == "poison":
        return f"poisoning {data[0]} with {found[0]}" if stage.content else f"leaving {data[0]} clean"
    names = words(stage)
    if stage.kind in ("evaluate", "filter", "trigger"):
        names = " ".join([names, *victim[-1:]])
    where = ", ".join([*data[:1], *found[:1]])
    return f"{names}: {where}" if where else names


def _poison(stage: Stage) -> str:
    if not stage.content:
        return "clean"
    return f"{stage.content['attack'].name} @ {stage.content['poison_ratio']:g}, seed {stage.content['seed']}"


class Titles:
    """Names the cells of one plan: what all of them share is left out, and options that tell two apart are not."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        """Take the cells of the plan."""
        seen: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        values: dict[str, set[Any]] = defaultdict(set)
        rules: dict[tuple[str, str], set[str]] = defaultdict(set)  # each attack has a rule of its own
        for cell in cells:
            for axis in AXES:
                part = getattr(cell, axis)
                for name, value in part.options.items():
                    seen[axis, part.name][name].add(json.dumps(value, sort_keys=True, default=str))
            values["model"].add(cell.model.name)
            rules[cell.dataset.name, cell.attack.name].add(cell.label_rule)
            for name in SCALARS:
                values[name].add(getattr(cell, name))
        self._telling = {place: [o for o, v in options.items() if len(v) > 1] for place, options in seen.items()}
        self._several = {name for name, found in values.items() if len(found) > 1}
        self._scalars = [*SCALARS, *(["label_rule"] if any(len(found) > 1 for found in rules.values()) else [])]

    def of(self, cell: Mapping[str, Any]) -> str:
        """Return the title of a cell as it stands in a record."""
        dataset, attack, defense, model = (self._part(axis, cell[axis]) for axis in AXES)
        names = [dataset, attack, f"@ {cell['poison_ratio']:g}", defense]
        names += [model] if "model" in self._several or "(" in model else []
        more = [
            f"{name.replace('_', ' ')} {cell[name]}"
            for name in self._scalars
            if name in self._several or name == "label_rule"
        ]
        return ", ".join([" ".join(names), *more, f"seed {cell['seed']}"])

    def _part(self, axis: str, part: Mapping[str, Any]) -> str:
        options = [name for name in self._telling.get((axis, part["name"]), ()) if name in part["options"]]
        shown = ", ".join(f"{name}={_text(part['options'][name])}" for name in options)
        return f"{part['name']}({shown})" if shown else part["name"]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
