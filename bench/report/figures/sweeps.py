"""Figures 4 and 6 to 10 as data: the records of MuScleLoRA that differ in one option, as series of points."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report.aggregate import Stat, stat
from bench.report.paper import order, settings
from bench.report.records import Record, canonical, distinct, metric, usable
from bench.report.selection import TARGET_LABEL, Setting, setting

DEFENSE = "musclelora"


@dataclass(frozen=True)
class Sweep:
    """One swept value: where it stands in a cell, and the figures that show it."""

    title: str
    label: str
    path: tuple[str, ...]
    figures: Mapping[str, int]  # model of the paper -> its figure; other models are drawn in the first of them
    grid: str
    log: bool = False

    def number(self, model: str) -> int:
        """Return the number of the figure that shows this sweep of a model."""
        return self.figures.get(model, min(self.figures.values()))


SWEEPS = (
    Sweep(
        "poison ratio",
        "poison ratio (fraction of the training set)",
        ("poison_ratio",),
        {"bert-base": 4, "bert-large": 6},
        "figure4",
    ),
    Sweep(
        "clean auxiliary samples",
        "clean auxiliary samples",
        ("defense", "options", "clean_samples"),
        {"bert-large": 7},
        "figure7",
        log=True,
    ),
    Sweep(
        "learning rate", "learning rate", ("model", "options", "learning_rate_pet"), {"bert-large": 8}, "figure8", True
    ),
    Sweep("mu_max", r"$\mu_{\max}$", ("defense", "options", "mu_max"), {"bert-large": 9}, "figure9"),
    Sweep("scaling vector S", "scaling vector S", ("defense", "options", "scales"), {"bert-large": 10}, "figure10"),
)


@dataclass(frozen=True)
class Point:
    """One swept value of one attack, over seeds; `trained` is False where a seed's model did not learn."""

    x: Any
    cacc: Stat | None
    asr: Stat | None
    seeds: tuple[int, ...]
    trained: bool


@dataclass(frozen=True)
class Swept:
    """What one figure shows: per attack its points in order of x."""

    sweep: Sweep
    dataset: str
    model: str
    setting: Setting
    lines: Mapping[str, Sequence[Point]]


def swept(sweep: Sweep, records: Iterable[Record]) -> list[Swept]:
    """Return a figure's data for each data set, model, recipe and precision at which two values or more were run.

    Where several settings of the other options were swept, the one with the most points is shown.
    """
    groups: dict[tuple[str, str, Setting], list[Record]] = defaultdict(list)
    for record in distinct(records)[0]:
        cell = record["cell"]
        right = cell["defense"]["name"] == DEFENSE and cell["target_label"] in (None, TARGET_LABEL)
        if usable(record) and right and _value(cell, sweep.path) is not None:
            groups[cell["dataset"]["name"], cell["model"]["name"], setting(record)].append(record)
    found = []
    for (dataset, model, one), members in sorted(groups.items()):
        lines = _lines(sweep, members)
        if lines:
            found.append(Swept(sweep, dataset, model, one, lines))
    return found


def scale_names() -> dict[str, tuple[float, ...]]:
    """Return S_1 to S_4 of Table 10."""
    table = settings()["table_10_scaling_notation"]
    return {name: tuple(float(value) for value in table[name]) for name in table if name.startswith("S_")}


def scale_name(values: Sequence[float]) -> str:
    """Return the paper's name of a scaling vector, or its entries."""
    given = tuple(float(value) for value in values)
    known = {vector: name for name, vector in scale_names().items()}
    return known.get(given, ", ".join(f"{value:g}" for value in given))


def _value(cell: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = cell
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return tuple(found) if isinstance(found, list) else found


def _rest(cell: Mapping[str, Any], sweep: Sweep) -> tuple[str, str]:
    """Return what two cells of one line share: all but the swept value and seed; the attack's part apart."""
    content = json.loads(json.dumps(cell))
    inner = content
    for name in sweep.path[:-1]:
        inner = inner[name]
    inner.pop(sweep.path[-1])
    own = canonical([content.pop("attack"), content.pop("label_rule")])
    content.pop("seed")
    content.pop("analysis", None)  # a watched cell is the same cell
    return canonical(content), own


def _lines(sweep: Sweep, records: Sequence[Record]) -> dict[str, list[Point]]:
    """Return the points of each attack, for the other options that were swept most."""
    variants: dict[str, dict[str, dict[str, dict[Any, list[Record]]]]] = {}
    for record in records:
        shared, own = _rest(record["cell"], sweep)
        attack = variants.setdefault(shared, {}).setdefault(record["cell"]["attack"]["name"], {})
        attack.setdefault(own, {}).setdefault(_value(record["cell"], sweep.path), []).append(record)
    chosen = [_fullest(attacks) for _, attacks in sorted(variants.items())]
    lines = max(chosen, key=lambda found: sum(map(len, found.values())), default={})
    return {attack: lines[attack] for attack in order("attacks", set(lines))}


def _fullest(attacks: Mapping[str, Mapping[str, Mapping[Any, list[Record]]]]) -> dict[str, list[Point]]:
    """Return each attack's line with the most points, without those of fewer than two."""
    found = {}
    for attack, kinds in attacks.items():
        line = max((values for _, values in sorted(kinds.items())), key=len)
        if len(line) > 1:
            found[attack] = [_point(x, line[x]) for x in sorted(line)]
    return found


def _point(x: Any, records: Sequence[Record]) -> Point:
    # One of each seed: the plain record where it was also run with an analysis looking on, as in the tables.
    seeds = {record["cell"]["seed"]: record for record in sorted(records, key=_plain_last)}
    members = [seeds[seed] for seed in sorted(seeds)]
    return Point(
        x,
        stat([metric(record, "cacc") for record in members]),
        stat([metric(record, "asr") for record in members]),
        tuple(sorted(seeds)),
        all(record.get("trained") is not False for record in members),
    )


def _plain_last(record: Record) -> tuple[bool, str]:
    return record["cell"].get("analysis") is None, record["key"]
