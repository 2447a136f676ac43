"""The published numbers, packaged: Wu, Zhang, Cheng, Liu, ACL 2024, doi 10.18653/v1/2024.acl-long.441.

`paper_results.csv` and `paper_settings.json` hold the tables of the submission version and its table numbers;
the published version may differ.
"""

from __future__ import annotations

import csv
import functools
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

SOURCE = (
    "Wu, Zhang, Cheng, Liu, *Acquiring Clean Language Models from Backdoor Poisoned Datasets by Downscaling Frequency "
    "Space*, ACL 2024, [doi 10.18653/v1/2024.acl-long.441](https://doi.org/10.18653/v1/2024.acl-long.441), in the "
    "table numbers and values of its submission version"
)


@dataclass(frozen=True)
class Published:
    """One printed cell: CACC and ASR in percent, and the check marks (MS, LR, GA) of an ablation table."""

    cacc: float
    asr: float
    checks: tuple[bool, bool, bool] | None


Setting = tuple[str, str, str, str]  # dataset, model, attack, defense


@functools.cache
def _tables() -> dict[int, dict[Setting, Published]]:
    text = (files("bench.report") / "paper_results.csv").read_text(encoding="utf-8")
    tables: dict[int, dict[Setting, Published]] = {}
    for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
        checks = (row["ms"] == "1", row["lr"] == "1", row["ga"] == "1") if row["ms"] else None
        setting = (row["dataset"], row["model"], row["attack"], row["defense"])
        tables.setdefault(int(row["table"]), {})[setting] = Published(float(row["cacc"]), float(row["asr"]), checks)
    return tables


@functools.cache
def settings() -> dict[str, Any]:
    """Return Table 5, Table 6, the hyperparameters and the printed names, by identifier."""
    return json.loads((files("bench.report") / "paper_settings.json").read_text(encoding="utf-8"))


def published_table(table: int) -> dict[Setting, Published]:
    """Return the cells of a table by (dataset, model, attack, defense), in the order in which they are printed."""
    return dict(_tables().get(table, {}))


def published(table: int, dataset: str, model: str, attack: str, defense: str) -> tuple[float, float] | None:
    """Return the printed (CACC, ASR) in percent, or None where that table does not have the setting."""
    cell = _tables().get(table, {}).get((dataset, model, attack, defense))
    return None if cell is None else (cell.cacc, cell.asr)


def order(kind: str, identifiers: set[str]) -> list[str]:
    """Return identifiers of "datasets", "models", "attacks" or "defenses": the paper's in its order, then others."""
    known = [name for name in settings()[kind] if name in identifiers]
    return known + sorted(identifiers - set(known))


def printed_name(kind: str, identifier: str, ablation: bool = False) -> str:
    """Return the name under which the paper prints an identifier of `kind`, or the identifier itself if it has none.

    The parts of an ablation have one in the ablation tables alone.
    """
    entry = settings()[kind].get(identifier, {})
    name = identifier if entry.get("kind") == "ablation" else entry.get("name", identifier)
    return entry.get("ablation_name", name) if ablation else name
