"""Several stages of one kind in one worker, as one gang: trainings, or readings of trained victims."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.core.errors import tried
from bench.core.memory import free, is_out_of_memory
from bench.engine.bounded import bounded
from bench.engine.repeatable import repeatable
from bench.engine.store import Store, write_json
from bench.engine.work import NONE, Built, Job, Machine, Workers, claimed, execute, manifest_of, standing, writing

Payload = Mapping[str, Any]
Result = Built | Exception


class Kind(NamedTuple):
    """How stages of one kind are built together; one that is built alone goes through the same functions."""

    begin: Callable[[Job], tuple[Any, dict[str, Any]]]  # the task, which has a victim, and what the stage says already
    act: Callable[[Sequence[Any]], Sequence[Any]]  # what became of each task, with its `seconds`, or its error
    end: Callable[[Job, Any, dict[str, Any], Any], dict[str, Any]]  # writes that; returns what the stage says of itself


def _kind(name: str) -> Kind | None:
    """Return how stages of a kind form a gang, None where they do not."""
    if name == "train":
        from bench.engine.work_training import trained, training
        from bench.victim.training import train_gang

        return Kind(training, train_gang, trained)
    if name in ("detect", "evaluate"):
        from bench.engine.work_reading import READINGS, written
        from bench.victim.joint.answers import read_gang

        return Kind(READINGS[name], read_gang, written)
    return None


def execute_gang(payloads: Sequence[Payload], root: Path, machine: Machine, workers: Workers = NONE) -> list[Result]:
    """Build several stages in one worker; return, in their order, what `execute` returns or raises for each."""
    (name, *others) = {payload["kind"] for payload in payloads}
    kind = None if others or name in workers else _kind(name)
    if kind is None:
        return [tried(lambda it=payload: execute(it, root, machine, workers)) for payload in payloads]
    members = [_Member(payload, kind) for payload in payloads]
    left = members
    while left:
        with ExitStack() as held:
            begun = _begin(left, root, machine, held)
            with repeatable(machine.device, machine.deterministic), bounded(machine.device, machine.memory):
                _act([member for member in begun if member.result is None], kind, machine)
        left = left[len(begun) :]
        if left:
            free()  # of what has just been done, before the next one asks for its room
    return [member.result for member in members]


@dataclass
class _Member:
    """One stage of a gang: claimed, drafted, prepared, and what became of it."""

    payload: Payload
    kind: Kind
    result: Result | None = None
    job: Job | None = None
    task: Any = None
    noted: dict[str, Any] | None = None
    seconds: float = 0.0

    def begin(self, root: Path, machine: Machine, held: ExitStack) -> None:
        """Claim the stage and make its victim, or find it done; the claim and the draft end with `held`."""
        began, store = time.perf_counter(), Store(root)
        held.enter_context(claimed(store, self.payload))
        manifest = standing(store, self.payload)
        if manifest is not None:
            self.result = Built(manifest, False)
            return
        store.forget_drafts(self.payload["key"])
        with writing(store):
            self.job = Job(self.payload, store, held.enter_context(store.draft(self.payload["key"])), machine)
            with repeatable(machine.device, machine.deterministic), bounded(machine.device, machine.memory):
                self.task, self.noted = self.kind.begin(self.job)
        self.seconds = time.perf_counter() - began

    def end(self, found: Any, machine: Machine) -> None:
        """Write what became of the task and move it into the store."""
        if isinstance(found, Exception):
            raise found
        began, job = time.perf_counter(), self.job
        with writing(job.store):
            write_json(job.aside / "meta.json", self.kind.end(job, self.task, self.noted, found))
            seconds = self.seconds + found.seconds + time.perf_counter() - began
            manifest = manifest_of(self.payload, machine, seconds)
            self.result = Built(job.store.finish(self.payload["key"], job.aside, manifest), True)


def _begin(members: Sequence[_Member], root: Path, machine: Machine, held: ExitStack) -> list[_Member]:
    """Begin members until memory runs out, the first in any case; return those, whose claims end with `held`.

    A member that can share the backbone of an earlier one lets its own copy go at once, so that a gang of large models
    holds one backbone, and a second one only while a member is loaded.
    """
    begun: list[_Member] = []
    for member in members:
        full = False
        with ExitStack() as own:
            try:
                member.begin(root, machine, own)
            except Exception as error:
                full = bool(begun) and is_out_of_memory(error)
                member.result = None if full else error
            if not full:
                held.push(own.pop_all())
        if full:
            free()
            return begun
        _share(member, begun)
        begun.append(member)
    return begun


def _share(member: _Member, others: Sequence[_Member]) -> None:
    """Give a member the frozen tensors of the first of the others that it can form a gang with, if there is one."""
    from bench.victim.joint.support import share, shareable

    for other in others:
        if member.task is not None and other.task is not None:
            if not shareable([other.task.victim, member.task.victim]):
                share(other.task.victim, member.task.victim)
                return


def _act(members: Sequence[_Member], kind: Kind, machine: Machine) -> None:
    """Do the tasks of the members in gangs of those that can share a pass; the others alone, in the same order."""
    for group in _groups(members):
        try:
            results = kind.act([member.task for member in group])
        except Exception as error:
            results = [error] * len(group)
        for member, result in zip(group, results, strict=True):
            _guard(member, lambda it=member, found=result: it.end(found, machine))
            member.task = None  # its victim is no longer needed, and the next group wants the room


def _groups(members: Sequence[_Member]) -> list[list[_Member]]:
    """Divide members so that each group can be one gang; the plan groups by name, the victims themselves decide."""
    from bench.victim.joint.support import shareable

    groups: list[list[_Member]] = []
    for member in members:
        for group in groups:
            if not shareable([group[0].task.victim, member.task.victim]):
                group.append(member)
                break
        else:
            groups.append([member])
    return groups


def _guard(member: _Member, act: Callable[[], None]) -> None:
    """Run one member's part; an exception becomes its result and leaves the others alone."""
    try:
        act()
    except Exception as error:
        member.result = error
