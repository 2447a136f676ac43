"""The user's own data: a table file, a folder of them, or a data set of the hub. Its content is its identity."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.core.errors import DataError, RequestError
from bench.core.example import Example
from bench.core.options import Index, Options, Text, build
from bench.core.paths import is_folder, is_name
from bench.core.seeding import digest
from bench.data.hub import ALIASES, is_saved, read_hub
from bench.data.readers import Row
from bench.data.spec import DEV, SPLITS, TEST, TRAIN, DatasetSpec
from bench.data.splits import outside, stratified
from bench.data.tables import SUFFIXES, Entry, by_name, class_names, label_of, read_table

HUB = "hub:"
SMALLEST = 20  # rows from which dev or test is cut: a tenth then has one row of each of two equal classes


@dataclass(frozen=True)
class CustomOptions(Options):
    """How to read a custom data set; the options decide its content and are no part of its identity."""

    text_column: Text = "text"
    label_column: Text = "label"
    classes: tuple[Text, ...] = ()  # class names in the order of their labels; empty: taken from the data
    split_seed: Index = 0  # of the splits that the data do not come with
    configuration: str = ""  # hub only
    revision: str = ""  # hub only: a commit, to pin what is downloaded


@dataclass(frozen=True)
class CustomSpec(DatasetSpec):
    """A custom data set: `content` is the digest of its parsed rows and classes, the rest says where they are."""

    content: str = ""
    source: str = ""  # `hub:ID`, or the absolute path of a file or folder
    reading: CustomOptions = CustomOptions()

    def identity(self) -> dict[str, Any]:
        """Return what decides the rows: their digest. Path, file format and column names do not."""
        return {"name": self.name, "format": self.format, "classes": list(self.classes), "content": self.content}

    __hash__ = DatasetSpec.__hash__


class Content(NamedTuple):
    """The parsed rows of a custom data set."""

    classes: tuple[str, ...]
    splits: dict[str, list[Row]]

    def digest(self) -> str:
        """Return the sha256 over classes and splits, each row with its number, text and label."""
        rows = {split: [[row.row, *row.example[:2]] for row in self.splits[split]] for split in SPLITS}
        return digest(self.classes, rows)


def custom_spec(name: str, options: Mapping[str, Any]) -> CustomSpec:
    """Return the spec of a custom data set (`hub:ID`, a file or a folder), after reading it.

    Raises:
        RequestError: a wrong option, or a name that is none of these.
        DataError: it cannot be read; the message names file and row.
    """
    reading = build(CustomOptions, options, "dataset", name)
    if not is_name(name):
        raise RequestError(f"{name!r} is no data set: no file can have this name.", "Name a file, a folder or hub:ID.")
    if name.startswith(HUB) and not name.removeprefix(HUB).strip("/ "):
        raise RequestError(f"{name!r} names no data set of the hub.", "Write hub:ID, hub:stanfordnlp/sst2 for example.")
    source = name if name.startswith(HUB) else str(Path(name).resolve())
    content = _read(source, reading)
    key = content.digest()
    return CustomSpec(
        name=f"custom-{key[:12]}", format="custom", classes=content.classes, content=key, source=source, reading=reading
    )


def load_custom(spec: CustomSpec) -> Content:
    """Return the rows of a custom data set.

    Raises:
        DataError: it cannot be read, or its rows are not those of the spec.
    """
    content = _read(spec.source, spec.reading)
    if content.digest() != spec.content:
        raise DataError(
            f"{spec.source} has changed since {spec.name!r} was planned.", "Start again: it is another data set now."
        )
    return content


def _read(source: str, reading: CustomOptions) -> Content:
    if source.startswith(HUB):
        identifier = source.removeprefix(HUB)
        tables = read_hub(
            identifier,
            reading.configuration,
            reading.revision,
            reading.text_column,
            reading.label_column,
            reading.classes,
        )
        return _content(source, tables.entries, reading, tables.classes, tables.named)
    path = Path(source)
    if is_folder(path) and is_saved(path):
        return _read(HUB + source, reading)
    if is_folder(path):
        tables_by_split = {split: _table(file, reading) for split, file in _files(path).items()}
    elif path.suffix.lower() in SUFFIXES:
        tables_by_split = {TRAIN: _table(path, reading)}
    else:
        raise RequestError(
            f"{source} is no data set: it is neither a folder nor a {', '.join(SUFFIXES)} file.",
            "Give such a file, a folder with train, dev and test, or hub:ID.",
        )
    return _content(source, tables_by_split, reading, reading.classes)


def _table(path: Path, reading: CustomOptions) -> list[Entry]:
    return read_table(path, reading.text_column, reading.label_column)


def _files(folder: Path) -> dict[str, Path]:
    """Return the file of each split in a folder.

    Raises:
        DataError: two files for one split, no training file, or a dev file without a test file.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        split = ALIASES.get(path.stem.lower())
        if split is None or path.suffix.lower() not in SUFFIXES:
            continue
        if split in found:
            raise DataError(f"{folder} has two {split} files, {found[split].name} and {path.name}.", "Remove one.")
        found[split] = path
    if TRAIN not in found or (DEV in found and TEST not in found):
        missing = TRAIN if TRAIN not in found else TEST
        raise DataError(
            f"{folder} has no {missing} file ({missing}.csv, {missing}.tsv or {missing}.jsonl).",
            "Add it, or give a single file, which is split 80/10/10.",
        )
    return found


def _content(
    source: str,
    tables: Mapping[str, list[Entry]],
    reading: CustomOptions,
    given: tuple[str, ...],
    named: bool = False,
) -> Content:
    for split, entries in tables.items():
        if not entries:
            raise DataError(f"{source} has no rows for {split}.", "Give rows with a text and a label.")
    if len(tables) < len(SPLITS) and len(tables[TRAIN]) < SMALLEST:
        raise DataError(
            f"{source} has {len(tables[TRAIN])} rows, too few to cut dev or test from.",
            f"Give at least {SMALLEST} rows, or a folder with train, dev and test.",
        )
    names = class_names(tables[TRAIN], given)
    named = named or by_name(itertools.chain.from_iterable(tables.values()), names)
    splits = {
        split: [Row(number, Example(item.text, label_of(item, names, named))) for number, item in enumerate(entries)]
        for split, entries in tables.items()
    }
    rng = random.Random(reading.split_seed)
    size = len(splits[TRAIN]) // 10
    for split in (TEST, DEV):
        if split not in splits:
            splits[split], splits[TRAIN] = _cut(splits[TRAIN], size, rng)
    return Content(names, splits)


def _cut(rows: list[Row], size: int, rng: random.Random) -> tuple[list[Row], list[Row]]:
    """Return (`size` rows, stratified; the rest without the texts of these), both in file order."""
    chosen = sorted(stratified([row.example.label for row in rows], size, rng))
    cut = [rows[i] for i in chosen]
    rest = outside([row.example for row in rows], [row.example for row in cut])
    return cut, [rows[i] for i in rest]
