"""Readings of several victims in step: what they ask at one time is answered in one pass over their shared backbone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from bench.core.errors import CellError, tried
from bench.core.memory import free, is_out_of_memory, part_size, with_smaller_batches
from bench.victim.batching import Encoded
from bench.victim.joint.forward import Soft
from bench.victim.joint.layout import Source
from bench.victim.joint.passes import JointModel
from bench.victim.joint.support import shareable
from bench.victim.questions import LikelyUnder, Question, Reading, Slope, answered


class Read(NamedTuple):
    """What a reading found, its share of the seconds, and into how many parts batches were cut for it."""

    found: Any
    seconds: float
    cut: int = 1


def default_width(device: torch.device, members: int) -> int:
    """Return how many victims answer in one pass: all of them on a GPU, one on a CPU, where a batch fills the core."""
    return 1 if device.type == "cpu" else members


def read_gang(readings: Sequence[Reading], *, width: int | None = None) -> list[Read | Exception]:
    """Return what each reading finds or why it failed, as if each was made alone, up to the order of float sums.

    Where a pass needs more memory than there is, it is tried again at half the width; who does not fit alone begins
    anew with smaller batches.

    Args:
        width: how many victims answer in one pass at most; None: `default_width`.

    Raises:
        CellError: the victims cannot share a pass (see bench/victim/joint/support.py).
    """
    victims = [reading.victim for reading in readings]
    reason = shareable(victims) if len(victims) > 1 else ""
    if reason:
        raise CellError(f"These {len(victims)} victims cannot be read as one gang: {reason}.", "Read them one by one.")
    width = width or default_width(victims[0].device, len(victims))
    results: list[Read | Exception | None] = [None] * len(victims)
    if min(width, len(victims)) > 1:
        results = _together(readings, width)
    return [_alone(reading) if found is None else found for reading, found in zip(readings, results, strict=True)]


def _alone(reading: Reading) -> Read | Exception:
    """Return what a victim by itself gives; where memory runs out, once more with smaller batches."""
    began = time.perf_counter()
    try:
        found, cut = with_smaller_batches(lambda: answered(reading.victim, reading.ask()), lambda: None)
    except Exception as error:
        return error
    return Read(found, time.perf_counter() - began, cut)


class _Member:
    """One reading on its way: what it asks next, and what became of it."""

    def __init__(self, reading: Reading, place: int) -> None:
        self.victim, self.place = reading.victim, place
        self.asking = reading.ask()
        self.question: Question | None = None
        self.result: Read | Exception | None = None
        self.seconds = 0.0
        self.take(None)

    def take(self, answer: Any) -> None:
        """Take the answer, or the error that came of the question, and ask the next one, or end."""
        began, self.question = time.perf_counter(), None
        try:
            if isinstance(answer, Exception):
                self.asking.close()
                raise answer
            self.question = self.asking.send(answer)
        except StopIteration as end:
            self.result = Read(end.value, self.seconds + time.perf_counter() - began)
        except Exception as error:
            # Who has no room even alone is left without a result, and begins anew with smaller batches.
            self.result = None if is_out_of_memory(error) else error
        self.seconds += time.perf_counter() - began


def _together(readings: Sequence[Reading], width: int) -> list[Read | Exception | None]:
    """Return the results of readings in step; None for those that even alone do not fit the memory."""
    joint = JointModel([reading.victim for reading in readings])
    members = [_Member(reading, place) for place, reading in enumerate(readings)]
    while asking := [member for member in members if member.question is not None]:
        slopes = isinstance(asking[0].question, Slope)
        waiting = [member for member in asking if isinstance(member.question, Slope) is slopes]
        while waiting:
            part, began = waiting[:width], time.perf_counter()
            answers = _answers(joint, part)
            if answers is None:
                free()
                width = (len(part) + 1) // 2
                continue
            share = (time.perf_counter() - began) / len(part)
            for member, answer in zip(part, answers, strict=True):
                member.seconds += share
                member.take(answer)
            waiting = waiting[len(part) :]
    return [member.result for member in members]


def _answers(joint: JointModel, members: Sequence[_Member]) -> list[Any] | None:
    """Return the answers to what members ask, all of them slopes or none; an error stands for the answer that it cost.

    None where the memory does not take so many.
    """
    if len(members) == 1:
        (member,) = members
        return [tried(lambda: member.question.alone(member.victim))]
    try:
        return _slopes(joint, members) if isinstance(members[0].question, Slope) else _likely(joint, members)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return None


def _likely(joint: JointModel, members: Sequence[_Member]) -> list[Any]:
    texts: dict[int, Encoded] = {}
    soft: dict[int, Soft] = {}
    answers: dict[int, Any] = {}
    for member in members:
        question, place = member.question, member.place
        if isinstance(question, LikelyUnder):
            texts[place], soft[place] = question.texts, question.trigger.soft()
            continue
        encoded = tried(lambda it=member, asked=question: it.victim.encode_texts(asked.texts))
        (answers if isinstance(encoded, Exception) else texts)[place] = encoded
    answers |= joint.probabilities(texts, part_size(members[0].victim.prediction_batch), soft)
    return [answers[member.place] for member in members]


def _slopes(joint: JointModel, members: Sequence[_Member]) -> list[Any]:
    places, questions = [member.place for member in members], [member.question for member in members]
    vectors = [question.trigger.vectors.clone().requires_grad_(True) for question in questions]
    soft = [question.trigger.soft(own) for question, own in zip(questions, vectors, strict=True)]
    sources = [Source(place, it.batch.data, it.batch.rows) for place, it in zip(places, questions, strict=True)]
    layout = joint.lay_out(sources)
    own = {name: value.detach() for name, value in joint.stacked(places).items()}
    with torch.enable_grad():
        likely = joint.encoder(layout, places, None, own, soft).logits().softmax(-1)
        losses = []
        for question, order, (first, _) in zip(questions, layout.order, layout.row_bounds, strict=True):
            rows = [first + order.index(row) for row in question.batch.rows]
            losses.append(tried(lambda it=question, where=rows: it.loss(likely[where])))
    good = [place for place, loss in enumerate(losses) if not isinstance(loss, Exception)]
    if not good:
        return losses
    gradients = torch.autograd.grad(sum(losses[place] for place in good), [vectors[place] for place in good])
    return [dict(zip(good, gradients, strict=True)).get(place, losses[place]) for place in range(len(members))]
