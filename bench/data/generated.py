"""A generated bank as the attacks read it: texts joined with their paraphrases by the text itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import CellError, DataError, unknown
from bench.core.example import Example
from bench.data.dataset import load_dataset
from bench.data.journal import Content, identity_digest, read_bank
from bench.data.spec import SPLITS, TEST, DatasetSpec

REMEDY = "Go on with the bank: python -m bench data paraphrase, with the options it began with."


@dataclass(frozen=True)
class GeneratedBank:
    """What `bench data paraphrase` made, with the members of `bench.data.bank.Bank` that attacks use.

    `test` holds (file row, text) of the test rows whose label is not the target.
    """

    path: Path
    dataset: str
    content: Content
    test: tuple[tuple[int, str], ...]

    def paraphrases(self, split: str, examples: Iterable[Example], rows: Iterable[int]) -> list[str | None]:
        """Return the paraphrase of each example, in order, whatever its row; None: nothing of it was paraphrased.

        Raises:
            CellError: the bank lacks some of the texts.
        """
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        return self._of(split, [example.text for example in examples])

    def poisoned_test(self) -> tuple[tuple[str, ...], tuple[int | None, ...]]:
        """Return the paraphrases of the non-target test texts that have one, and their test-file rows.

        Raises:
            CellError: the bank lacks some of the texts.
        """
        said = self._of(TEST, [text for _, text in self.test])
        kept = [(row, text) for (row, _), text in zip(self.test, said, strict=True) if text is not None]
        return tuple(text for _, text in kept), tuple(row for row, _ in kept)

    def _of(self, split: str, texts: list[str]) -> list[str | None]:
        found, missing = [], 0
        for text in texts:
            try:
                found.append(self.content.paraphrase(text))
            except KeyError:
                missing += 1
        if missing:
            raise CellError(
                f"The paraphrase bank {self.path} lacks {missing} of the {len(texts)} {split} texts of "
                f"{self.dataset!r} that are asked for.",
                REMEDY,
            )
        return found


def load_generated(
    spec: DatasetSpec, path: Path, data_dir: Path | None, target_label: int, made_by: str | None = None
) -> GeneratedBank:
    """Return the bank of a data set from a file of `bench data paraphrase`, for any target label.

    Args:
        made_by: the digest of the paraphraser that the file must be of, as it was planned.

    Raises:
        CellError: no such file, not a bank, damaged, or of another paraphraser.
        DataError: the data set cannot be read.
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
    rows = zip(data.rows[TEST], data.test, strict=True)
    test = tuple((row, example.text) for row, example in rows if example.label != target_label)
    return GeneratedBank(path, spec.name, content, test)
