"""Choosing rows: stratified samples and splits without common texts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

from bench.core.errors import DataError
from bench.core.example import Example


def stratified(labels: Sequence[int], size: int, rng: random.Random) -> list[int]:
    """Return `size` positions of `labels`, sorted, each class in proportion (largest remainders get the rest).

    Raises:
        DataError: there are fewer than `size` labels.
    """
    if size > len(labels):
        raise DataError(f"{size} rows were asked for and there are {len(labels)}.", "Ask for fewer rows.")
    members: dict[int, list[int]] = {}
    for position, label in enumerate(labels):
        members.setdefault(label, []).append(position)
    classes = sorted(members)
    shares = {label: size * len(members[label]) / len(labels) for label in classes}
    quota = {label: int(shares[label]) for label in classes}
    by_remainder = sorted(classes, key=lambda label: (quota[label] - shares[label], label))
    for label in by_remainder[: size - sum(quota.values())]:
        quota[label] += 1
    return sorted(position for label in classes for position in rng.sample(members[label], quota[label]))


def outside(examples: Sequence[Example], others: Iterable[Example]) -> list[int]:
    """Return the positions of the examples whose text is not among the texts of `others`."""
    texts = {example.text for example in others}
    return [position for position, example in enumerate(examples) if example.text not in texts]


def held_out(examples: Sequence[Example], rng: random.Random) -> tuple[list[int], list[int]]:
    """Return positions (rest, tenth): a stratified tenth, drawn among the texts that occur only once."""
    counts = Counter(example.text for example in examples)
    single = [position for position, example in enumerate(examples) if counts[example.text] == 1]
    picked = stratified([examples[position].label for position in single], len(examples) // 10, rng)
    tenth = [single[index] for index in picked]
    taken = set(tenth)
    return [position for position in range(len(examples)) if position not in taken], tenth
