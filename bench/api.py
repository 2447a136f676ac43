"""The suite from Python: what the command line does, as functions that return values and print nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.commands.adapter import save_adapter
from bench.commands.compare import compare
from bench.commands.run import Request, carry_out, folder_of, plan_of
from bench.engine.plan import Plan
from bench.report.export import to_dataset, to_every_eval_ever, to_pandas
from bench.report.records import Record, load_records

__all__ = [
    "compare",
    "load_records",
    "plan_grid",
    "run_grid",
    "save_adapter",
    "to_dataset",
    "to_every_eval_ever",
    "to_pandas",
]

Choices = Sequence[str | Mapping[str, Any]] | None


def plan_grid(
    grid: str | Path,
    *,
    datasets: Choices = None,
    attacks: Choices = None,
    defenders: Choices = None,
    models: Choices = None,
    poison_ratios: Sequence[float] | None = None,
    seeds: Sequence[int] | None = None,
    label_rules: Sequence[str] | None = None,
    target_labels: Sequence[int] | None = None,
    recipes: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    limit: int | None = None,
    data: str | Path | None = None,
) -> Plan:
    """Return the cells and unique stages of a grid (a name of configs/grids, or a YAML file); nothing is run.

    An axis that is given replaces the grid's; `settings` are options by `axis.option`, as after `--set`.

    Raises:
        RequestError: a name, an option or a value that does not exist or does not fit.
    """
    axes = {
        "datasets": datasets,
        "attacks": attacks,
        "defenders": defenders,
        "models": models,
        "poison_ratios": poison_ratios,
        "seeds": seeds,
        "label_rules": label_rules,
        "target_labels": target_labels,
        "recipes": recipes,
        "precisions": precisions,
    }
    return plan_of(
        Request(grid=str(grid), changes=_changes(axes, settings, limit), data=None if data is None else str(data))
    )


def run_grid(
    grid: str | Path,
    *,
    out: str | Path | None = None,
    datasets: Choices = None,
    attacks: Choices = None,
    defenders: Choices = None,
    models: Choices = None,
    poison_ratios: Sequence[float] | None = None,
    seeds: Sequence[int] | None = None,
    label_rules: Sequence[str] | None = None,
    target_labels: Sequence[int] | None = None,
    recipes: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    limit: int | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    engine: str = "inline",
    workers: int | None = None,
    keep_weights: bool = False,
    retry_failed: bool = False,
) -> list[Record]:
    """Run what is missing of a grid and return the record of every cell that it came to, in the order of the plan.

    `engine` is `inline` here, this process, so that a notebook or a script without a `__main__` guard can call it;
    the others start processes. A cell that fails is a record with `status` "failed", and raises nothing.

    Raises:
        RequestError: the request is wrong, or no cell can run; nothing is written then.
        UnwritableError: the disk is full or read-only; nothing that was finished is lost.
    """
    axes = {
        "datasets": datasets,
        "attacks": attacks,
        "defenders": defenders,
        "models": models,
        "poison_ratios": poison_ratios,
        "seeds": seeds,
        "label_rules": label_rules,
        "target_labels": target_labels,
        "recipes": recipes,
        "precisions": precisions,
    }
    request = Request(
        grid=str(grid),
        changes=_changes(axes, settings, limit),
        out=None if out is None else Path(out),
        data=None if data is None else str(data),
        device=device,
        engine=engine,
        workers=workers,
        keep_weights=keep_weights,
        retry_failed=retry_failed,
    )
    carry_out(request, Console(quiet=True))
    found = {record["key"]: record for record in load_records(folder_of(request.grid, request.out))}
    return [found[key] for key in plan_of(request).cells if key in found]


def _changes(axes: Mapping[str, Any], settings: Mapping[str, Any] | None, limit: int | None) -> dict[str, Any]:
    """Return the axes that are given as a grid file would hold them; one value stands for a list of one."""
    single = (str, int, float, Mapping)
    changes: dict[str, Any] = {
        axis: (values,) if isinstance(values, single) else tuple(values)
        for axis, values in axes.items()
        if values is not None
    }
    if limit is not None:
        changes["limit"] = limit
    if settings:
        changes["set"] = dict(settings)
    return changes
