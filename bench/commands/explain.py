"""`bench explain`: what a cell does, stage by stage, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from bench.commands.run import Request, plan_of
from bench.core.errors import RequestError
from bench.report.explain import cell_of, explain
from bench.report.references import one


def explain_record(reference: str, console: Console) -> int:
    """Print what the cell of a record did, and what came out.

    Raises:
        BenchError: no such record, or a published one names code of its author: a record never makes us import that.
    """
    record, found = one(reference)
    foreign = [source for source in _sources(record) if ":" in source]
    if foreign and found.store is None:
        raise RequestError(
            f"{foreign[0]} is code of who published the record, and is not imported for it.",
            "Explain a cell of a run of your own.",
        )
    return _show(explain(cell_of(record), record), console)


def explain_options(changes: Mapping[str, Any], data: str | None, console: Console) -> int:
    """Print what the cell with the given options would do, the demo's where an option is left out.

    Raises:
        RequestError: the options name no cell, or several.
    """
    usual = {"datasets": ("demo",), "attacks": ("badnets",), "models": ("minilm-l6",), "defenders": ("vanilla",)}
    plan = plan_of(Request(grid="demo", changes={**usual, "poison_ratios": (0.1,), **changes}, data=data))
    if len(plan.cells) > 1:
        raise RequestError(f"These options name {len(plan.cells)} cells.", "Name one value on each axis.")
    ((key, cell),) = plan.cells.items()
    if key in plan.impossible:
        raise RequestError(plan.impossible[key].problem, plan.impossible[key].remedy)
    return _show(explain(cell), console)


def _sources(record: Mapping[str, Any]) -> list[str]:
    """Return where the plug-ins of a record's cell come from, those of a chain's links too."""
    cell = record["cell"]
    links = cell["defense"].get("options", {}).get("links", [])
    parts = [cell["attack"], cell["defense"], *(link for link in links if isinstance(link, dict))]
    return [source for part in parts if isinstance(source := part.get("source", ""), str)]


def _show(lines: list[str], console: Console) -> int:
    for line in lines:
        console.print(line, markup=False, highlight=False)
        console.print()
    return 0
