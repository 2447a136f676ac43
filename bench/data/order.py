"""The row order of the published files: what Python's `random` seeded with 42 makes of the file order."""

from __future__ import annotations

import random
from typing import NamedTuple

SEED = 42


class Orders(NamedTuple):
    """For each split, the file rows in published order; without a dev file, `dev` holds rows of the train file."""

    train: tuple[int, ...]
    dev: tuple[int, ...]
    test: tuple[int, ...]


def _one_pass(train: int, dev: int | None, test: int, rng: random.Random) -> Orders:
    train_rows = list(range(train))
    rng.shuffle(train_rows)
    if dev is None:
        rng.shuffle(train_rows)
        cut = int(0.1 * train)
        dev_rows, train_rows = train_rows[:cut], train_rows[cut:]
    else:
        dev_rows = list(range(dev))
        rng.shuffle(dev_rows)
    test_rows = list(range(test))
    rng.shuffle(test_rows)
    return Orders(tuple(train_rows), tuple(dev_rows), tuple(test_rows))


def published_orders(train: int, dev: int | None, test: int) -> tuple[Orders, random.Random]:
    """Return the published order of three files of so many rows, and the generator as it stands after.

    Args:
        dev: rows of the dev file, or None when there is none: dev is then cut off the train file.

    The loaders that wrote the published files ran twice: train and dev come from the second pass, test from
    the first (data README section 4, steps 1 and 2).
    """
    rng = random.Random(SEED)
    first = _one_pass(train, dev, test, rng)
    second = _one_pass(train, dev, test, rng)
    return Orders(second.train, second.dev, first.test), rng
