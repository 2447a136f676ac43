"""The test texts of a stage, as a defense may see them, and the victim that it is lent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.seeding import python_rng
from bench.engine.artifacts import Numbered
from bench.engine.work import Job


def unlabelled(examples: Iterable[Example]) -> list[Example]:
    """Return test examples as a defense sees them: texts alone, since a poisoned one is labelled with the target."""
    return [Example(example.text, 0, 0) for example in examples]


def tests_of(job: Job) -> tuple[list[Example], list[Example]]:
    """Return the clean and the poisoned test examples, as a filter left them."""
    return list(texts_of(job, "clean").examples), list(texts_of(job, "poisoned").examples)


def texts_of(job: Job, name: str) -> Numbered:
    """Return the `clean` or the `poisoned` test examples, as the last filter before this stage left them."""
    if name in job.parents:
        return job.examples(name, name)
    if "filter" in job.parents:
        return job.examples("filter", name)
    return job.examples("load" if name == "clean" else "trigger", "test")


def shuffled(job: Job, count: int) -> list[int]:
    """Return the order in which a defense sees `count` test examples, so that no place tells which are poisoned."""
    return python_rng(job.seed("order"), "shown").sample(range(count), count)


def check_untouched(job: Job, victim: Any, before: str) -> None:
    """Raise CellError if a victim that was lent no longer has the fingerprint that it had before."""
    if victim.fingerprint() != before:
        name = job.content["defense"]["name"]
        raise CellError(f"Defense {name!r} changed the victim that it was lent.", "Let it work on a copy.")
