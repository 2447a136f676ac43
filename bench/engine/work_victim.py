"""The stages that hold a model: cleanse, repair, filter, detect, evaluate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bench.core.errors import BenchError, CellError
from bench.core.example import Example
from bench.core.seeding import python_rng
from bench.engine.artifacts import Numbered, write_arrays, write_examples
from bench.engine.victims import bound, restored
from bench.engine.work import Job
from bench.engine.work_training import train_stage
from defenders.base import Defender


def _repair(job: Job) -> dict[str, Any]:
    """Let the defense repair a copy of the trained victim."""
    defense, counts = bound(job)
    repaired = defense.repair(restored(job), defense.knowledge)
    repaired.save(job.aside)
    # What the repair decided on its own: the reserve ratio that it chose, the words that it reset.
    return {"knowledge": counts, "decided": getattr(repaired, "repairs", [])}


def _cleanse(job: Job) -> dict[str, Any]:
    """Let the defense remove training rows; what it saw held no poison flag, what is kept regains it."""
    victim = restored(job) if "victim" in job.parents else None
    defense, counts = bound(job, victim)
    data = job.examples("data", "train")

    order = shown_order(data.rows, job.examples("load", "train").rows, job.seed("order"))
    shown = tuple(data.examples[i] for i in order)

    def act() -> Any:
        return defense.correct(model=victim, clean_data=None, poison_data=shown)

    kept = sorted(order[i] for i in _kept(list(_untouched(job, victim, act)), shown))
    labels = {example.label for example in data.examples}
    left = {data.examples[i].label for i in kept}
    if left != labels:
        gone = ", ".join(map(str, sorted(labels - left))) or "every row"
        raise CellError(f"The defense removed every training row of class {gone}.", "Loosen its threshold.")
    write_examples(job.aside / "train.jsonl", [data.examples[i] for i in kept], [data.rows[i] for i in kept])
    removed = set(range(len(data.examples))) - set(kept)
    hit = sum(data.examples[i].poisoned for i in removed)
    return {"knowledge": counts, "removed": len(removed), "removed_poisoned": hit}


def shown_order(rows: Sequence[int], source: Sequence[int], seed: int) -> list[int]:
    """Return the order in which a cleanser sees training rows, so that no place tells which are poisoned.

    That of the clean split, by their numbers in the source, which is the order of all rows that this suite poisons
    itself: the published files and OpenBackdoor's poisoners put the poison last. Where the source of some row is not
    known (-1), a random one.
    """
    if any(row < 0 for row in rows):
        return python_rng(seed, "shown").sample(range(len(rows)), len(rows))
    place = {row: number for number, row in enumerate(source)}
    return sorted(range(len(rows)), key=lambda i: place[rows[i]])


def _kept(returned: list[tuple], given: tuple[Example, ...]) -> list[int]:
    """Return the positions of the returned examples, a subsequence of the given ones by text and label."""
    places: dict[tuple[str, int], list[int]] = {}
    for position in range(len(given) - 1, -1, -1):
        places.setdefault((given[position].text, given[position].label), []).append(position)
    kept = []
    for text, label, *_ in returned:
        left = places.get((text, label))
        if not left:
            raise CellError(
                "The defense returned a training row that it was not given.", "Return a subset of the rows."
            )
        kept.append(left.pop())
    return sorted(kept)


def _same_length(texts: list[Any], count: int) -> list[Example]:
    if len(texts) != count:
        raise CellError(
            f"The defense answered {len(texts)} examples for {count}.", "Return one for each example, in order."
        )
    return [Example(*row) for row in texts]


def _untouched(job: Job, victim: Any, act: Callable[[], Any]) -> Any:
    """Run `act` and fail the cell if it changed the victim that was lent to it."""
    if victim is None:
        return act()
    before = victim.fingerprint()
    result = act()
    if victim.fingerprint() != before:
        name = job.content["defense"]["name"]
        raise CellError(f"Defense {name!r} changed the victim that it was lent.", "Let it work on a copy.")
    return result


def _unlabelled(examples: Iterable[Example]) -> list[Example]:
    """Return test examples as a defense sees them: texts alone, since a poisoned one is labelled with the target."""
    return [Example(example.text, 0, 0) for example in examples]


def _tests(job: Job) -> tuple[list[Example], list[Example]]:
    """Return the clean and the poisoned test examples, as a filter left them."""
    return list(_texts(job, "clean").examples), list(_texts(job, "poisoned").examples)


def _texts(job: Job, name: str) -> Numbered:
    """Return the `clean` or the `poisoned` test examples, as the last filter before this stage left them."""
    if name in job.parents:
        return job.examples(name, name)
    if "filter" in job.parents:
        return job.examples("filter", name)
    return job.examples("load" if name == "clean" else "trigger", "test")


def _shuffled(job: Job, count: int) -> list[int]:
    """Return the order in which a defense sees `count` test examples, so that no place tells which are poisoned."""
    return python_rng(job.seed("order"), "shown").sample(range(count), count)


def _filter(job: Job) -> dict[str, Any]:
    """Let the defense rewrite the test texts, or those that the stage is for, in random order and unmarked.

    Clean and poisoned texts come together, unless the defense says that a text's fate hangs on that text alone
    (`filter_is_drawn`): then each kind has a stage of its own, which other cells share.
    """
    victim = restored(job) if "victim" in job.parents else None
    defense, counts = bound(job)
    known = {"dev": list(defense.knowledge.calibration)}
    names = (job.content["texts"],) if "texts" in job.content else ("clean", "poisoned")
    kinds = [_texts(job, name) for name in names]
    given = [example for kind in kinds for example in kind.examples]
    order = _shuffled(job, len(given))

    def act() -> Any:
        return defense.correct(model=victim, clean_data=known, poison_data=_unlabelled(given[i] for i in order))

    rewritten = _same_length(list(_untouched(job, victim, act)), len(given))
    for new, place in zip(rewritten, order, strict=True):
        given[place] = given[place]._replace(text=new.text)
    for name, kind in zip(names, kinds, strict=True):
        here, given = given[: len(kind.examples)], given[len(kind.examples) :]
        write_examples(job.aside / f"{name}.jsonl", here, kind.rows)
    return {"knowledge": counts}


def _detect(job: Job) -> dict[str, Any]:
    """Let the defense flag test examples: clean and poisoned ones in random order, unmarked but to an oracle."""
    victim = restored(job)
    defense, counts = bound(job)
    clean, poisoned = _tests(job)
    known = {"dev": list(defense.knowledge.calibration)}
    order = _shuffled(job, len(clean) + len(poisoned))

    def act() -> Any:
        given = [*clean, *poisoned]
        mixed = [given[i] for i in order]
        shown = mixed if defense.oracle else _unlabelled(mixed)
        asked = {"model": victim, "clean_data": known, "poison_data": shown}
        if type(defense).suspicion is Defender.suspicion:
            return None, defense.detect(**asked)
        found = defense.suspicion(**asked)
        return np.asarray(found.scores, dtype=float), found.flags()

    scores, flags = _untouched(job, victim, act)
    flags = np.asarray(flags).astype(int)
    if flags.shape != (len(clean) + len(poisoned),) or not set(flags.tolist()) <= {0, 1}:
        raise CellError("The defense did not answer 0 or 1 for each example.", "Return one flag for each, in order.")
    back = np.argsort(order)
    flags = flags[back]
    arrays = {"clean": flags[: len(clean)], "poisoned": flags[len(clean) :]}
    if scores is not None:
        if scores.shape != flags.shape or not np.isfinite(scores).all():
            raise CellError("The defense did not give one finite score for each example.", "Mend its suspicion().")
        scores = scores[back]
        arrays |= {"clean_scores": scores[: len(clean)], "poisoned_scores": scores[len(clean) :]}
    write_arrays(job.aside / "flags.npz", arrays)
    return {"knowledge": counts}


def _evaluate(job: Job) -> dict[str, Any]:
    """Write the victim's probabilities on the clean and the poisoned test texts."""
    victim = restored(job)
    clean, poisoned = _tests(job)
    placed = job.examples("trigger", "test").rows
    probabilities = victim.predict([example.text for example in [*clean, *poisoned]])
    if not np.isfinite(probabilities).all():
        raise BenchError("The victim's predictions are not finite.", "Lower its learning rate.")
    write_arrays(
        job.aside / "predictions.npz",
        {
            "clean": probabilities[: len(clean)],
            "poisoned": probabilities[len(clean) :],
            "labels": [example.label for example in clean],
            "rows": placed,
        },
    )
    return {}


WORKERS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "cleanse": _cleanse,
    "train": train_stage,
    "repair": _repair,
    "filter": _filter,
    "detect": _detect,
    "evaluate": _evaluate,
}
