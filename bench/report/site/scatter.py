"""CACC against ASR, one plot per data set and model, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from bench.report.aggregate import Cell, Key, group_mean
from bench.report.board import averaged, groups
from bench.report.paper import order, printed_name
from bench.report.records import names
from bench.report.selection import Selection, Setting
from bench.report.site.html import escape
from bench.report.site.links import table_of
from bench.report.site.svg import LABELS, Axes, drawing, frame, label_text, spread, ticks

WIDTH, HEIGHT, LABEL = 860, 460, 15


@dataclass(frozen=True)
class Point:
    """One defense: its identifier, CACC and ASR in percent, whether all its models learned, and where it leads.

    `oracle`: it was given the true poison flags.
    """

    defense: str
    cacc: float
    asr: float
    trained: bool
    target: str = ""
    oracle: bool = False

    @property
    def name(self) -> str:
        """Return the printed name, which says of an oracle that it is one."""
        return printed_name("defenses", self.defense) + (" (oracle)" if self.oracle else "")


def front(points: Sequence[Point]) -> list[Point]:
    """Return the trained points that no other trained one beats in one measure without losing in the other.

    In order of CACC, the lowest first. Equal points stand on the front together. An oracle competes with none.
    """
    competing = [point for point in points if point.trained and not point.oracle]
    kept = [
        one
        for one in competing
        if not any(
            other.cacc >= one.cacc and other.asr <= one.asr and (other.cacc, other.asr) != (one.cacc, one.asr)
            for other in competing
        )
    ]
    return sorted(kept, key=lambda point: (point.cacc, point.asr, point.defense))


def scatters(selection: Selection) -> list[tuple[str, str]]:
    """Return (title, HTML) of each plot: per setting, data set and model the mean over attacks, then each attack."""
    plots = []
    for one in selection.settings:
        for dataset, model in groups(selection, one):
            records = [record for record in selection.attacked.get(one, ()) if names(record)[:2] == (dataset, model)]
            attacks = order("attacks", {names(record)[2] for record in records})
            where = f"{printed_name('datasets', dataset)}, {printed_name('models', model)} ({', '.join(one)})"
            told = {names(record)[3] for record in records if record.get("oracle")}
            meant = _meant(selection.cells(one), dataset, model, attacks)
            for chosen in ([meant] if len(meant) > 1 else []) + [[attack] for attack in attacks]:
                points = _points(selection.cells(one), one, (dataset, model), chosen, told)
                if points:
                    named = ", ".join(printed_name("attacks", attack) for attack in chosen)
                    all_of_them = "attacks" if len(chosen) == len(attacks) else named
                    what = f"mean over {all_of_them}" if len(chosen) > 1 else named
                    plots.append((f"{where}: {what}", plot(points, f"{where}: {what}")))
    return plots


def _meant(shown: Mapping[Key, Cell], dataset: str, model: str, attacks: Sequence[str]) -> list[str]:
    """Return the attacks that the board's means are over."""
    defenses = order("defenses", {key[3] for key in shown if key[:2] == (dataset, model)})
    grid = {name: [shown.get((dataset, model, attack, name)) for attack in attacks] for name in defenses}
    return [attacks[place] for place in averaged(grid)]


def _points(
    shown: Mapping[Key, Cell], one: Setting, place: tuple[str, str], attacks: Sequence[str], told: Set[str]
) -> list[Point]:
    (dataset, model), points = place, []
    for defense in order("defenses", {key[3] for key in shown if key[:2] == (dataset, model)}):
        found = [shown.get((dataset, model, attack, defense)) for attack in attacks]
        cacc = group_mean([cell.cacc.mean if cell and cell.cacc else None for cell in found])
        asr = group_mean([cell.asr.mean if cell and cell.asr else None for cell in found])
        if cacc is not None and asr is not None:
            trained = all(cell is not None and cell.trained for cell in found)
            keys = [key for cell in found if cell is not None for key in cell.keys]
            target = table_of(one, dataset, model, attacks[0] if len(attacks) == 1 else "", defense, keys)
            rates = round(100 * cacc, 2), round(100 * asr, 2)
            points.append(Point(defense, *rates, trained, target, defense in told))
    return points


def plot(points: Sequence[Point], title: str) -> str:
    """Return a figure with its points, the front, and the front in words; each point leads to its cells."""
    best = front(points)
    low = min(80.0, min(point.cacc for point in points) - 2)
    low = 5 * (low // 5)
    axes = Axes(60, 16, WIDTH - 60 - LABELS, HEIGHT - 16 - 50, (low, 100.0), (0.0, 100.0))
    parts = [frame(axes, ticks(low, 100, 9), ticks(0, 100), "CACC, percent (higher is better)", "ASR, percent")]
    parts.append(_front_line(axes, best))
    parts += _marks(axes, points, {point.defense for point in best})
    words = ", ".join(f"{point.name} (CACC {point.cacc:.2f}, ASR {point.asr:.2f})" for point in best)
    untrained = ", ".join(point.name for point in points if not point.trained)
    note = f" Hollow: did not learn, so not on the front: {untrained}." if untrained else ""
    if any(point.oracle for point in points):
        note += " An oracle was given the true poison flags: not on the front."
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role=group aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return (
        f"<figure>{drawing(svg, title)}"
        f"<figcaption>{escape(title)}. Pareto front: {escape(words) or 'none'}.{escape(note)}</figcaption></figure>"
    )


def _front_line(axes: Axes, best: Sequence[Point]) -> str:
    """Draw the border of what the front beats: level at an ASR up to its CACC, then up to the next one's."""
    if not best:
        return ""
    steps = [f"M{axes.left:.1f} {axes.y(best[0].asr):.1f}"]
    for place, point in enumerate(best):
        steps.append(f"H{axes.x(point.cacc):.1f}")
        following = best[place + 1].asr if place + 1 < len(best) else 100.0
        steps.append(f"V{axes.y(following):.1f}")
    return f'<path class=front d="{"".join(steps)}"/>'


def _marks(axes: Axes, points: Sequence[Point], best: set[str]) -> list[str]:
    labels = spread([axes.y(point.asr) for point in points], LABEL, axes.top + 4, axes.top + axes.height)
    parts = []
    column = axes.left + axes.width + 14
    for point, label in zip(points, labels, strict=True):
        x, y = axes.x(point.cacc), axes.y(point.asr)
        kind = "best" if point.defense in best else "point" if point.trained else "untrained"
        words = escape(f"{point.name}: CACC {point.cacc:.2f}, ASR {point.asr:.2f}")
        parts.append(
            f'<a href="{escape(point.target)}" aria-label="{words}" class={kind}><title>{words}</title>'
            f'<path class=leader d="M{x:.1f} {y:.1f}L{column - 4:.1f} {label:.1f}"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6"/>'
            f'<text x="{column:.1f}" y="{label + 4:.1f}">{label_text(point.name)}</text></a>'
        )
    return parts
