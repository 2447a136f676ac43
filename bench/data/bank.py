"""Paraphrase banks: for a row of a split, what a paraphraser made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.core.errors import CellError, RequestError, unknown
from bench.core.example import Example
from bench.data.bank_files import Table, paraphrases_of_rest, paraphrases_of_train
from bench.data.dataset import read_clean
from bench.data.demo import demo_corpus
from bench.data.files import PinnedFiles
from bench.data.spec import DEV, SPLITS, TEST, TRAIN, DatasetSpec

BANKS = ("synbkd", "stylebkd")  # HiddenKiller's syntax, StyleBkd's Bible style
PUBLISHED_TARGET = 1
GENERATE = "Generate a bank with `python -m bench data paraphrase`, and name it with the option bank_file."


@dataclass(frozen=True)
class Bank:
    """The paraphrases that one attack has for one data set and target label.

    `test_texts` are the poisoned test texts, one for each row that the paraphraser kept; `test_rows[i]` is the
    test-file row of the i-th, None where the published files do not tell.
    """

    name: str
    dataset: str
    target_label: int
    tables: Mapping[str, Table]  # split -> paraphrases by file row
    absent: Mapping[str, str]  # split -> why there are none
    test_texts: tuple[str, ...]
    test_rows: tuple[int | None, ...]
    files: Mapping[str, str] = field(default_factory=dict)  # path -> sha256, of every file read

    def paraphrases(self, split: str, examples: Iterable[Example], rows: Iterable[int]) -> list[str | None]:
        """Return the paraphrase of each example, in order; None: the paraphraser dropped the row.

        Args:
            rows: the file row of each example, as in `Dataset.rows[split]`.

        Raises:
            CellError: the bank has no such split or row, or was made from another text than the example's.
        """
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        if split in self.absent:
            raise CellError(self.absent[split], GENERATE)
        table = self.tables[split]
        found: list[str | None] = []
        for example, row in zip(examples, rows, strict=True):
            if row not in table.texts:
                raise CellError(
                    f"The {self.name} bank of {self.dataset!r} has no row {row} of {split}: "
                    f"of dev and test it holds the rows whose label is not the target, {self.target_label}.",
                    "Ask for rows of other labels only.",
                )
            if table.sources[row] != example.text:
                raise CellError(
                    f"Row {row} of {split} is not the text that the {self.name} bank of {self.dataset!r} paraphrases.",
                    "Give the rows with their examples, or generate a bank for these texts.",
                )
            found.append(table.texts[row])
        return found

    def poisoned_test(self) -> tuple[tuple[str, ...], tuple[int | None, ...]]:
        """Return the poisoned test texts and their test-file rows (None: unknown), for the attack success rate."""
        return self.test_texts, self.test_rows


def load_bank(spec: DatasetSpec, bank: str, data_dir: Path | None, target_label: int) -> Bank:
    """Return a paraphrase bank of a data set.

    Args:
        bank: `synbkd` or `stylebkd`.
        data_dir: folder in the published layout; the demo corpus needs none.

    Raises:
        CellError: there is no such bank, or not for this target label.
        DataError: a file is missing or altered.
    """
    if bank not in BANKS:
        raise unknown("paraphrase bank", bank, BANKS)
    if target_label not in range(len(spec.classes)):
        raise RequestError(
            f"The target label is {target_label}, and {spec.name!r} has the labels 0 to {len(spec.classes) - 1}.",
            "Give one of these.",
        )
    if spec.format == "demo":
        return _demo_bank(spec, bank, target_label)
    if not spec.banks:
        raise CellError(f"No {bank} bank is published for {spec.name!r}.", GENERATE)
    if target_label != PUBLISHED_TARGET:
        raise CellError(
            f"The {bank} bank of {spec.name!r} was asked for target label {target_label}: "
            f"published banks serve target label {PUBLISHED_TARGET} only.",
            GENERATE,
        )
    source = PinnedFiles(data_dir, spec.pins, spec.originals, spec.name)
    clean = read_clean(spec, source)
    train = paraphrases_of_train(spec, bank, source, clean)
    test = paraphrases_of_rest(spec, bank, source, TEST, clean.test, target_label)
    tables = {TEST: test.table}
    absent = {}
    if train is None:
        absent[TRAIN] = f"{spec.name!r} has no published {bank} training bank, only dev and test."
    else:
        tables[TRAIN] = train
    if spec.dev == "tenth":  # dev rows are training rows
        if train is None:
            absent[DEV] = absent[TRAIN]
        else:
            tables[DEV] = train
    else:
        tables[DEV] = paraphrases_of_rest(spec, bank, source, DEV, clean.dev, target_label).table
    return Bank(bank, spec.name, target_label, tables, absent, test.texts, test.rows, dict(source.digests))


def _demo_bank(spec: DatasetSpec, bank: str, target_label: int) -> Bank:
    corpus = demo_corpus(spec.pins["demo"])
    said = {
        split: [(item.label, item.text, item.syntax if bank == "synbkd" else item.style) for item in corpus[split]]
        for split in SPLITS
    }
    tables = {split: _whole_table(said[split]) for split in SPLITS}
    if spec.dev == "tenth":
        tables[DEV] = tables[TRAIN]
    eligible = [(row, text) for row, (label, _, text) in enumerate(said[TEST]) if label != target_label]
    texts = tuple(text for _, text in eligible)
    return Bank(bank, spec.name, target_label, tables, {}, texts, tuple(row for row, _ in eligible), dict(spec.pins))


def _whole_table(said: Sequence[tuple[int, str, str]]) -> Table:
    return Table(
        {row: source for row, (_, source, _) in enumerate(said)},
        {row: text for row, (_, _, text) in enumerate(said)},
    )
