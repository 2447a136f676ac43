"""How one aggregated cell is written: percent, deviation, the mark of a model that did not train."""

from __future__ import annotations

from bench.report.aggregate import Cell, Stat
from bench.report.intervals import Counts, interval
from bench.report.markdown import DAGGER, DASH, percent, printed


def value(result: Stat | None) -> str:
    """Return a mean as percent, with its deviation where there is more than one seed, or an em dash."""
    if result is None:
        return DASH
    return percent(result.mean) if result.std is None else f"{percent(result.mean)} ± {percent(result.std)}"


def dagger(cell: Cell | None) -> str:
    """Return the mark of a cell that did not train, with the share of its seeds where that is not all."""
    if cell is None or cell.trained:
        return ""
    return DAGGER if cell.untrained == len(cell.seeds) else f"{DAGGER}{cell.untrained}/{len(cell.seeds)}"


def difference(result: Stat | None, published: float) -> float | None:
    """Return ours minus the paper's in percentage points, both as printed, or None without ours."""
    return None if result is None else round((printed(result.mean) or 0.0) - published, 2)


def beside(text: str, result: Stat | None, published: float, mark: str = "") -> str:
    """Return a text of ours with the paper's number (percent, as printed) and the difference in brackets."""
    gap = difference(result, published)
    return f"{text} ({mark or f'{published:.2f}'}{'' if gap is None else f', {gap:+.2f}'})"


def bounds(counts: Counts | None) -> str:
    """Return the 95 % interval of some counts in percent, or an em dash."""
    if counts is None:
        return DASH
    low, high = interval(counts)
    return f"{percent(low)} to {percent(high)}"
