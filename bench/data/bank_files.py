"""The published paraphrase files: which row of a file paraphrases which row of the clean data.

Rows are joined by position only where a file has one row for each source row; elsewhere by the index files
(data README section 7), or by an alignment of the texts where rows were dropped without a mark (section 4).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from bench.core.errors import DataError
from bench.data.align import align
from bench.data.dataset import Clean
from bench.data.files import PinnedFiles
from bench.data.readers import Row, read_poison
from bench.data.spec import TRAIN, DatasetSpec


class Table(NamedTuple):
    """By file row: the source text, and its paraphrase or None where the paraphraser dropped the row."""

    sources: Mapping[int, str]
    texts: Mapping[int, str | None]


class Poisoned(NamedTuple):
    """The rows of a published `dev-poison` or `test-poison` file, and the table they fill."""

    table: Table
    texts: tuple[str, ...]
    rows: tuple[int | None, ...]


def _table(rows: Sequence[Row], by_slot: Mapping[int, str]) -> Table:
    """Return the table of `rows`; `by_slot` gives the paraphrase of the row at each position."""
    return Table(
        {row.row: row.example.text for row in rows},
        {row.row: by_slot.get(slot) for slot, row in enumerate(rows)},
    )


def paraphrases_of_train(spec: DatasetSpec, bank: str, source: PinnedFiles, clean: Clean) -> Table | None:
    """Return the paraphrases of the training rows, or None when no training file was published."""
    aligned, partial, full = (
        spec.poison_path(bank, file) for file in ("train-poison-aligned", "train-poison-partial", "train-poison")
    )
    original = spec.files[TRAIN] in source.published
    if aligned in spec.pins and not original:
        return _table(clean.train, _by_position(source, aligned, len(clean.train)))
    if partial in spec.pins:
        by_slot = {slot: example.text for slot, example in read_poison(source.read(partial), partial)}
        if original:  # the others are paraphrases of rows that the published file does not have
            exact = {slot for slot, line in _index(spec, source).items() if line["status"] == "exact"}
            by_slot = {slot: text for slot, text in by_slot.items() if slot in exact}
        return _table(clean.train, by_slot)
    if full not in spec.pins:
        return None
    if TRAIN not in spec.indexes:
        return _table(clean.train, _by_position(source, full, len(clean.train)))
    texts = [example.text for _, example in read_poison(source.read(full), full)]
    anchors = {
        slot: int(line[f"{bank}_row"]) for slot, line in _index(spec, source).items() if line[f"{bank}_row"] != ""
    }
    if original:
        anchors = interpolated(anchors, len(clean.train), len(texts))
    return _table(clean.train, {slot: texts[row] for slot, row in anchors.items()})


def _by_position(source: PinnedFiles, path: str, rows: int) -> dict[int, str]:
    poison = read_poison(source.read(path), path)
    if len(poison) != rows:
        raise DataError(f"{path} has {len(poison)} rows for {rows} source rows.", "Fetch the file again.")
    return {slot: example.text for slot, (_, example) in enumerate(poison)}


def _index(spec: DatasetSpec, source: PinnedFiles) -> dict[int, dict[str, str]]:
    """Return the lines of the training index by slot, the position in the published training split."""
    lines = csv.DictReader(io.StringIO(source.read(spec.indexes[TRAIN]), newline=""))
    return {int(line["slot"]): line for line in lines if line["split"] == TRAIN}


def interpolated(anchors: Mapping[int, int], slots: int, rows: int) -> dict[int, int]:
    """Return `anchors` (slot -> row) with every gap filled that holds as many rows as slots: none was dropped there."""
    filled = dict(anchors)
    ends = [(-1, -1), *sorted(anchors.items()), (slots, rows)]
    for (slot, row), (next_slot, next_row) in pairwise(ends):
        if next_slot - slot == next_row - row:
            filled.update({slot + step: row + step for step in range(1, next_slot - slot)})
    return filled


def paraphrases_of_rest(
    spec: DatasetSpec, bank: str, source: PinnedFiles, split: str, rows: Sequence[Row], target_label: int
) -> Poisoned:
    """Return the paraphrases of the dev or test rows whose label is not the target.

    A paraphrase that the words cannot place keeps its text, has no row, and fills no row of the table.
    """
    path = spec.poison_path(bank, f"{split}-poison", target_label)
    texts = [example.text for _, example in read_poison(source.read(path), path)]
    eligible = [row for row in rows if row.example.label != target_label]
    if len(texts) > len(eligible):
        raise DataError(f"{path} has {len(texts)} rows for {len(eligible)} source rows.", "Fetch the file again.")
    places = align([row.example.text for row in eligible], texts)
    by_slot = {place: text for place, text in zip(places, texts, strict=True) if place is not None}
    table = _table(eligible, by_slot)
    return Poisoned(table, tuple(texts), tuple(None if place is None else eligible[place].row for place in places))
