"""Who may see which clean rows: selection, the method's own and calibration rows never overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.core.errors import CellError
from bench.core.example import Example, blinded
from bench.core.seeding import python_rng


class CleanRows(NamedTuple):
    """Disjoint parts of the clean dev split."""

    selection: tuple[Example, ...]
    method: tuple[Example, ...]
    calibration: tuple[Example, ...]


def method_rows(samples: int, calibrated: bool, budget: int | None = None) -> int:
    """Return how many clean rows a defense gets for its method: what it asks for, or its part of a fixed budget."""
    if budget is None or not samples:
        return samples
    return budget // 2 if calibrated else budget


def divide(
    dev: Sequence[Example],
    samples: int,
    calibrated: bool,
    dataset: str,
    seed: int,
    budget: int | None = None,
    taken: int = 0,
) -> CleanRows:
    """Return the parts of `dev`: one half chooses checkpoints, the other half is for defenses.

    The order depends on the data set and the seed alone, so that a defense that asks for more rows
    gets those of a smaller request and more. `dataset` is its name: variants share the order.
    With a `budget` a defense gets exactly so many rows of its half: all for its method, all for calibration, or, where
    it does both, half for each (the odd one for calibration), whatever number it asks for by itself; each link of a
    chain gets its own.
    Of the first `taken` rows other links of the same chain have made their methods: they calibrate nothing, and what a
    budget leaves for calibration lies behind them.

    Raises:
        CellError: the method or the budget asks for more rows than the half holds.
    """
    order = python_rng(seed, f"dev of {dataset}").sample(range(len(dev)), len(dev))
    half = len(dev) // 2
    rows = blinded(dev[i] for i in order)
    selection, pool = rows[:half], rows[half:]
    if budget is not None:
        if budget > len(pool):
            raise CellError(
                f"A clean budget of {budget} rows is asked for, and half of the dev split holds {len(pool)}.",
                "Lower clean_budget, or take a data set with more dev rows.",
            )
        samples = method_rows(samples, calibrated, budget)
    if samples > len(pool):
        raise CellError(
            f"The defense needs {samples} clean samples, and half of the dev split holds {len(pool)}.",
            "Lower its clean_samples, or take a data set with more dev rows.",
        )
    if not calibrated:
        return CleanRows(tuple(selection), tuple(pool[:samples]), ())
    first = max(samples, taken)
    end = len(pool) if budget is None else first + budget - samples
    if end > len(pool):
        raise CellError(
            f"The defense calibrates on {end - first} rows of a clean budget of {budget}, behind {first} rows that are"
            f" learnt from, and half of the dev split holds {len(pool)}.",
            "Lower clean_budget, or the clean_samples of the links before, or take a data set with more dev rows.",
        )
    return CleanRows(tuple(selection), tuple(pool[:samples]), tuple(pool[first:end]))
