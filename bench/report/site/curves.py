"""CACC and ASR against the poison ratio, one plot per data set, model and attack with more than one ratio."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from bench.report.aggregate import Cell, cells
from bench.report.board import groups
from bench.report.ledger import Ledger
from bench.report.paper import order, printed_name
from bench.report.records import Record
from bench.report.selection import POISON_RATIO, Selection, Setting
from bench.report.site.html import escape
from bench.report.site.svg import LABELS, Axes, drawing, frame, label_text, spread, ticks

WIDTH, HEIGHT, LABEL, GAP = 920, 380, 14, 84
COLORS = 8
Curves = dict[str, list[tuple[float, Cell]]]  # defense -> (ratio, its cell) by ratio


def curves(records: Sequence[Record] | Ledger) -> list[tuple[str, str]]:
    """Return (title, HTML) of each plot; ratio 0 is the clean control, whose ASR is what a clean model gets wrong."""
    found = Ledger.of(records).by_ratio
    if not found:
        return []
    merged: dict[tuple[Setting, str, str, str], Curves] = defaultdict(dict)
    usual = found.get(POISON_RATIO) or next(iter(found.values()))  # the control is one for all ratios
    shown = [(0.0, one, cells(members)) for one, members in usual.control.items()]
    shown += [(ratio, one, part.cells(one)) for ratio, part in found.items() for one in part.attacked]
    for ratio, one, there in shown:
        for (dataset, model, attack, defense), cell in there.items():
            merged[one, dataset, model, attack].setdefault(defense, []).append((ratio, cell))
    plots = []
    for one, dataset, model, attack in _ordered(merged, found.values()):
        lines = {name: line for name, line in merged[one, dataset, model, attack].items() if len(line) > 1}
        if any(ratio > 0 for line in lines.values() for ratio, _ in line):
            names = (printed_name("datasets", dataset), printed_name("models", model), printed_name("attacks", attack))
            title = f"{names[0]}, {names[1]} ({', '.join(one)}): {names[2]}"
            plots.append((title, plot(lines, title)))
    return plots


def _ordered(
    merged: Mapping[tuple[Setting, str, str, str], Curves], selections: Iterable[Selection]
) -> list[tuple[Setting, str, str, str]]:
    places: dict[tuple[Setting, str, str], None] = {}
    for selection in selections:
        for one in selection.settings:
            places |= {(one, *group): None for group in groups(selection, one)}
    attacks = order("attacks", {key[3] for key in merged})
    return [(*place, attack) for place in places for attack in attacks if (*place, attack) in merged]


def plot(lines: Curves, title: str) -> str:
    """Return a figure of two panels, CACC and ASR over the ratio, one line per defense, and its numbers as a table."""
    ratios = sorted({ratio for line in lines.values() for ratio, _ in line})
    defenses = order("defenses", set(lines))
    top = max(ratios)
    values = [100 * cell.cacc.mean for line in lines.values() for _, cell in line if cell.cacc]
    low = 10 * (min([80.0, *values]) // 10)
    panel = (WIDTH - 60 - GAP - LABELS) / 2
    parts = []
    for place, (name, bottom) in enumerate((("CACC", low), ("ASR", 0.0))):
        axes = Axes(60 + place * (panel + GAP), 16, panel, HEIGHT - 16 - 50, (0.0, top), (bottom, 100.0))
        parts.append(frame(axes, ticks(0, top), ticks(bottom, 100), "Poison ratio", f"{name}, percent"))
        parts += _lines(axes, lines, defenses, name.lower(), labelled=place == 1)
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role=img aria-label="{escape(title)}">{"".join(parts)}</svg>'
    caption = f"<figcaption>{escape(title)}</figcaption>"
    return f"<figure>{drawing(svg, title)}{caption}{_numbers(lines, defenses, ratios)}</figure>"


def _lines(axes: Axes, lines: Curves, defenses: Sequence[str], name: str, labelled: bool) -> list[str]:
    drawn = []
    for place, defense in enumerate(defenses):
        found = [(ratio, getattr(cell, name)) for ratio, cell in lines[defense]]
        points = [(axes.x(ratio), axes.y(100 * value.mean)) for ratio, value in found if value is not None]
        if points:
            drawn.append((place, defense, points))
    labels = spread([points[-1][1] for _, _, points in drawn], LABEL, axes.top + 4, axes.top + axes.height)
    parts = []
    for (place, defense, points), label in zip(drawn, labels, strict=True):
        # Colours repeat after eight lines; the pattern of the line then tells them apart.
        look = f"c{place % COLORS} d{place // COLORS % 3}"
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points)
        name = label_text(printed_name("defenses", defense))
        text = f'<text x="{axes.left + axes.width + 12:.1f}" y="{label + 4:.1f}">{name}</text>'
        parts.append(f'<g class="curve {look}"><path d="M{path}"/>{dots}{text if labelled else ""}</g>')
    return parts


def _numbers(lines: Curves, defenses: Sequence[str], ratios: Sequence[float]) -> str:
    titles = [f"{name} at {ratio:g}" for name in ("CACC", "ASR") for ratio in ratios]
    head = "".join(f"<th scope=col class=number>{title}</th>" for title in titles)
    rows = []
    for defense in defenses:
        by_ratio = dict(lines[defense])
        stats = [getattr(by_ratio.get(ratio), name, None) for name in ("cacc", "asr") for ratio in ratios]
        shown = "".join(f"<td class=number>{'—' if one is None else f'{100 * one.mean:.2f}'}</td>" for one in stats)
        rows.append(f"<tr><th scope=row>{_name(defense)}</th>{shown}</tr>")
    table = f"<table><thead><tr><th scope=col>Defense</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<details><summary>The numbers</summary><div class=scroll>{table}</div></details>"


def _name(defense: str) -> str:
    return escape(printed_name("defenses", defense))
