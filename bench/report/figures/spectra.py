"""Figures 1, 2, 5 and 11 to 13 as data: what the Fourier analysis of some trainings found, filter by filter."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report.paper import order
from bench.report.records import Record, names
from bench.report.selection import Setting, select

MAPPINGS = ("clean", "backdoor")
SERIES = ("lfr", "hfr", "low_error", "high_error")
DEFENSES = ("lora", "mslr", "lora+ga", "musclelora")  # panels a to d of Figure 5
OVER = {"separate": "among its own mapping", "joint": "among both mappings"}


@dataclass(frozen=True)
class Spectrum:
    """One figure: what it draws, of which trainings, and where the paper has it."""

    number: int
    kind: str  # "ratios" or "errors"
    panels: str  # the axis whose values are the panels: "attacks" or "defenses"
    attack: str | None  # None: a panel for each
    models: tuple[str, ...]  # of the paper
    others: bool  # whether models that the paper does not have are drawn here
    grid: str

    def takes(self, dataset: str, model: str, attack: str, defense: str) -> bool:
        """Tell whether a watched cell belongs into this figure."""
        chosen = self.attack in (None, attack) and defense in (("vanilla",) if self.panels == "attacks" else DEFENSES)
        known = {name for figure in SPECTRA for name in figure.models}
        return chosen and (model in self.models or (self.others and model not in known))


SPECTRA = (
    Spectrum(1, "ratios", "attacks", None, ("bert-base",), True, "figure1"),
    Spectrum(2, "errors", "attacks", None, ("bert-base",), True, "figure1"),
    Spectrum(5, "errors", "defenses", "badnets", ("bert-base",), True, "figure5"),
    Spectrum(11, "errors", "defenses", "badnets", ("bert-large",), False, "figure11"),
    Spectrum(12, "errors", "defenses", "addsent", ("llama2-7b",), True, "figure12"),
    Spectrum(13, "errors", "defenses", "hiddenkiller", ("llama2-7b",), True, "figure12"),
)


@dataclass(frozen=True, order=True)
class Row:
    """One filter: a row of panels. A delta chosen from the data sorts after those that were given."""

    over: str
    kernel: str
    chosen: bool
    value: float  # the delta, or the quantile that chose it

    def title(self, delta: float) -> str:
        """Return the row's name; `delta` is the one in force."""
        where = f" (quantile {self.value:g})" if self.chosen else ""
        return f"{self.kernel} kernel\n$\\delta$ = {delta:.4g}{where}\n{OVER[self.over]}"


@dataclass(frozen=True)
class Panel:
    """One training: its looks, and per filter and mapping what was found."""

    name: str
    steps: tuple[int, ...]
    steps_per_epoch: int
    seeds: tuple[int, ...]
    rows: Mapping[Row, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Watched:
    """What one figure shows of one data set, model, recipe and precision."""

    spectrum: Spectrum
    dataset: str
    model: str
    setting: Setting
    panels: tuple[Panel, ...]

    def rows(self) -> list[Row]:
        """Return the filters to draw: not the degenerate ones; among both mappings only with a delta from the data."""
        found = {
            row
            for panel in self.panels
            for row, entries in panel.rows.items()
            if any(entry["degenerate"] is None for entry in entries.values())
        }
        any_chosen = any(row.chosen for row in found)
        found = {row for row in found if row.over == "separate" or row.chosen or not any_chosen}
        # The paper's own form first: neighbours within a mapping, the published kernel, a given delta.
        return sorted(found, key=lambda row: (row.over != "separate", row.kernel != "released", row.chosen, row.value))

    def delta(self, row: Row) -> float:
        """Return the delta of a row: the same in every panel, or the first one's."""
        return next(entry["delta"] for panel in self.panels for entry in panel.rows.get(row, {}).values())

    def degenerate(self) -> list[str]:
        """Return a line on each filter that says nothing of some mapping, with the self-weights found."""
        weights: dict[tuple[Row, str, float], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for panel in self.panels:
            for row, entries in panel.rows.items():
                for mapping, entry in entries.items():
                    if entry["degenerate"]:
                        weights[row, entry["degenerate"], entry["delta"]][mapping].append(entry["self_weight"])
        lines = []
        for (row, what, delta), by_mapping in sorted(weights.items()):
            found = [weight for every in by_mapping.values() for weight in every]
            low, high = min(found), max(found)
            span = f"{low:.3f}" if math.isclose(low, high, abs_tol=5e-4) else f"{low:.3f} to {high:.3f}"
            kind = "the identity" if what == "identity" else "a plain mean"
            of = " and ".join(by_mapping)
            filtered = f"{row.kernel} kernel at delta {delta:.4g}, {OVER[row.over]}"
            lines.append(f"{filtered}: {kind} for {of} (self-weight {span})")
        return lines


def watched(spectrum: Spectrum, records: Iterable[Record]) -> list[Watched]:
    """Return a figure's data for each data set, model, recipe and precision that was watched under attack."""
    seen = [record for record in records if (record.get("analysis") or {}).get("name") == "fourier"]
    found = []
    for one, members in sorted(select(seen).attacked.items()):
        groups: dict[tuple[str, str], dict[str, list[Record]]] = defaultdict(dict)
        for record in members:
            dataset, model, attack, defense = names(record)
            if spectrum.takes(dataset, model, attack, defense):
                panel = attack if spectrum.panels == "attacks" else defense
                groups[dataset, model].setdefault(panel, []).append(record)
        for (dataset, model), panels in sorted(groups.items()):
            ordered = order("attacks", set(panels)) if spectrum.panels == "attacks" else DEFENSES
            shown = tuple(_panel(name, panels[name]) for name in ordered if name in panels)
            found.append(Watched(spectrum, dataset, model, one, shown))
    return found


def _panel(name: str, records: Sequence[Record]) -> Panel:
    """Return one training over its seeds: means of the series where every seed has them."""
    records = sorted(records, key=lambda record: record["cell"]["seed"])
    first = records[0]["analysis"]
    alike = [record for record in records if record["analysis"]["steps"] == first["steps"]]
    rows: dict[Row, dict[str, list[Mapping[str, Any]]]] = {}
    for record in alike:
        for entry in record["analysis"]["filters"]:
            chosen = entry["quantile"] is not None
            row = Row(entry["over"], entry["kernel"], chosen, entry["quantile"] if chosen else entry["delta"])
            rows.setdefault(row, {}).setdefault(entry["mapping"], []).append(entry)
    merged = {
        row: {mapping: _mean(entries[mapping]) for mapping in MAPPINGS if mapping in entries}
        for row, entries in rows.items()
    }
    seeds = tuple(record["cell"]["seed"] for record in alike)
    return Panel(name, tuple(first["steps"]), first["steps_per_epoch"], seeds, merged)


def _mean(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = dict(entries[0])
    found["degenerate"] = next((entry["degenerate"] for entry in entries if entry["degenerate"]), None)
    for name in SERIES:
        every = [entry[name] for entry in entries]
        whole = all(series is not None for series in every) and found["degenerate"] is None
        found[name] = [math.fsum(look) / len(look) for look in zip(*every, strict=True)] if whole else None
    return found
