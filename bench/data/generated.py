"""A generated bank as the attacks read it: the rows of a data set, joined with their paraphrases by text."""

from __future__ import annotations

from pathlib import Path

from bench.core.errors import CellError, DataError
from bench.data.bank import Bank
from bench.data.bank_files import Table
from bench.data.dataset import Dataset, load_dataset
from bench.data.files import sha256
from bench.data.journal import Content, identity_digest, read_bank
from bench.data.spec import SPLITS, TEST, DatasetSpec


def load_generated(
    spec: DatasetSpec, name: str, path: Path, data_dir: Path | None, target_label: int, made_by: str | None = None
) -> Bank:
    """Return the bank of a data set from a file of `bench data paraphrase`, for any target label.

    Args:
        made_by: the digest of the paraphraser that the file must be of, as it was planned.

    Raises:
        CellError: no such file, not a bank, damaged, of another paraphraser, or without some text of the data set.
    """
    try:
        content = read_bank(path)
    except DataError as error:
        raise CellError(error.problem, error.remedy) from error
    if made_by is not None and identity_digest(content.made_by) != made_by:
        raise CellError(
            f"The paraphrase bank {path} is another one than when this run was planned.", "Run the same command again."
        )
    data = load_dataset(spec, data_dir)
    tables, absent = {}, {}
    for split in SPLITS:
        missing = sum(not _has(content, example.text) for example in data.split(split))
        if missing:
            absent[split] = (
                f"The paraphrase bank {path} lacks {missing} of the {len(data.split(split))} {split} texts "
                f"of {spec.name!r}."
            )
        else:
            tables[split] = _table(data, split, content)
    if TEST in absent:
        raise CellError(absent[TEST], "Go on with it: python -m bench data paraphrase, with the options it began with.")
    kept = [
        (row, tables[TEST].texts[row])
        for row, example in zip(data.rows[TEST], data.test, strict=True)
        if example.label != target_label and tables[TEST].texts[row] is not None
    ]
    return Bank(
        name,
        spec.name,
        target_label,
        tables,
        absent,
        tuple(text for _, text in kept),
        tuple(row for row, _ in kept),
        {str(path): sha256(path.read_bytes())},
    )


def _has(content: Content, text: str) -> bool:
    try:
        content.paraphrase(text)
    except KeyError:
        return False
    return True


def _table(data: Dataset, split: str, content: Content) -> Table:
    texts = dict(zip(data.rows[split], data.split(split), strict=True))
    return Table(
        {row: example.text for row, example in texts.items()},
        {row: content.paraphrase(example.text) for row, example in texts.items()},
    )
