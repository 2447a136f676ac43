"""Parts of a plot as SVG text: axes, labels that keep apart; coordinates have one decimal, so that bytes are stable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.report.site.html import escape

LABELS = 190  # pixels right of a plot for the names of its points or lines


@dataclass(frozen=True)
class Axes:
    """A plotting area in pixels and the range of its data; both ranges grow to the right and upwards."""

    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        """Return the pixel of a value on the horizontal axis."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * self.width

    def y(self, value: float) -> float:
        """Return the pixel of a value on the vertical axis."""
        low, high = self.y_range
        return self.top + (high - value) / (high - low) * self.height


def drawing(svg: str, title: str) -> str:
    """Return a plot in a region that scrolls where the window is too narrow for its labels to be read."""
    return f'<div class=scroll tabindex=0 role=region aria-label="Plot: {escape(title)}">{svg}</div>'


def frame(axes: Axes, x_ticks: Sequence[float], y_ticks: Sequence[float], x_title: str, y_title: str) -> str:
    """Return grid lines, tick labels and titles of axes."""
    right, bottom = axes.left + axes.width, axes.top + axes.height
    parts = []
    for value in y_ticks:
        y = axes.y(value)
        parts.append(f'<line class=grid x1="{axes.left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class=tick x="{axes.left - 6:.1f}" y="{y + 4:.1f}" text-anchor=end>{value:g}</text>')
    for value in x_ticks:
        x = axes.x(value)
        parts.append(f'<line class=grid x1="{x:.1f}" y1="{axes.top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}"/>')
        parts.append(f'<text class=tick x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor=middle>{value:g}</text>')
    middle = axes.left + axes.width / 2
    parts.append(
        f'<text class=title x="{middle:.1f}" y="{bottom + 36:.1f}" text-anchor=middle>{escape(x_title)}</text>'
    )
    x, y = axes.left - 38, axes.top + axes.height / 2
    turn = f'transform="rotate(-90 {x:.1f} {y:.1f})"'
    parts.append(f'<text class=title x="{x:.1f}" y="{y:.1f}" {turn} text-anchor=middle>{escape(y_title)}</text>')
    return "".join(parts)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round values from low to high, at most `most` of them."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 25, 50):
        first = -(-low // step)
        count = int((high - first * step) / step + 1e-9) + 1
        if count <= most:
            return [round((first + place) * step, 6) for place in range(count)]
    return [low, high]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions near the wanted ones, in the same order, at least `gap` apart and within [low, high]."""
    order = sorted(range(len(wanted)), key=lambda place: (wanted[place], place))
    gap = min(gap, (high - low) / max(1, len(wanted) - 1)) if len(wanted) > 1 else gap
    found, last = [0.0] * len(wanted), low - gap
    for place in order:
        last = found[place] = max(wanted[place], last + gap, low)
    limit = high
    for place in reversed(order):
        limit = found[place] = min(found[place], limit)
        limit -= gap
    return found


def label_text(name: str, most: int = 26) -> str:
    """Return a name as it fits beside a plot, escaped."""
    return escape(name if len(name) <= most else name[: most - 1].rstrip() + "…")
