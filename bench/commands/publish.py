"""Writing what the report layer renders: the tables of a run, and the leaderboard."""

from __future__ import annotations

import contextlib
import gc
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.core.errors import RequestError
from bench.report.compare import title
from bench.report.exports import exports
from bench.report.ledger import Ledger
from bench.report.records import Record, distinct, load_records
from bench.report.references import axis_value, what_there_is
from bench.report.render import render
from bench.report.site.build import site

RECORDS, FIGURES = "records.jsonl", "figures"
HAND_WRITTEN = ("DEVIATIONS.md", "RECIPES.md")


def write_tables(out: Path, folder: Path, every_table: bool = False) -> list[Path]:
    """Write the tables of the records under `out`; return the files."""
    return _write(folder, render(load_records(_records(out)), every_table, of_a_run=True))


def show_tables(out: Path, every_table: bool, chosen: Mapping[str, Sequence[Any]], console: Console) -> int:
    """Write the tables of a run, of the records on the chosen axes alone, and name the files."""
    records = load_records(_records(out))
    kept = [record for record in records if all(_on(record, axis, values) for axis, values in chosen.items())]
    if records and not kept:
        raise _none_on(records, chosen)
    for path in _write(out / "tables", render(kept, every_table, of_a_run=True)):
        console.print(f"table: {path}", markup=False, highlight=False)
    return 0


AXES = {"datasets": "dataset", "attacks": "attack", "defenders": "defense", "models": "model"}
SCALARS = {"poison_ratios": "poison_ratio", "seeds": "seed", "label_rules": "label_rule", "recipes": "recipe"}
SCALARS |= {"target_labels": "target_label", "precisions": "precision"}


def _on(record: Mapping[str, Any], axis: str, values: Sequence[Any]) -> bool:
    """Tell whether a record lies on one of the values of an axis, named as in a grid."""
    return axis_value(record, AXES.get(axis) or SCALARS[axis]) in values


def _none_on(records: Sequence[Mapping[str, Any]], chosen: Mapping[str, Sequence[Any]]) -> RequestError:
    """Return the error for axes that no record is on: the axis to blame, and what the records have on it."""
    for axis, values in chosen.items():
        name = AXES.get(axis) or SCALARS[axis]
        found = {str(axis_value(record, name)) for record in records}
        if not found & {str(value) for value in values}:
            problem = f"None of the {len(records)} records has {' or '.join(map(str, values))} as {name}."
            return RequestError(problem, what_there_is(name, values[0], found))
    return RequestError(f"None of the {len(records)} records is on the chosen axes.", "Choose fewer, or others.")


def publish_run(out: Path, to: Path, console: Console) -> int:
    """Merge the records of a run into a leaderboard folder and write every table of it."""
    with _no_search_for_garbage():
        written, said = _leaderboard(out, to)
    for path in _write(to, {**_beside(to), **written, **_figures(out, to)}):
        console.print(f"published: {path}", markup=False, highlight=False)
    console.print(said, markup=False, highlight=False)
    return 0


@contextlib.contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """Put off the search for cycles: all records are kept, and to look at them again costs a sixth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _leaderboard(out: Path, to: Path) -> tuple[dict[str, str], str]:
    """Return file name -> text of a leaderboard of the records published and those of a run, and how many there are."""
    published = to / RECORDS
    # A merge of two branches may leave two lines of one cell; in a folder each has its own file.
    merged = {record["key"]: record for record in distinct(load_records(published))[0]} if published.is_file() else {}
    found = distinct(load_records(_records(out)))[0]
    whole = [record for record in found if record["cell"]["limit"] is None]
    new = len({record["key"] for record in whole} - set(merged))
    added, told = _added(merged, whole)
    merged |= {record["key"]: _without_machine(record) for record in added}
    lines = [json.dumps(merged[key], sort_keys=True, ensure_ascii=False, allow_nan=False) for key in sorted(merged)]
    ledger = Ledger(list(merged.values()))
    pages = render(ledger, every_table=True)
    written = {RECORDS: "".join(f"{line}\n" for line in lines), **pages}
    left = f"; {len(found) - len(whole)} with a row limit were left out" if len(whole) < len(found) else ""
    said = f"{told}{len(whole)} records of {out}, {new} of them new{left}; {len(merged)} are published"
    return written | exports(ledger, pages) | site(ledger, pages), said


def _added(published: Mapping[str, Record], found: Sequence[Record]) -> tuple[list[Record], str]:
    """Return the records to publish, and lines on those of published cells: a failure takes no result's place.

    A result takes the place of another one of its cell, since a stage may have changed, but never in silence.
    """
    results = [record for record in found if published.get(record["key"], {}).get("status") == "ok"]
    failed = {record["key"]: record for record in results if record["status"] != "ok"}
    changed = [record for record in results if record["metrics"] != published[record["key"]]["metrics"]]
    lines = [f"kept: {title(record)}, which failed here" for record in failed.values()]
    lines += [f"replaced by other numbers: {title(record)}" for record in changed if record["key"] not in failed]
    return [record for record in found if record["key"] not in failed], "".join(f"{line}\n" for line in lines)


def _figures(out: Path, to: Path) -> dict[str, Path]:
    """Return file name -> drawing, of what `bench figures` drew of a run that is not the leaderboard itself."""
    source = out / FIGURES
    if not source.is_dir() or source.resolve() == (to / FIGURES).resolve():
        return {}
    drawn = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
    return {f"{FIGURES}/{path.name}": path for path in drawn}


def _beside(to: Path) -> dict[str, str]:
    """Return the pages written by hand that belong to a leaderboard and that the folder lacks."""
    packaged = files("bench.report")
    folder = packaged if (packaged / HAND_WRITTEN[0]).is_file() else Path(__file__).parents[2] / "leaderboard"
    missing = [name for name in HAND_WRITTEN if not (to / name).is_file() and (folder / name).is_file()]
    return {name: (folder / name).read_text(encoding="utf-8") for name in missing}


def _without_machine(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record without tracebacks: they hold paths of the machine that made it."""
    error = record["error"]
    return {**record, "error": None if error is None else {**error, "traceback": None}}


def _records(out: Path) -> Path:
    folder = out / "records"
    if not folder.is_dir() and (out / RECORDS).is_file():
        return out / RECORDS  # a published leaderboard: `publish --out leaderboard --to leaderboard` renews its pages
    if not folder.is_dir():
        raise RequestError(f"There are no records under {out}.", "Run a grid first, or name its folder with --out.")
    return folder


def _write(folder: Path, pages: Mapping[str, str | Path]) -> Sequence[Path]:
    """Write texts, and copies of files, into a folder: a full disk, or an end in between, leaves none cut short."""
    drafts = {folder / name: (folder / name).with_name(f".{Path(name).name}.{uuid.uuid4().hex}") for name in pages}
    try:
        for draft, content in zip(drafts.values(), pages.values(), strict=True):
            draft.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, draft)
            else:
                draft.write_text(content, encoding="utf-8", newline="\n")
        for path, draft in drafts.items():
            draft.replace(path)
    except OSError as error:
        remedy = "Free disk space, or name a folder that can be."
        raise RequestError(f"{folder} cannot be written: {error.strerror}.", remedy) from None
    finally:
        for draft in drafts.values():
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
    return list(drafts)
