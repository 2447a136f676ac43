"""The text of leaderboard/FINDINGS.md, its tables, and the published records that it speaks of."""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "leaderboard"
ATTACKS = ("badnets", "hiddenkiller", "addsent")
LONGER = "10 epochs, rate 0.0005"
TEXT = (FOLDER / "FINDINGS.md").read_text(encoding="utf-8")


def rows() -> list[dict[str, str]]:
    """Return the rows of every table that names cells, by column."""
    found, head = [], []
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            head = []
        elif not head:
            head = cells
        elif set(cells[0]) - set(":- "):
            found.append(dict(zip(head, cells, strict=True)))
    return [row for row in found if {"Attack", "Defense"} <= row.keys()]


@functools.cache
def writer() -> Any:
    """Return the module that writes the tables."""
    folder = str(FOLDER.parent / "docs")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("findings")
    finally:
        sys.path.remove(folder)


@functools.cache
def records() -> dict[tuple[str, str, float, str], dict[str, Any]]:
    """Return the published records of the findings' board by attack, defense, poison ratio and cell."""
    held: dict[tuple[str, str, float, str], dict[str, Any]] = writer().records()
    return held


def by_seed(attack: str, defense: str) -> list[dict[str, Any]]:
    """Return the records of an attack and a defense at ratio 0.1 by seed; `lora, longer` are the longer trainings."""
    name, _, longer = defense.partition(", ")
    found = [
        record
        for (one, other, ratio, cell), record in records().items()
        if (one, other, ratio) == (attack, name, 0.1)
        and cell in ("default", "seed 1", "seed 2", *(f"{LONGER}{seed}" for seed in ("", ", seed 1", ", seed 2")))
        and cell.startswith(LONGER) == bool(longer)
    ]
    assert not longer or {record["cell"]["model"]["options"]["epochs"] for record in found} <= {10}
    return sorted(found, key=lambda record: record["cell"]["seed"])


def percent(record: dict[str, Any], name: str) -> float:
    """Return a metric in percent, or as `dev` the accuracy by which the checkpoint was chosen."""
    if name == "dev":
        return 100 * float(max(record["cost"]["selection_accuracies"]))
    return 100 * float(record["metrics"][name]["value"])


def lines_under(head: str) -> list[list[str]]:
    """Return the rows of all tables whose head holds `head`, in order."""
    parts = [part.split("\n\n")[0].splitlines()[2:] for part in TEXT.split(head)[1:]]
    return [[cell.strip() for cell in line.strip("|").split("|")] for lines in parts for line in lines]
