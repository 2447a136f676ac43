"""The plan of a grid: its cells, the set of unique stages behind them, and what sharing saves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from bench.core.errors import CellError
from bench.core.spec import Cell
from bench.engine.chain import links_of
from bench.engine.expand import Expanded
from bench.engine.stages import CellStages, Chains, Stage, with_ancestors


@dataclass(frozen=True, repr=False)
class Plan:
    """Cells by key, their stages, and the cells that cannot be with their reason.

    A cell that can never be has no stages; one that only cannot be here and now may have them.
    """

    cells: Mapping[str, Cell]
    stages: Mapping[str, CellStages]
    impossible: Mapping[str, CellError]

    def __repr__(self) -> str:
        """Return the counts: the specs behind them fill pages."""
        counts = self.summary()
        return f"Plan({', '.join(f'{name}={counts[name]}' for name in ('cells', 'impossible', 'stages', 'trainings'))})"

    def unique(self) -> list[Stage]:
        """Return every stage of the plan once, parents before children, in the order of the cells."""
        return with_ancestors(stage for chain in self.stages.values() for stage in chain.last())

    def summary(self) -> dict[str, int]:
        """Return the counts that `bench plan` prints.

        `trainings_alone` is what it would take if every cell trained its own victim.
        """
        unique = self.unique()
        kinds = Counter(stage.kind for stage in unique)
        alone = sum(
            len(chain.evaluate.trainings.union(*(stage.trainings for stage in chain.detect)))
            for chain in self.stages.values()
        )
        return {
            "cells": len(self.cells),
            "impossible": len(self.impossible),
            "stages": len(unique),
            "trainings": kinds["train"],
            "trainings_alone": alone,
            "trainings_saved": alone - kinds["train"],
            **{f"stages_{kind}": count for kind, count in sorted(kinds.items())},
        }


def make_plan(expanded: Expanded) -> Plan:
    """Return the plan of expanded cells; nothing is read and nothing is run."""
    chains, stages = Chains(), {}
    links = {part.identity: links_of(part) for part in {cell.defense for cell in expanded.cells.values()}}
    for key, cell in expanded.cells.items():
        if key not in expanded.impossible:
            stages[key] = chains.of(cell, links[cell.defense.identity])
    return Plan(dict(expanded.cells), stages, dict(expanded.impossible))
