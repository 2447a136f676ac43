"""Which training rows are poisoned: ratio, label rule, target; the same rows for every defense."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from bench.core.errors import CellError, RequestError
from bench.core.example import Example
from bench.core.seeding import digest

LABEL_RULES = ("clean", "dirty", "mix")


@dataclass(frozen=True)
class Poisoned:
    """A poisoned split and where its rows come from.

    `rows[i]` is the position in the clean split of example i, None where nobody knows it; `positions`
    are those of the poisoned examples; `dropped` counts chosen rows that the attack had no text for.
    """

    examples: tuple[Example, ...]
    positions: tuple[int, ...]
    rows: tuple[int | None, ...]
    dropped: int

    def digest(self) -> str:
        """Return the digest of the poisoned positions."""
        return digest("positions", list(self.positions))


def positions_to_poison(
    labels: Sequence[int],
    ratio: float,
    rule: str,
    target: int,
    rng: random.Random,
    available: Sequence[bool] | None = None,
) -> list[int]:
    """Return the `floor(ratio x n)` positions to poison, ascending.

    `clean` takes rows of the target class only, `dirty` of the other classes only, `mix` any; of these
    only rows that are `available` [n], where that is given: those that the attack has a text for.

    Raises:
        RequestError: the target label does not occur in the data.
        CellError: fewer rows of the allowed classes than there are to poison. OpenBackdoor poisons
            fewer then; here the ratio is what it says.
    """
    if target not in labels:
        present = ", ".join(map(str, sorted(set(labels))))
        raise RequestError(
            f"target_label is {target}: the training data hold the labels {present}.", "Name one of them."
        )
    count = int(ratio * len(labels) + 1e-9)
    allowed = [
        i
        for i, label in enumerate(labels)
        if (rule == "mix" or (label == target) == (rule == "clean")) and (available is None or available[i])
    ]
    if count > len(allowed):
        raise CellError(
            f"label_rule {rule!r} leaves {len(allowed)} rows to poison, "
            f"and ratio {ratio} of {len(labels)} rows needs {count}.",
            "Lower poison_ratio." if rule == "mix" else "Lower poison_ratio or take label_rule 'mix'.",
        )
    # One permutation for every ratio, so that a larger ratio poisons a superset.
    order = rng.sample(allowed, len(allowed))
    return sorted(order[:count])


def keep_and_poison(
    examples: Sequence[Example], chosen: Sequence[int], written: Sequence[str | None], target: int
) -> Poisoned:
    """Return `examples` with the chosen rows replaced, in place, by their poisoned texts and the target label.

    A row without a text keeps its clean version and is counted as dropped.
    """
    texts = {i: text for i, text in zip(chosen, written, strict=True) if text is not None}
    return Poisoned(
        examples=tuple(
            Example(texts[i], target, 1) if i in texts else Example(example.text, example.label, 0)
            for i, example in enumerate(examples)
        ),
        positions=tuple(sorted(texts)),
        rows=tuple(range(len(examples))),
        dropped=len(chosen) - len(texts),
    )
