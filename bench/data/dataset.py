"""Loading: spec and folder -> the three clean splits, each row with its place in the source file."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.core.errors import DataError
from bench.core.example import Example
from bench.core.seeding import digest
from bench.data.custom import CustomSpec, load_custom
from bench.data.demo import demo_corpus
from bench.data.files import PinnedFiles
from bench.data.order import Orders, published_orders
from bench.data.readers import Row, read_rows
from bench.data.spec import DEV, SPLITS, TEST, TRAIN, DatasetSpec
from bench.data.splits import held_out, outside, stratified


@dataclass(frozen=True)
class Dataset:
    """Three clean splits; `rows[split][i]` is the source-file row of the i-th example of the split."""

    name: str
    classes: tuple[str, ...]
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    rows: Mapping[str, tuple[int, ...]]
    files: Mapping[str, str] = field(default_factory=dict)  # path -> sha256, of every file read

    def split(self, name: str) -> tuple[Example, ...]:
        """Return the examples of `train`, `dev` or `test`."""
        return {TRAIN: self.train, DEV: self.dev, TEST: self.test}[name]


class Clean(NamedTuple):
    """The published splits of a data set in published order; without a dev file, dev rows are train-file rows."""

    train: list[Row]
    dev: list[Row]
    test: list[Row]
    orders: Orders


def read_clean(spec: DatasetSpec, source: PinnedFiles) -> Clean:
    """Return the published splits of a data set: all rows, in published order.

    Raises:
        DataError: a file is missing, altered or not in its format.
    """
    examples = {split: read_rows(spec.format, source.read(path), path) for split, path in spec.files.items()}
    dev_rows = len(examples[DEV]) if DEV in examples else None
    orders, _ = published_orders(len(examples[TRAIN]), dev_rows, len(examples[TEST]))
    return Clean(
        [Row(row, examples[TRAIN][row]) for row in orders.train],
        [Row(row, examples[DEV if DEV in examples else TRAIN][row]) for row in orders.dev],
        [Row(row, examples[TEST][row]) for row in orders.test],
        orders,
    )


def load_dataset(spec: DatasetSpec, data_dir: Path | None = None) -> Dataset:
    """Return the clean splits of a data set, after comparing every file it reads with its pin.

    Args:
        data_dir: folder in the published layout; the demo corpus and custom data sets need none.

    Raises:
        DataError: a file is missing or altered, or the rows are not the ones that the spec names.
    """
    train, dev, test, digests = _whole(spec, data_dir)
    if spec.disjoint:
        train, dev = _without(train, test), _without(dev, test)
    if spec.dev == "tenth":
        rest, tenth = held_out([row.example for row in train], random.Random(spec.dev_seed))
        train, dev = [train[i] for i in rest], [train[i] for i in tenth]
    if spec.subset:
        train = _subset(spec, train)
    return _dataset(spec, {TRAIN: train, DEV: dev, TEST: test}, digests)


def leaks_of(data: Dataset) -> str:
    """Return how many training and dev rows have a text that stands in test, as one sentence; "" where none has."""
    test = {example.text for example in data.test}
    train, dev = (sum(example.text in test for example in rows) for rows in (data.train, data.dev))
    if not train and not dev:
        return ""
    return (
        f"{train:,} of {len(data.train):,} training rows and {dev:,} of {len(data.dev):,} dev rows have a text that "
        "stands in test."
    )


def _whole(spec: DatasetSpec, data_dir: Path | None) -> tuple[list[Row], list[Row], list[Row], Mapping[str, str]]:
    """Return all rows of train, dev and test, and path -> sha256 of the files read."""
    if isinstance(spec, CustomSpec):
        splits = load_custom(spec).splits
        return splits[TRAIN], splits[DEV], splits[TEST], {}
    if spec.format == "demo":
        corpus = demo_corpus(spec.pins["demo"])
        train, dev, test = (
            [Row(row, Example(item.text, item.label)) for row, item in enumerate(corpus[split])] for split in SPLITS
        )
        return train, dev, test, spec.pins
    source = PinnedFiles(data_dir, spec.pins, spec.originals, spec.name)
    clean = read_clean(spec, source)
    return clean.train, clean.dev, clean.test, source.digests


def _dataset(spec: DatasetSpec, splits: Mapping[str, Iterable[Row]], digests: Mapping[str, str]) -> Dataset:
    examples = {split: tuple(row.example for row in splits[split]) for split in SPLITS}
    for split in SPLITS:
        _check_labels(spec, split, examples[split])
    rows = {split: tuple(row.row for row in splits[split]) for split in SPLITS}
    return Dataset(spec.name, spec.classes, examples[TRAIN], examples[DEV], examples[TEST], rows, dict(digests))


def _check_labels(spec: DatasetSpec, split: str, examples: tuple[Example, ...]) -> None:
    labels = {example.label for example in examples}
    if labels - set(range(len(spec.classes))):
        raise DataError(
            f"The {split} split of {spec.name!r} has the labels {sorted(labels)}, "
            f"and its {len(spec.classes)} classes are numbered from 0.",
            "Correct the labels or the classes.",
        )
    if len(labels) < (2 if split == TRAIN else 1):
        raise DataError(
            f"The {split} split of {spec.name!r} has {len(examples)} rows of {len(labels)} class(es).",
            "Give training rows of two or more classes, and rows in dev and test.",
        )


def _without(rows: list[Row], others: list[Row]) -> list[Row]:
    keep = outside([row.example for row in rows], [row.example for row in others])
    return [rows[position] for position in keep]


def _subset(spec: DatasetSpec, train: list[Row]) -> list[Row]:
    by_row = sorted(train)  # drawn in file order, so that the choice does not hang on the published order
    labels = [row.example.label for row in by_row]
    kept = [by_row[i].row for i in stratified(labels, spec.subset, random.Random(spec.subset_seed))]
    if spec.subset_digest and digest(kept) != spec.subset_digest:
        raise DataError(
            f"The {spec.subset} training rows drawn for {spec.name!r} have the digest {digest(kept)}, "
            f"not {spec.subset_digest}.",
            "Set `subset_digest` to the new one if the change is meant.",
        )
    chosen = set(kept)
    return [row for row in train if row.row in chosen]
