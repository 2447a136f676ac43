"""Where the record of a cell is kept: read, written whole or not at all, and compared."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.core.spec import Cell
from bench.engine.network_files import steadily
from bench.engine.store import DAMAGED, Store, StoreError, unwritable, write_json

SCHEMA_VERSION = 1


def record_path(out: Path, cell: Cell) -> Path:
    """Return the file of a cell's record."""
    return out / "records" / f"{cell.key}.json"


def read_record(path: Path) -> dict[str, Any] | None:
    """Return a record, None where there is no file.

    Raises:
        StoreError: the file is no record.
    """
    try:
        record = json.loads(steadily(lambda: path.read_text("utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise StoreError(f"Record {path.name} is damaged.", "Delete it and run again.") from error
    if not isinstance(record, dict) or record.get("key") != path.stem or not {"status", "stages"} <= record.keys():
        raise StoreError(f"Record {path.name} is damaged.", "Delete it and run again.")
    if record.get("schema_version") != SCHEMA_VERSION:
        raise StoreError(f"Record {path.name} is of another version.", "Delete it and run again.")
    return record


def write_record(out: Path, record: Mapping[str, Any]) -> None:
    """Write a record into its file, whole or not at all."""
    path = out / "records" / f"{record['key']}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path.parent.name, error) from error
    write_json(path, record)


def set_aside_record(path: Path, store: Store) -> None:
    """Move a damaged record out of the way; `bench clean` frees it."""
    aside = store.root / DAMAGED / f"{path.name}.{uuid.uuid4().hex}"
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        path.rename(aside)
    except OSError as error:
        raise unwritable(f"Record {path.name}", error) from error


def comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a record repeats bit for bit on a CPU: all but seconds, rates, memory and environment."""
    kept = {name: value for name, value in record.items() if name not in ("environment", "cost")}
    cost = record.get("cost") or {}
    return {
        **kept,
        "cost": {name: cost.get(name) for name in ("trainable_parameters", "selection_accuracies", "steps")},
    }
