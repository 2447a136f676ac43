"""What a plug-in handed back, checked where the engine takes it: one sentence in place of a bare error later on."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np

from attackers.selection import Poisoned
from bench.core.errors import CellError, printable
from bench.core.example import Example
from defenders.base import Suspicion


def flags_of(found: Any, count: int) -> np.ndarray:
    """Return what `detect` gave for `count` examples as integers [count].

    Raises:
        CellError: it is not 0 or 1, or False or True, for each of them.
    """
    rule, remedy = "The defense did not answer 0 or 1 for each example", "Return one flag for each, in order."
    flags = _array(found)
    if flags is None or flags.ndim != 1:
        raise CellError(f"{rule}: its detect() returned {shown(found)}.", remedy)
    if len(flags) != count:
        raise CellError(f"{rule}: it returned {len(flags)} flags for {count} examples.", remedy)
    odd = [flag for flag in flags.tolist() if not isinstance(flag, Real) or flag not in (0, 1)]
    if odd:  # a share of 0.7 is no flag, and would be cut to 0
        raise CellError(f"{rule}: one of its flags is {shown(odd[0])}.", remedy)
    return flags.astype(int)


def scores_of(found: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of a suspicion of `count` examples as floats [count], and the flags that its threshold gives.

    Raises:
        CellError: it is no `Suspicion`, has not one finite score for each of them, or no number for a threshold.
    """
    if not isinstance(found, Suspicion):
        raise CellError(
            f"The defense's suspicion is {shown(found)}, and no Suspicion.",
            "Return Suspicion(scores, threshold) of defenders.base.",
        )
    scores = _array(found.scores, float)
    if scores is None or scores.shape != (count,) or not np.isfinite(scores).all():
        raise CellError(
            f"The defense did not give one finite score for each of {count} examples: {shown(found.scores)}.",
            "Mend its suspicion().",
        )
    threshold = None if found.threshold is None else _array(found.threshold, float)
    if threshold is None or threshold.size != 1:
        raise CellError(
            f"The threshold of the defense's suspicion is {shown(found.threshold)}, and must be one number.",
            "Mend its suspicion().",
        )
    if isinstance(found.threshold, Real):
        return scores, found.flags()
    return scores, Suspicion(found.scores, float(threshold.item())).flags()  # such as a tensor, of torch.quantile


def examples_of(found: Any, remedy: str) -> list[Example]:
    """Return what `correct` gave as examples.

    Raises:
        CellError: it is no row of examples, (text, label, flag) each; `remedy` says which are asked for.
    """
    try:
        rows = list(found)
    except TypeError:
        raise CellError(f"The defense's correct() returned {shown(found)}, and no examples.", remedy) from None
    for row in rows:
        if not (isinstance(row, (tuple, list)) and len(row) > 1 and isinstance(row[0], str)):
            raise CellError(
                f"The defense's correct() returned {shown(row)} among its rows, and an example is (text, label, flag).",
                remedy,
            )
    return [Example(*row[:3]) for row in rows]


def victim_of(found: Any) -> Any:
    """Return what `repair` gave.

    Raises:
        CellError: it is no victim.
    """
    from bench.victim.victim import Victim

    if not isinstance(found, Victim):
        raise CellError(
            f"The defense's repair() returned {shown(found)}, and no victim.",
            "Return the repaired victim: the one that it is given is a copy, and may be changed.",
        )
    return found


def hooks_of(found: Any) -> tuple[Any, ...]:
    """Return what `hooks` gave as a tuple.

    Raises:
        CellError: it is no row of objects with `on_gradients`.
    """
    hooks = tuple(found) if isinstance(found, Iterable) else None
    if hooks is None or not all(callable(getattr(hook, "on_gradients", None)) for hook in hooks):
        raise CellError(
            f"The defense's hooks() returned {shown(found)}, and no objects with on_gradients(run, batch).",
            "Return a list of them; () is none.",
        )
    return hooks


def poison_of(found: Poisoned, attack: str, asked: str) -> Poisoned:
    """Return what an attack wrote of `asked`, the rows that it was given.

    Raises:
        CellError: it wrote none where it was given some, or something that is no text.
    """
    for example in found.examples:
        if not isinstance(example.text, str):
            raise CellError(
                f"Attack {attack!r} returned {shown(example.text)} in place of a text.",
                "Return one text, such as ' '.join(words), from its trigger().",
            )
    if found.dropped and not any(example.poisoned for example in found.examples):
        raise CellError(
            f"Attack {attack!r} returned no text for any of {found.dropped} {asked}.",
            "Return the poisoned text from its trigger(), or give it texts that it can poison.",
        )
    return found


def shown(value: Any) -> str:
    """Return a value as an error names it: short, on one line."""
    return printable(reprlib.repr(value), 120).replace("\n", " ")


def _array(value: Any, kind: type | None = None) -> np.ndarray | None:
    """Return a value as an array of one kind; None for what cannot be one, such as rows of many lengths."""
    try:
        return np.asarray(value, dtype=kind)
    except (TypeError, ValueError):
        return None
