"""How one aggregated cell is written: percent, deviation, the mark of a model that did not train."""

from __future__ import annotations

from bench.report.aggregate import Cell, Stat
from bench.report.markdown import DAGGER, DASH, percent


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
