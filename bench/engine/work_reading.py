"""The stages that read a victim, evaluate and detect, alone or in a gang."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.core.errors import BenchError
from bench.engine.artifacts import write_arrays
from bench.engine.returned import flags_of, scores_of
from bench.engine.tested import check_untouched, shuffled, tests_of, unlabelled
from bench.engine.victims import bound, restored
from bench.engine.work import Job
from bench.victim.joint.answers import Read
from bench.victim.questions import Asking, Likely, Reading, answered
from defenders.base import asks_questions, gives_scores

Arrays = dict[str, Any]
FILES = {"evaluate": "predictions.npz", "detect": "flags.npz"}


def evaluation(job: Job) -> tuple[Reading, dict[str, Any]]:
    """Return what finds the victim's probabilities on the clean and the poisoned test texts."""
    victim = restored(job)
    clean, poisoned = tests_of(job)
    placed = job.examples("trigger", "test").rows

    def ask() -> Asking[Arrays]:
        probabilities = yield Likely([example.text for example in [*clean, *poisoned]])
        if not np.isfinite(probabilities).all():
            raise BenchError("The victim's predictions are not finite.", "Lower its learning rate.")
        return {
            "clean": probabilities[: len(clean)],
            "poisoned": probabilities[len(clean) :],
            "labels": [example.label for example in clean],
            "rows": placed,
        }

    return Reading(victim, ask), {}


def detection(job: Job) -> tuple[Reading, dict[str, Any]]:
    """Return what lets the defense flag test examples: clean and poisoned ones in random order, unmarked.

    Only an oracle sees which is which.
    """
    victim = restored(job)
    defense, counts = bound(job)
    clean, poisoned = tests_of(job)
    known = {"dev": list(defense.knowledge.calibration)}
    order = shuffled(job, len(clean) + len(poisoned))

    def ask() -> Asking[Arrays]:
        given = [*clean, *poisoned]
        mixed = [given[i] for i in order]
        shown = mixed if defense.oracle else unlabelled(mixed)
        before = victim.fingerprint()
        scores, flags = yield from _suspected(defense, {"model": victim, "clean_data": known, "poison_data": shown})
        check_untouched(job, victim, before)
        return _arrays(scores, flags_of(flags, len(order)), order, len(clean))

    return Reading(victim, ask), {"knowledge": counts}


def _suspected(defense: Any, asked: dict[str, Any]) -> Asking[tuple[np.ndarray | None, Any]]:
    """Find the scores, None where the defense has none, and the flags of the examples."""
    if not gives_scores(type(defense)):
        return None, defense.detect(**asked)
    if asks_questions(type(defense)):
        found = yield from defense.questions(**asked)
    else:
        found = defense.suspicion(**asked)
    return scores_of(found, len(asked["poison_data"]))


def _arrays(scores: np.ndarray | None, flags: np.ndarray, order: list[int], clean: int) -> Arrays:
    """Return flags and scores, in the order in which they were shown, as they are written: `clean` of them first."""
    back = np.argsort(order)
    flags = flags[back]
    arrays = {"clean": flags[:clean], "poisoned": flags[clean:]}
    if scores is not None:
        scores = scores[back]
        arrays |= {"clean_scores": scores[:clean], "poisoned_scores": scores[clean:]}
    return arrays


def written(job: Job, reading: Reading, noted: dict[str, Any], read: Read) -> dict[str, Any]:
    """Write what a reading has found; return what the stage says of itself."""
    write_arrays(job.aside / FILES[job.kind], read.found)
    return noted if read.cut == 1 else {**noted, "batches_cut": read.cut}


def reading_stage(job: Job) -> dict[str, Any]:
    """Read the victim by itself and write what is found."""
    reading, noted = READINGS[job.kind](job)
    return written(job, reading, noted, Read(answered(reading.victim, reading.ask()), 0.0))


READINGS = {"evaluate": evaluation, "detect": detection}
