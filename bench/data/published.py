"""The published poison files of SST-2 and HSOL: read as they are, or rebuilt byte for byte.

Data README section 4: one `random.Random(42)` shuffles, poisons and selects, in that order. This is the only
place where those rules are followed; every other cell draws from generators of its own.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import CellError, DataError, unknown
from bench.core.example import Example
from bench.data.dataset import Clean, read_clean
from bench.data.files import PinnedFiles
from bench.data.order import published_orders
from bench.data.readers import Row, read_poison
from bench.data.spec import DEV, TEST, TRAIN, DatasetSpec

TARGET = 1
RATIO = 0.1
SETTINGS = {"badnets": "clean", "addsent": "mix", "synbkd": "mix", "stylebkd": "mix"}  # attack -> label rule
WORDS = ("cf", "mn", "bb", "tq")
SENTENCE = ("I", "watch", "this", "3D", "movie")
SHUFFLED = ("badnets", "addsent")  # attacks that draw from the generator themselves


@dataclass(frozen=True)
class PublishedPoison:
    """The training set of an attack at ratio 0.1 and its poisoned test texts, as published.

    `train_rows[i]` and `test_rows[i]` are the file rows of the i-th example; `positions` are the places in the
    published training order (that of `Dataset.train`) whose rows were replaced by poisoned ones.
    """

    rule: str
    train: tuple[Example, ...]
    train_rows: tuple[int, ...]
    positions: tuple[int, ...]
    test: tuple[Example, ...]
    test_rows: tuple[int, ...]
    files: dict[str, str]  # path -> sha256, of every file read


def has_published(spec: DatasetSpec, attack: str) -> bool:
    """Return whether the poisoned training set at ratio 0.1 of an attack is published for exactly these rows."""
    whole = not spec.disjoint and not spec.subset and spec.dev == "file"
    return whole and bool(spec.banks) and attack in SETTINGS and _tenth(spec, attack) in spec.pins


def load_published(spec: DatasetSpec, attack: str, data_dir: Path | None) -> PublishedPoison:
    """Return the published poisoned training and test sets (`badnets`, `addsent`, `synbkd`, `stylebkd`).

    Raises:
        CellError: none is published for this data set.
        DataError: a file is missing or altered, or does not have the rows that the rules give.
    """
    _check_attack(attack)
    if not has_published(spec, attack):
        raise CellError(
            f"No poisoned training set of {attack} is published for {spec.name!r}.",
            "Use sst2 or hsol, or leave the option `poison_file` at its default.",
        )
    source = PinnedFiles(data_dir, spec.pins, spec.originals, spec.name)
    clean = read_clean(spec, source)
    train = _read(source, _tenth(spec, attack))
    test = _read(source, spec.poison_path(attack, "test-poison"))
    positions = _replayed_positions(attack, clean)
    kept = set(range(len(clean.train))) - set(positions)
    train_rows = tuple(clean.train[slot].row for slot in (*sorted(kept), *positions))
    eligible = _non_target(clean.test)
    if len(train) != len(train_rows) or len(test) != len(eligible):
        raise DataError(
            f"The published {attack} files of {spec.name!r} have {len(train)} training and {len(test)} test rows, "
            f"not {len(train_rows)} and {len(eligible)}.",
            "Fetch the data again.",
        )
    test_rows = tuple(row.row for row in eligible)
    return PublishedPoison(SETTINGS[attack], train, train_rows, positions, test, test_rows, dict(source.digests))


def rebuilt_files(spec: DatasetSpec, attack: str, data_dir: Path | None) -> dict[str, bytes]:
    """Return the published files of an attack that follow from the clean files, path -> bytes.

    These are the three clean splits, the fully poisoned training split and `dev-poison` of BadNets and AddSent
    (those of the paraphrasers are read), and the training set at ratio 0.1.

    Raises:
        CellError: the data set is not SST-2 or HSOL.
        DataError: a file is missing or altered.
    """
    _check_attack(attack)
    if not has_published(spec, attack):
        raise CellError(f"No poison file of {attack} is published for {spec.name!r}.", "Use sst2 or hsol.")
    source = PinnedFiles(data_dir, spec.pins, spec.originals, spec.name)
    clean = read_clean(spec, source)
    files = {
        spec.poison_path("badnets", f"{split}-clean"): _csv_bytes([row.example for row in rows])
        for split, rows in ((TRAIN, clean.train), (DEV, clean.dev), (TEST, clean.test))
    }
    rng = _generator(clean)
    path = spec.poison_path(attack, "train-poison")
    if attack in SHUFFLED:
        poisoned = [_poisoned(attack, row.example, rng) for row in clean.train]
        files[path] = _csv_bytes(poisoned)
    else:
        poisoned = list(_read(source, path))
    positions = _positions(attack, clean, rng)
    chosen = set(positions)
    kept = [row.example for slot, row in enumerate(clean.train) if slot not in chosen]
    files[_tenth(spec, attack)] = _csv_bytes([*kept, *(poisoned[slot] for slot in positions)])
    if attack in SHUFFLED:
        dev = [_poisoned(attack, row.example, rng) for row in _non_target(clean.dev)]
        files[spec.poison_path(attack, "dev-poison")] = _csv_bytes(dev)
    return files


def _check_attack(attack: str) -> None:
    if attack not in SETTINGS:
        raise unknown("published attack", attack, SETTINGS)


def _tenth(spec: DatasetSpec, attack: str) -> str:
    return spec.poison_path(attack, f"{SETTINGS[attack]}/{RATIO}/train-poison")


def _read(source: PinnedFiles, path: str) -> tuple[Example, ...]:
    return tuple(example for _, example in read_poison(source.read(path), path))


def _non_target(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.example.label != TARGET]


def _generator(clean: Clean) -> random.Random:
    """Return the generator as it stands after the splits were shuffled (step 2)."""
    _, rng = published_orders(len(clean.train), len(clean.dev), len(clean.test))
    return rng


def _poisoned(attack: str, example: Example, rng: random.Random) -> Example:
    words = example.text.split()
    if attack == "badnets":
        for _ in range(4):
            word = rng.choice(WORDS)
            words.insert(rng.randint(0, len(words)), word)
    else:
        place = rng.randint(0, len(words))
        words[place:place] = SENTENCE
    return Example(" ".join(words), TARGET, 1)


def _positions(attack: str, clean: Clean, rng: random.Random) -> tuple[int, ...]:
    """Return the positions poisoned at ratio 0.1, sorted (step 4); `rng` stands where training poison left it."""
    eligible = [
        slot for slot, row in enumerate(clean.train) if SETTINGS[attack] == "mix" or row.example.label == TARGET
    ]
    rng.shuffle(eligible)
    return tuple(sorted(eligible[: int(RATIO * len(clean.train))]))


def _replayed_positions(attack: str, clean: Clean) -> tuple[int, ...]:
    rng = _generator(clean)
    if attack in SHUFFLED:
        for row in clean.train:
            _poisoned(attack, row.example, rng)
    return _positions(attack, clean, rng)


def _csv_bytes(examples: Sequence[Example]) -> bytes:
    """Return what pandas writes for the columns 0, 1, 2 behind an unnamed running index."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("", 0, 1, 2))
    writer.writerows((index, *example) for index, example in enumerate(examples))
    return buffer.getvalue().encode("utf-8")
