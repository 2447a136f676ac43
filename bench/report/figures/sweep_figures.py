"""Figures 4 and 6 to 10 as pictures: CACC and ASR against one swept value, a line for each attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bench.report.figures.style import Look, canvas, looks, note_below
from bench.report.figures.sweeps import Point, Swept, scale_name
from bench.report.paper import printed_name

METRICS = (("cacc", "CACC (%)"), ("asr", "ASR (%)"))
LETTER = 0.03  # the width of a digit, as a share of the width of a panel


def draw(data: Swept) -> Any:
    """Return the figure: one panel for CACC and one for ASR, in percent."""
    figure = canvas(7.2, 3.4)
    panels = figure.subplots(1, 2)
    styles = looks(list(data.lines))
    categories = data.sweep.path[-1] == "scales"
    for panel, (name, label) in zip(panels, METRICS, strict=True):
        _bars(panel, data, styles, name) if categories else _curves(panel, data, styles, name)
        panel.set_ylabel(label)
        panel.set_xlabel(data.sweep.label)
        panel.set_ylim(0, 100)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    note_below(figure, _notes(data), 125)
    return figure


def _curves(panel: Any, data: Swept, styles: dict[str, Look], name: str) -> None:
    ticks = sorted({point.x for line in data.lines.values() for point in line})
    for attack, line in data.lines.items():
        look, shown = styles[attack], [point for point in line if getattr(point, name) is not None]
        means = [100 * getattr(point, name).mean for point in shown]
        spread = [100 * (getattr(point, name).std or 0.0) for point in shown]
        places = [point.x for point in shown]
        if any(spread):
            panel.errorbar(places, means, spread, fmt="none", ecolor=look.colour, capsize=2, linewidth=0.8)
        panel.plot(
            places, means, color=look.colour, linestyle=look.line, marker=look.marker, markersize=5,
            label=printed_name("attacks", attack),
        )  # fmt: skip
        untrained = [(point.x, mean) for point, mean in zip(shown, means, strict=True) if not point.trained]
        if untrained:
            panel.plot(
                *zip(*untrained, strict=True), linestyle="none", marker=look.marker, markersize=6,
                markerfacecolor="white", markeredgecolor=look.colour, zorder=3,
            )  # fmt: skip
    places = ticks
    if data.sweep.log and ticks[0] > 0:
        panel.set_xscale("log")
        panel.minorticks_off()
        places = [math.log10(tick) for tick in ticks]
    panel.set_xticks(ticks, _staggered(places, [f"{tick:g}" for tick in ticks]))


def _staggered(places: Sequence[float], labels: Sequence[str]) -> list[str]:
    """Return the labels of ticks, left to right; one that would run into another of its line stands a line lower."""
    reach = 1.1 * (places[-1] - places[0]) or 1.0  # matplotlib leaves a twentieth of the range free on either side
    ends: list[float] = []  # of each line: where its last label ends, as a share of the axis
    shown = []
    for place, label in zip(places, labels, strict=True):
        middle, half = (place - places[0]) / reach, (len(label) + 1) * LETTER / 2
        line = next((line for line, end in enumerate(ends) if end <= middle - half), len(ends))
        ends[line : line + 1] = [middle + half]
        shown.append("\n" * line + label)
    return shown


def _bars(panel: Any, data: Swept, styles: dict[str, Look], name: str) -> None:
    vectors = list(dict.fromkeys(point.x for line in data.lines.values() for point in line))
    vectors.sort(key=lambda vector: (scale_name(vector), vector))
    width = 0.8 / len(data.lines)
    for place, (attack, line) in enumerate(data.lines.items()):
        known = {point.x: point for point in line if getattr(point, name) is not None}
        where = [at for at, vector in enumerate(vectors) if vector in known]
        stats = [getattr(known[vectors[at]], name) for at in where]
        bars = panel.bar(
            [at + (place + 0.5) * width - 0.4 for at in where], [100 * one.mean for one in stats], width,
            color=styles[attack].colour, edgecolor="black", linewidth=0.6, hatch=styles[attack].hatch,
            yerr=[100 * (one.std or 0.0) for one in stats] if any(one.std for one in stats) else None,
            label=printed_name("attacks", attack),
        )  # fmt: skip
        for at, bar in zip(where, bars, strict=True):
            if not known[vectors[at]].trained:
                bar.set_facecolor("white")
    names = [scale_name(vector) for vector in vectors]
    shown = [f"${name}$" if name.startswith("S_") else name for name in names]
    panel.set_xticks(range(len(vectors)), shown, rotation=0 if all(n.startswith("S_") for n in names) else 20)
    panel.grid(axis="x", visible=False)


def _notes(data: Swept) -> list[str]:
    points: Sequence[Point] = [point for line in data.lines.values() for point in line]
    seeds = sorted({len(point.seeds) for point in points})
    count = f"{seeds[0]} seed{'s' * (seeds[0] > 1)}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    recipe, precision = data.setting
    lines = [
        f"MuScleLoRA, {printed_name('models', data.model)}, {printed_name('datasets', data.dataset)}; recipe {recipe}, "
        f"{precision}; {count}" + (", bars: standard deviation." if seeds[-1] > 1 else ".")
    ]
    if not all(point.trained for point in points):
        lines.append("White inside: the model did not learn (CACC within 0.05 of the majority class).")
    if data.sweep.path[-1] == "scales":
        vectors = {scale_name(point.x): point.x for point in points}
        named = [f"{name} = [{', '.join(f'{v:g}' for v in x)}]" for name, x in sorted(vectors.items())]
        lines.append("; ".join(text for text in named if text.startswith("S_")))
    return [line for line in lines if line]
