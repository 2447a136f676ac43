"""Naming records on the command line: `RUN`, `RUN#KEY` or `RUN#axis=value,axis=value`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.errors import RequestError, unknown
from bench.engine.plugins import split_list, value_of
from bench.report.records import AXES, PLUGINS, Record, distinct, load_records

FORMS = "Write RUN, RUN#KEY or RUN#axis=value, where RUN is a run's folder, a record's file or a records.jsonl."
KEY = re.compile(r"[0-9a-f]{1,64}")


@dataclass(frozen=True)
class Reference:
    """The records that a reference names, the axes that it fixes, and the store of their run where there is one."""

    text: str
    records: tuple[Record, ...]
    fixed: frozenset[str]
    store: Path | None


def resolve(text: str) -> Reference:
    """Return what a reference names.

    Raises:
        BenchError: there are no records, an axis does not exist, or no record is on it.
    """
    where, mark, selection = text.partition("#")
    if not where or (mark and not selection):
        raise RequestError(f"{text!r} names no records.", FORMS)
    path = Path(where)
    try:
        records, _ = distinct(load_records(path))
    except (OSError, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{where!r} cannot be read: {error}.", FORMS) from None
    if not records:
        raise RequestError(f"There are no records in {where}.", "Run a grid first.")
    fixed: dict[str, Any] = {}
    if "=" in selection:
        fixed = _fixed(selection)
        records = [record for record in records if all(_on(record, axis, value) for axis, value in fixed.items())]
    elif selection:
        records = _with_key(records, selection)
    if not records:
        raise _none_at(where, selection, fixed, path)
    return Reference(text, tuple(records), frozenset(fixed), _store(path))


def one(text: str) -> tuple[Record, Reference]:
    """Return the only record that a reference names.

    Raises:
        RequestError: it names several, or none.
    """
    found = resolve(text)
    if len(found.records) > 1:
        keys = ", ".join(record["key"][:12] for record in found.records[:5])
        raise RequestError(
            f"{text!r} names {len(found.records)} records: {keys} ...",
            "Name one by its key: RUN#KEY, a prefix will do.",
        )
    return found.records[0], found


def _fixed(selection: str) -> dict[str, Any]:
    fixed = {}
    for item in split_list(selection):
        axis, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not value:
            raise RequestError(f"{item!r} says no value.", "Write axis=value.")
        if axis not in (*PLUGINS, *AXES):
            raise unknown("axis", axis, (*PLUGINS, *AXES))
        fixed[axis] = value if axis in PLUGINS else value_of(value)
    return fixed


def _on(record: Record, axis: str, value: Any) -> bool:
    return axis_value(record, axis) == value


def _none_at(where: str, selection: str, fixed: Mapping[str, Any], path: Path) -> RequestError:
    """Return the error for a selection that no record is at: the axis to blame, and the nearest value on it."""
    for axis, value in fixed.items():
        found = {str(axis_value(record, axis)) for record in load_records(path)}
        if str(value) not in found:
            return RequestError(f"No record of {where} is at {axis}={value}.", what_there_is(axis, value, found))
    return RequestError(f"No record of {where} is at {selection!r}.", "`bench table` shows what a run holds.")


def what_there_is(axis: str, value: Any, found: Collection[str]) -> str:
    """Return the remedy for a value that no record has on an axis: the nearest name, or the numbers there are."""
    return unknown(axis, value, found).remedy if isinstance(value, str) else f"There are: {', '.join(sorted(found))}."


def axis_value(record: Record, axis: str) -> Any:
    """Return where a record stands on an axis: a plug-in's name, or a value."""
    found = record["cell"][axis]
    return found["name"] if axis in PLUGINS else found


def _with_key(records: list[Record], prefix: str) -> list[Record]:
    if not KEY.fullmatch(prefix):
        raise RequestError(f"{prefix!r} is neither a key nor axis=value.", FORMS)
    found = [record for record in records if record["key"].startswith(prefix)]
    if len(found) > 1:
        raise RequestError(f"{len(found)} records have a key that begins with {prefix}.", "Write more of the key.")
    return found


def _store(path: Path) -> Path | None:
    """Return the store beside the records, None for records without one (published ones)."""
    folders = (path, path.parent) if path.is_dir() else (path.parent.parent, path.parent)
    return next((folder / "store" for folder in folders if (folder / "store").is_dir()), None)
