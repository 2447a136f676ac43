"""The user's own tables: CSV, TSV and JSON-lines files with a text and a label column, checked row by row."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.core.errors import DataError
from bench.data.files import read_bytes

SUFFIXES = (".csv", ".tsv", ".jsonl")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")  # longer ones are names: nobody counts so many classes


class Entry(NamedTuple):
    """One row as it stands in a file: where, its text, and its label as a string."""

    place: str
    text: str
    label: str


def read_table(path: Path, text_column: str, label_column: str) -> list[Entry]:
    """Return the rows of a `.csv`, `.tsv` or `.jsonl` file in file order.

    Raises:
        DataError: not UTF-8, not of its format, a missing column, an empty text; it names file and row.
    """
    content = _decoded(path)
    records = _json_records(path, content) if path.suffix.lower() == ".jsonl" else _delimited_records(path, content)
    with _long_fields():
        return [entry(place, record, text_column, label_column) for place, record in records]


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let a CSV field be longer than the 131,072 characters of Python's default, which is given back."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def entry(place: str, record: Mapping[str, Any], text_column: str, label_column: str) -> Entry:
    """Return a record as an `Entry`.

    Raises:
        DataError: a column is missing, the text is empty or not a string, the label neither integer nor string.
    """
    for column in (text_column, label_column):
        if column not in record:
            raise DataError(
                f"{place} has no column {column!r}; its columns are {', '.join(map(repr, record)) or 'none'}.",
                "Name the columns `text` and `label`, or set the options text_column and label_column.",
            )
    text, label = record[text_column], record[label_column]
    if not isinstance(text, str):
        raise DataError(f"{place} has the text {text!r}, which is not a string.", "Give every row a text.")
    if not text.strip():
        raise DataError(f"{place} has an empty text.", "Give every row a text, or remove the row.")
    if "\0" in text:
        raise DataError(f"{place} holds a NUL character.", "Save the file as plain UTF-8 text.")
    if not (_whole(text) and _whole(str(label))):
        raise DataError(f"{place} holds half of a character (a lone surrogate).", "Write it whole, or leave it out.")
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise DataError(
            f"{place} has the label {label!r}, which is neither an integer nor a class name.",
            "Give labels 0, 1, ... or class names.",
        )
    if not str(label).strip():
        raise DataError(f"{place} has an empty label.", "Give labels 0, 1, ... or class names.")
    return Entry(place, text, str(label).strip())


def _whole(text: str) -> bool:
    """Tell whether a text can be written: JSON may escape half of a character, which UTF-8 does not have."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _decoded(path: Path) -> str:
    content = read_bytes(path, "Give the path of a .csv, .tsv or .jsonl file, or of a folder of these.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, {_row(path, content[: error.start].count(10) + 1)} is not UTF-8 "
            f"(byte {content[error.start]:#04x}).",
            "Save the file in the encoding UTF-8.",
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(f"{path}, {_row(path, line)} holds a NUL character.", "Save the file as plain UTF-8 text.")
    return text


def _row(path: Path, line: int) -> str:
    """Return how to name the row that ends at a line of a file; lines count from 1, rows behind a header too."""
    if path.suffix.lower() == ".jsonl":
        return f"row {line}"
    return f"row {line - 1} (line {line})" if line > 1 else "the header"


def _delimited_records(path: Path, content: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    number = 0
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) < len(header):
            raise DataError(f"{path} has a column twice: {', '.join(header)}.", "Name every column once.")
        for values in reader:
            if not values:
                continue
            number += 1
            place = f"{path}, row {number} (line {reader.line_num})"
            if len(values) != len(header):
                raise DataError(
                    f"{place} has {len(values)} fields and the header {len(header)}.",
                    "Put a field that holds a delimiter or a quote in quotes.",
                )
            yield place, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{path}, row {number + 1} (line {reader.line_num}) is not valid {path.suffix[1:].upper()}: {error}.",
            "Put a field with quotes in quotes and double the quotes in it.",
        ) from None


def _json_records(path: Path, content: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, row {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{place} is not valid JSON: {error.msg}.", "Write one JSON object a line.") from None
        except (ValueError, RecursionError):
            reason = f"{place} holds a number of thousands of digits, or is nested thousands deep."
            raise DataError(reason, "Write one JSON object a line.") from None
        if not isinstance(record, dict):
            raise DataError(f"{place} is not a JSON object.", "Write one JSON object a line.")
        yield place, record


def class_names(entries: Sequence[Entry], given: Sequence[str]) -> tuple[str, ...]:
    """Return the class names of a table: those given, else "0" to "C-1", else its names in alphabetical order.

    The first row says whether labels are integers or names.

    Raises:
        DataError: there are fewer than two classes.
    """
    labels = {entry.label for entry in entries}
    if len(labels) < 2:
        file = entries[0].place.rsplit(", row", 1)[0]
        raise DataError(
            f"{file} has rows of a single class, {entries[0].label!r}.", "Give rows of two or more classes."
        )
    if given:
        return tuple(given)
    integers = {int(label) for label in labels if _INTEGER.fullmatch(label)}
    if _INTEGER.fullmatch(entries[0].label):
        return tuple(str(label) for label in range(len(integers)))
    for item in entries:
        if _INTEGER.fullmatch(item.label):
            raise DataError(
                f"{item.place} has the label {item.label!r}, and the first row a class name, {entries[0].label!r}.",
                "Use integers or class names throughout.",
            )
    return tuple(sorted(labels))


def by_name(entries: Iterable[Entry], names: Sequence[str]) -> bool:
    """Tell whether the labels of a data set, those of all splits, are looked up among its class names.

    Where no name is a number they are, and whatever is none of them counts as a position. Where one is, all labels are
    names if every one is among these, else all are positions.

    Raises:
        DataError: the labels can be read as names and as positions, and mean other classes.
    """
    if not any(_INTEGER.fullmatch(name) for name in names):
        return True
    labels = {item.label for item in entries}
    if not labels <= set(names):
        return False
    twofold = all(_INTEGER.fullmatch(label) and 0 <= int(label) < len(names) for label in labels)
    if twofold and labels < set(names) and any(names[int(label)] != label for label in labels):
        raise DataError(
            f"The labels {', '.join(sorted(labels))} are some of the class names {', '.join(names)}, and positions "
            "among these too.",
            "Give classes that are words, for labels that count from 0, or write class names that are words as labels.",
        )
    return True


def label_of(entry: Entry, names: Sequence[str], named: bool) -> int:
    """Return the label of a row as a position in the class names, which it is looked up among if it may be `named`.

    Raises:
        DataError: an integer out of range, another word than a class name; it names file and row.
    """
    if named and entry.label in names:
        return names.index(entry.label)
    numbered = not named or all(_INTEGER.fullmatch(name) for name in names)
    if not _INTEGER.fullmatch(entry.label):
        rule = f"an integer from 0 to {len(names) - 1}" if numbered else f"one of {', '.join(names)}"
        raise DataError(
            f"{entry.place} has the label {entry.label!r}, and {rule} is needed.",
            "Use integers or class names throughout.",
        )
    label = int(entry.label)
    if not 0 <= label < len(names):
        # A name, where another row's label is none: nobody would guess why it is no good.
        why = " (not all labels are class names, so none is read as one)" if entry.label in names else ""
        raise DataError(
            f"{entry.place} has the label {label}, which is out of range: "
            f"{len(names)} classes are numbered 0 to {len(names) - 1}{why}.",
            "Number the classes from 0 without gaps.",
        )
    return label
