"""The keys and identities of a cell's stages, by kind."""

from __future__ import annotations

from bench.core.spec import Cell
from bench.engine.expand import Expanded
from bench.engine.plan import make_plan
from bench.engine.stages import Stage, with_ancestors


def stages_of(cell: Cell) -> list[Stage]:
    """Return every stage of one cell."""
    chain = make_plan(Expanded({cell.key: cell})).stages[cell.key]
    return with_ancestors((*chain.last(), chain.poison))


def keys_of(cell: Cell) -> dict[str, set[str]]:
    """Return the keys of a cell's stages, by kind."""
    return _by_kind(cell, "key")


def identities_of(cell: Cell) -> dict[str, set[str]]:
    """Return what the random numbers of a cell's stages derive from, by kind."""
    return _by_kind(cell, "identity")


def moved(one: Cell, other: Cell) -> set[str]:
    """Return the kinds of stages of which two cells share none or not all."""
    before, after = keys_of(one), keys_of(other)
    return {kind for kind in {*before, *after} if before.get(kind) != after.get(kind)}


def _by_kind(cell: Cell, attribute: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for stage in stages_of(cell):
        found.setdefault(stage.kind, set()).add(getattr(stage, attribute))
    return found
