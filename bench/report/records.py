"""Reading records: the JSON files that a run leaves, one per cell, and the axes by which tables group them."""

from __future__ import annotations

import functools
import json
import marshal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError
from bench.core.paths import is_file, is_folder
from bench.report.record_form import form_fault

SCHEMA_VERSION = 1
OF_A_RUN = ("requests.json", "store")  # what a run leaves in its folder before its first record
Record = dict[str, Any]
PLUGINS = ("dataset", "attack", "model", "defense")
AXES = ("poison_ratio", "label_rule", "target_label", "seed", "recipe", "precision", "limit")


def load_records(path: Path | str) -> list[Record]:
    """Read every record of a run's folder, of its `records/` folder, of a `records.jsonl` (one a line) or one `.json`.

    Returns:
        the records, in the order of the file names or lines.

    A run that has finished no cell yet has none.

    Raises:
        BenchError: there is no such path, or a record cannot be read; the message names the file (and line).
    """
    path = Path(path)
    if is_folder(path):
        inside = path / "records"
        if not inside.is_dir() and (path / "records.jsonl").is_file():
            return _lines(path / "records.jsonl")
        if not inside.is_dir() and any((path / name).exists() for name in OF_A_RUN):
            return []  # nothing of the run is finished
        files = sorted((inside if inside.is_dir() else path).glob("*.json"))
        return [_checked(_read(file), str(file)) for file in files]
    if is_file(path) and path.suffix not in (".json", ".jsonl"):
        raise BenchError(f"{path} holds no records.", "Name the folder given to `run --out`, or a records.jsonl.")
    if is_file(path):
        return [_checked(_read(path), str(path))] if path.suffix == ".json" else _lines(path)
    raise BenchError(f"There are no records at {path}.", "Name the folder given to `run --out`, or a records.jsonl.")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"The records file {file} cannot be read: {error}.", "Restore or delete it.") from None


def _lines(file: Path) -> list[Record]:
    # Not splitlines(): a JSON string may hold U+2028, which is a line break to Python only.
    lines = enumerate(_read(file).split("\n"), start=1)
    return [_checked(line, f"{file}, line {number}") for number, line in lines if line.strip()]


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _checked(text: str, where: str) -> Record:
    try:
        record = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{where} is not a JSON record: {error}.", "Delete it and run the grid again.") from None
    problem = fault(record)
    if problem:
        raise BenchError(f"{where} is not a record: {problem}.", "Delete it and run the grid again.")
    return record


def fault(record: object) -> str:
    """Return what is wrong with the form of a record in a few words, or "" for a good one."""
    if not isinstance(record, dict):
        return "it is not a JSON object"
    if record.get("schema_version") != SCHEMA_VERSION:
        return f"schema_version is {record.get('schema_version')!r} and must be {SCHEMA_VERSION}"
    if record.get("status") not in ("ok", "failed"):
        return f"status is {record.get('status')!r} and must be 'ok' or 'failed'"
    if not isinstance(record.get("key"), str):
        return "key is missing"
    cell = record.get("cell")
    if not isinstance(cell, dict):
        return "cell is missing"
    for name in PLUGINS:
        plugin = cell.get(name)
        if not isinstance(plugin, dict) or not isinstance(plugin.get("name"), str):
            return f"cell.{name} has no name"
    missing = [name for name in AXES if name not in cell]
    if missing:
        return f"cell lacks {', '.join(missing)}"
    if not _is_number(cell["poison_ratio"]) or not isinstance(cell["seed"], int):
        return "cell.poison_ratio or cell.seed is not a number"
    if not isinstance(cell["recipe"], str) or not isinstance(cell["precision"], str):
        return "cell.recipe or cell.precision is not a text"
    for group in ("metrics", "metrics_flip"):
        problem = _metrics_fault(record.get(group), group, needed=record["status"] == "ok" and group == "metrics")
        if problem:
            return problem
    return form_fault(record)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _metrics_fault(metrics: object, group: str, needed: bool) -> str:
    if metrics is None:
        return f"{group} is missing" if needed else ""
    if not isinstance(metrics, dict):
        return f"{group} is not an object"
    for name in ("cacc", "asr", "asr_floor"):
        entry = metrics.get(name)
        if entry is None:
            continue
        value = entry.get("value") if isinstance(entry, dict) else "not an object"
        if value is not None and not (_is_number(value) and 0.0 <= value <= 1.0):
            return f"{group}.{name} is {value!r} and must be a fraction in [0, 1]"
    return ""


def usable(record: Mapping[str, Any]) -> bool:
    """Tell whether a table may take the record: it is whole (no `limit`) and its cell succeeded."""
    return record["status"] == "ok" and record["cell"]["limit"] is None


def metric(record: Mapping[str, Any], name: str, group: str = "metrics") -> float | None:
    """Return a metric as a fraction in [0, 1], or None where it was not measured."""
    entry = (record.get(group) or {}).get(name)
    return None if entry is None or entry.get("value") is None else float(entry["value"])


def names(record: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return the displayed key of a cell: (dataset, model, attack, defense)."""
    cell = record["cell"]
    return cell["dataset"]["name"], cell["model"]["name"], cell["attack"]["name"], cell["defense"]["name"]


def canonical(value: Any) -> str:
    """Return the one JSON text of a value: equal values have equal texts."""
    # Many records hold equal parts, and their bytes are made ten times faster than a sorted text. Version 2 of the
    # bytes is the last that does not depend on which strings are one object.
    try:
        return _text_of(marshal.dumps(value, 2))
    except (ValueError, TypeError):  # a number of numpy, a member of an enumeration: JSON to json, not to marshal
        return _text(value)


@functools.lru_cache(maxsize=1 << 13)
def _text_of(content: bytes) -> str:
    return _text(marshal.loads(content))


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def distinct(records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """Return the records sorted by key, each cell once, and the records that said something else about a kept cell.

    Of several records of one cell a success wins over a failure, so that a retry replaces what it retried.
    """
    by_key: dict[str, list[Record]] = {}
    for record in records:
        by_key.setdefault(record["key"], []).append(record)
    kept, others = [], []
    for _, same in sorted(by_key.items()):
        first, *rest = same if len(same) == 1 else sorted(same, key=lambda one: (one["status"] != "ok", canonical(one)))
        kept.append(first)
        others += [record for record in rest if canonical(record) != canonical(first)]
    return kept, others
