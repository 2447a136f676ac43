"""The order of the work: which tasks can start, and what a failed stage takes with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.engine.stages import Stage


class Schedule:
    """The stages that have to be built, in tasks; a task is ready once all its members have their parents done."""

    def __init__(self, stages: Mapping[str, Stage], groups: Iterable[Sequence[str]]) -> None:
        """Take the stages to build and the groups of the plan; members that need no building are left out."""
        self.stages = dict(stages)
        self.failed: dict[str, Mapping[str, Any]] = {}
        self._waiting: dict[str, set[str]] = {}
        self._children: dict[str, list[str]] = {}
        self._task: dict[str, int] = {}
        self._members: dict[int, list[str]] = {}
        self._open: dict[int, int] = {}  # members of a task that still wait
        self._ready: deque[int] = deque()
        for key, stage in self.stages.items():
            self._waiting[key] = {parent.key for parent in stage.parents.values() if parent.key in self.stages}
            for parent in self._waiting[key]:
                self._children.setdefault(parent, []).append(key)
        for group in groups:
            self._add([key for key in group if key in self.stages])

    def _add(self, members: list[str]) -> None:
        if members:
            number = len(self._members)
            self._members[number] = members
            self._task |= dict.fromkeys(members, number)
            self._open[number] = sum(bool(self._waiting[key]) for key in members)
            if not self._open[number]:
                self._ready.append(number)

    def take(self) -> list[Stage] | None:
        """Return the stages of the next task that can start, None while there is none."""
        while self._ready:
            members = [key for key in self._members[self._ready.popleft()] if key not in self.failed]
            if members:
                return [self.stages[key] for key in members]
        return None

    def break_up(self) -> bool:
        """Turn the groups that wait for each other's children into tasks of one; tell whether there were any."""
        stuck = [number for number, waiting in self._open.items() if waiting and len(self._members[number]) > 1]
        for number in stuck:
            members, self._members[number], self._open[number] = self._members[number], [], 0
            for key in members:
                self._add([key])
        return bool(stuck)

    def done(self, key: str) -> None:
        """Take note that a stage is built: its children can start, before anything else."""
        for child in self._children.get(key, ()):
            # Children first: the weights that they read can then be released early.
            self._free(child, key)

    def fail(self, key: str, error: Mapping[str, Any]) -> list[str]:
        """Take note that a stage failed; return it and all that can no longer be built."""
        lost, look = [], [key]
        while look:
            key = look.pop()
            if key in self.failed:
                continue
            self.failed[key] = error
            lost.append(key)
            look += self._children.get(key, ())
            if self._waiting[key]:  # its group need not wait for it any more
                self._waiting[key].clear()
                self._settle(self._task[key])
        return lost

    def _free(self, child: str, parent: str) -> None:
        if parent in self._waiting[child]:
            self._waiting[child].discard(parent)
            if not self._waiting[child]:
                self._settle(self._task[child])

    def _settle(self, number: int) -> None:
        """Count a member that waits no more; the last one makes its task ready."""
        self._open[number] -= 1
        if not self._open[number]:
            self._ready.appendleft(number)
