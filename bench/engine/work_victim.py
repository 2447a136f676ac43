"""The stages that hold a model: what each kind does, and cleanse, repair and filter themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.core.errors import CellError
from bench.core.example import Example, blinded
from bench.core.seeding import python_rng
from bench.engine.artifacts import write_examples
from bench.engine.returned import examples_of, victim_of
from bench.engine.tested import check_untouched, shuffled, texts_of, unlabelled
from bench.engine.victims import bound, restored
from bench.engine.work import Job
from bench.engine.work_reading import reading_stage
from bench.engine.work_training import train_stage


def _repair(job: Job) -> dict[str, Any]:
    """Let the defense repair a copy of the trained victim."""
    defense, counts = bound(job)
    repaired = victim_of(defense.repair(restored(job), defense.knowledge))
    repaired.save(job.aside)
    # What the repair decided on its own: the reserve ratio that it chose, the words that it reset.
    return {"knowledge": counts, "decided": getattr(repaired, "repairs", [])}


def _cleanse(job: Job) -> dict[str, Any]:
    """Let the defense remove training rows; what it saw held no poison flag, what is kept regains it."""
    victim = restored(job) if "victim" in job.parents else None
    defense, counts = bound(job, victim)
    data = job.examples("data", "train")

    order = shown_order(data.rows, job.examples("load", "train").rows, job.seed("order"))
    given = [data.examples[i] for i in order]
    shown = tuple(given if defense.oracle else blinded(given))

    def act() -> Any:
        return defense.correct(model=victim, clean_data=None, poison_data=shown)

    returned = examples_of(_untouched(job, victim, act), "Return the rows to keep, as they were given.")
    kept = sorted(order[i] for i in _kept(returned, shown))
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


def _kept(returned: list[Example], given: tuple[Example, ...]) -> list[int]:
    """Return the positions of the returned examples, a subsequence of the given ones by text and label."""
    places: dict[tuple[str, int], list[int]] = {}
    for position in range(len(given) - 1, -1, -1):
        places.setdefault((given[position].text, given[position].label), []).append(position)
    kept = []
    for text, label, _ in returned:
        left = places.get((text, label))
        if not left:
            raise CellError(
                "The defense returned a training row that it was not given.", "Return a subset of the rows."
            )
        kept.append(left.pop())
    return sorted(kept)


def _same_length(returned: Any, count: int) -> list[Example]:
    remedy = "Return one for each example, in order."
    texts = examples_of(returned, remedy)
    if len(texts) != count:
        raise CellError(f"The defense answered {len(texts)} examples for {count}.", remedy)
    return texts


def _untouched(job: Job, victim: Any, act: Callable[[], Any]) -> Any:
    """Run `act` and fail the cell if it changed the victim that was lent to it."""
    if victim is None:
        return act()
    before = victim.fingerprint()
    result = act()
    check_untouched(job, victim, before)
    return result


def _filter(job: Job) -> dict[str, Any]:
    """Let the defense rewrite the test texts, or those that the stage is for, in random order and unmarked.

    Clean and poisoned texts come together, unless the defense says that a text's fate hangs on that text alone
    (`filter_is_drawn`): then each kind has a stage of its own, which other cells share.
    """
    victim = restored(job) if "victim" in job.parents else None
    defense, counts = bound(job)
    known = {"dev": list(defense.knowledge.calibration)}
    names = (job.content["texts"],) if "texts" in job.content else ("clean", "poisoned")
    kinds = [texts_of(job, name) for name in names]
    given = [example for kind in kinds for example in kind.examples]
    order = shuffled(job, len(given))

    def act() -> Any:
        return defense.correct(model=victim, clean_data=known, poison_data=unlabelled(given[i] for i in order))

    rewritten = _same_length(_untouched(job, victim, act), len(given))
    for new, place in zip(rewritten, order, strict=True):
        given[place] = given[place]._replace(text=new.text)
    for name, kind in zip(names, kinds, strict=True):
        here, given = given[: len(kind.examples)], given[len(kind.examples) :]
        write_examples(job.aside / f"{name}.jsonl", here, kind.rows)
    return {"knowledge": counts}


WORKERS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "cleanse": _cleanse,
    "train": train_stage,
    "repair": _repair,
    "filter": _filter,
    "detect": reading_stage,
    "evaluate": reading_stage,
}
