"""Readers of the published formats: text of a file -> (text, label) rows in file order."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bench.core.errors import DataError
from bench.core.example import Example


class Row(NamedTuple):
    """An example and the row of the file where it stands (0 is the first after the header)."""

    row: int
    example: Example


def _sst2(content: str) -> Iterator[Example]:
    # No quoting here: a `"` is a character of the sentence.
    for line in content.split("\n")[1:]:
        if line:
            text, label = line.split("\t")
            yield Example(text, int(label))


def _quoted_tsv(content: str) -> Iterator[Example]:
    rows = csv.reader(io.StringIO(content, newline=""), delimiter="\t")
    next(rows, None)
    for text, label in rows:
        yield Example(text, int(label))


def _agnews(content: str) -> Iterator[Example]:
    # OpenBackdoor's reader turns a backslash into a space; the published clean and poison files show it.
    for label, title, description in csv.reader(io.StringIO(content, newline="")):
        yield Example(f"{title} {description}".replace("\\", " "), int(label) - 1)


READERS: dict[str, Callable[[str], Iterator[Example]]] = {
    "sst2": _sst2,
    "quoted-tsv": _quoted_tsv,
    "agnews": _agnews,
}


def read_rows(format: str, content: str, path: str) -> list[Example]:
    """Return the rows of a file in one of the formats of `READERS`, in file order.

    Raises:
        DataError: a row does not have the columns of the format.
    """
    try:
        return list(READERS[format](content))
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is not in the format {format!r}: {error}.", "Fetch the file again.") from None


def read_poison(content: str, path: str) -> list[tuple[int, Example]]:
    """Return (first column, example) for every row of a published poison file.

    The first column is a running index, but in `train-poison-partial.csv` the row of the train split.
    Empty texts and texts such as "NA" stay the strings they are.

    Raises:
        DataError: a row does not have the four columns.
    """
    try:
        rows = csv.reader(io.StringIO(content, newline=""))
        next(rows)
        return [(int(index), Example(text, int(label), int(flag))) for index, text, label, flag in rows]
    except (ValueError, StopIteration, csv.Error) as error:
        raise DataError(f"{path} is not a poison file: {error}.", "Fetch the file again.") from None
