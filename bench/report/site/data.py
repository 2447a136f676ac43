"""The cells as compact JSON: what many cells share stands once and is referred to by its place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.core.metrics import wilson
from bench.report.paper import printed_name
from bench.report.records import PLUGINS, Record, canonical
from bench.report.site.command import template

# The row of a cell: what the table of cells shows, then places in `shared`, then what only the cell's own view shows.
COLUMNS = (
    *("key", "dataset", "model", "attack", "defense", "ratio", "rule", "target", "seed", "recipe", "precision"),
    "analysis",
    *("cacc", "asr", "floor", "seconds", "memory", "parameters", "status", "trained"),
)
SHARED = (
    *(f"{axis}_options" for axis in (*PLUGINS, "analysis")),
    *("command", "knowledge", "poison", "environment", "data", "error"),
)
DETAIL = ("metrics", "flip", "cost", "limit", "oracle")
_KINDS = {"dataset": "datasets", "model": "models", "attack": "attacks", "defense": "defenses"}
_RATES = ("cacc", "asr", "asr_floor", "frr", "far", "auroc")
_COSTS = ("train_seconds", "total_seconds", "peak_memory_mb", "trainable_parameters", "samples_per_second", "steps")


class _Shared:
    """Values by place; equal ones share theirs."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        text = canonical(value)
        if text not in self._places:
            self._places[text] = len(self.values)
            self.values.append(value)
        return self._places[text]


def site_data(records: Sequence[Record]) -> dict[str, Any]:
    """Return the content of the site's data block for records, sorted by key: columns, rows, shared values, names."""
    shared = _Shared()
    rows = [_row(record, shared) for record in sorted(records, key=lambda item: item["key"])]
    printed = {
        axis: {name: printed_name(kind, name) for name in sorted({record["cell"][axis]["name"] for record in records})}
        for axis, kind in _KINDS.items()
    }
    return {"columns": [*COLUMNS, *SHARED, *DETAIL], "rows": rows, "shared": shared.values, "names": printed}


def _row(record: Record, shared: _Shared) -> list[Any]:
    cell, cost, metrics = record["cell"], record.get("cost") or {}, record.get("metrics") or {}
    analysis = cell.get("analysis") or {}
    shown = [
        *(cell[axis]["name"] for axis in ("dataset", "model", "attack", "defense")),
        *(cell[name] for name in ("poison_ratio", "label_rule", "target_label", "seed", "recipe", "precision")),
        analysis.get("name"),
        *(_percent(metrics.get(name)) for name in ("cacc", "asr", "asr_floor")),
        *(_number(cost.get(name)) for name in ("train_seconds", "peak_memory_mb", "trainable_parameters")),
        record["status"],
        record.get("trained"),
    ]
    referred = [
        *(cell[axis].get("options") or {} for axis in PLUGINS),
        analysis.get("options") or {},
        template(record),
        record.get("knowledge"),
        record.get("poison"),
        record.get("environment"),
        record.get("dataset_info"),
        _error(record),
    ]
    detail = [
        _rates(record.get("metrics")),
        _rates(record.get("metrics_flip")),
        [_number(cost.get(name)) for name in _COSTS],
        cell["limit"],
        bool(record.get("oracle")),
    ]
    return [record["key"], *shown, *(shared.place(value) for value in referred), *detail]


def _rates(metrics: dict[str, Any] | None) -> list[Any] | None:
    """Return [value, low, high, hits, n] in percent of CACC, ASR, floor, FRR and FAR, and AUROC as [value]; or None."""
    if not metrics:
        return None
    found: list[Any] = []
    for name in _RATES:
        entry = metrics.get(name)
        if isinstance(entry, (int, float)):
            found.append([round(entry, 4)])
        elif not entry or entry.get("value") is None:
            found.append(None)
        elif isinstance(entry.get("hits"), int) and isinstance(entry.get("n"), int):
            low, high = wilson(entry["hits"], entry["n"])
            found.append([_percent(entry), round(100 * low, 2), round(100 * high, 2), entry["hits"], entry["n"]])
        else:
            found.append([_percent(entry)])
    return found


def _percent(entry: Any) -> float | None:
    return None if not entry or entry.get("value") is None else round(100 * entry["value"], 2) + 0.0


def _number(value: Any) -> float | int | None:
    return round(value, 2) if isinstance(value, float) else value


def _error(record: Record) -> dict[str, str] | None:
    error = record.get("error")
    return {name: str(error.get(name) or "") for name in ("type", "message", "remedy", "stage")} if error else None


def script_json(value: Any) -> str:
    """Return JSON that may stand in a script element: no `<`, and no line separator that only JSON allows."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
