"""The published AG News "mini" training file, made again from the full one of 120,000 rows (data README, section 5).

Recipe: numpy's generator seeded with 42; for each of the four classes in turn the first 5,556 of a permutation of its
30,000 rows (what `DataFrame.sample` draws); the rows of the classes one after the other. The permutation of every row
agrees with the published index (`ag_class_rank`); how the published file quotes its fields is not known, so each way
is tried, and only a file with the published git blob id is given out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from bench.core.errors import DataError
from bench.data.files import git_blob, read_bytes

PATH = "datasets/TextClassification/miniagnews/train.csv"
BLOB = "db6dd7b51f5e6089ca00a46cda41cdd878c63c4a"
SEED, CLASSES, ROWS_OF_CLASS, KEPT = 42, 4, 30_000, 5_556
REMEDY = 'Give the train.csv of the full AG News: 120,000 rows "class","title","description", classes 1 to 4.'


def ranks() -> list[list[int]]:
    """Return for each class the places, among its 30,000 rows in file order, of the rows that the mini set keeps."""
    import numpy

    generator = numpy.random.RandomState(SEED)
    return [generator.permutation(ROWS_OF_CLASS)[:KEPT].tolist() for _ in range(CLASSES)]


def rebuilt(full: Path, blob: str = BLOB) -> bytes:
    """Return the bytes of the published mini training file.

    Args:
        full: the `train.csv` of the full AG News.
        blob: the git blob id that the result must have.

    Raises:
        DataError: not that file, or no way of quoting gives the published file.
    """
    content = read_bytes(full, REMEDY)
    try:
        text = content.decode("utf-8")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{full} is not the full AG News: {error}.", REMEDY) from None
    if rows and rows[0] and not rows[0][0].isdigit():
        del rows[0]  # some copies have a header
    by_class: list[list[int]] = [[] for _ in range(CLASSES)]
    for number, row in enumerate(rows):
        if len(row) != 3 or row[0] not in ("1", "2", "3", "4"):
            raise DataError(f"{full} is not the full AG News: row {number + 1} is {row[:3]!r}.", REMEDY)
        by_class[int(row[0]) - 1].append(number)
    if any(len(places) != ROWS_OF_CLASS for places in by_class):
        found = ", ".join(str(len(places)) for places in by_class)
        raise DataError(f"{full} is not the full AG News: its classes have {found} rows, not 30,000 each.", REMEDY)
    kept = [rows[places[rank]] for places, chosen in zip(by_class, ranks(), strict=True) for rank in chosen]
    for candidate in _writings(kept):
        if git_blob(candidate) == blob:
            return candidate
    raise DataError(
        f"The mini set made from {full} is not the published one: no way of quoting has its git blob id {blob}.",
        "The file may be a changed copy of AG News; the rebuilt file of the prepared data stays in use.",
    )


def _writings(rows: list[list[str]]) -> Iterator[bytes]:
    """Yield the rows as a CSV file in each way that pandas or the original quotes and ends its lines."""
    numbered = [[int(label), title, description] for label, title, description in rows]
    for quoting, values in (
        (csv.QUOTE_ALL, rows),
        (csv.QUOTE_MINIMAL, rows),
        (csv.QUOTE_NONNUMERIC, numbered),
    ):
        for end in ("\n", "\r\n"):
            buffer = io.StringIO(newline="")
            csv.writer(buffer, quoting=quoting, lineterminator=end).writerows(values)
            yield buffer.getvalue().encode("utf-8")
