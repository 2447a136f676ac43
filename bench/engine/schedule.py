"""The order of the work: which tasks can start, and what a failed stage takes with it."""

from __future__ import annotations

import time
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
        self._done: set[str] = set()
        self._later: list[tuple[float, str]] = []  # when to look again at what another run builds
        self._waiting: dict[str, set[str]] = {}
        self._children: dict[str, dict[str, None]] = {}  # in order
        self._task: dict[str, int] = {}
        self._members: dict[int, list[str]] = {}
        self._open: dict[int, int] = {}  # members of a task that still wait
        self._ready: deque[int] = deque()
        for key in self.stages:
            self._wait(key)
        for group in groups:
            self._add([key for key in group if key in self.stages])

    def is_due(self, key: str) -> bool:
        """Tell whether a stage has still to be built."""
        return key in self.stages and key not in self._done and key not in self.failed

    def children(self, key: str) -> list[Stage]:
        """Return the stages made from a stage that have still to be built."""
        return [self.stages[child] for child in self._children.get(key, ()) if self.is_due(child)]

    def _wait(self, key: str) -> None:
        """Let a stage wait for those of its parents that have to be built."""
        parents = {parent.key for parent in self.stages[key].parents.values()}
        self._waiting[key] = {parent for parent in parents if self.is_due(parent)}
        for parent in self._waiting[key]:
            self._children.setdefault(parent, {})[key] = None

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
        now = time.monotonic()
        for entry in [entry for entry in self._later if entry[0] <= now]:
            self._later.remove(entry)
            self._add([entry[1]])
        while self._ready:
            members = [key for key in self._members[self._ready.popleft()] if key not in self.failed]
            if members:
                return [self.stages[key] for key in members]
        return None

    def break_up(self) -> bool:
        """Turn the groups that wait for each other's children into tasks of one; tell whether there were any.

        A group that waits for what was put off, be it through others, is left whole: its time comes.
        """
        behind = self._behind(key for _, key in self._later)
        groups = [number for number, members in self._members.items() if len(members) > 1]
        stuck = [number for number in groups if self._open[number] and number not in behind]
        for number in stuck:
            members, self._members[number], self._open[number] = self._members[number], [], 0
            for key in members:
                self._add([key])
        return bool(stuck)

    def _behind(self, keys: Iterable[str]) -> set[int]:
        """Return the tasks that wait for one of the stages, or for a task that does."""
        found: set[int] = set()
        look = list(keys)
        while look:
            for child in self._children.get(look.pop(), ()):
                if self._waiting[child] and self._task[child] not in found:
                    found.add(self._task[child])
                    look += self._members[self._task[child]]
        return found

    def done(self, key: str) -> None:
        """Take note that a stage is built: its children can start, before anything else."""
        self._done.add(key)
        for child in self._children.get(key, ()):
            # Children first: the weights that they read can then be released early.
            self._free(child, key)

    def later(self, key: str, seconds: float) -> None:
        """Put a stage off that another run is building: it becomes a task of its own."""
        self._waiting[key] = set()
        self._later.append((time.monotonic() + seconds, key))

    def pause(self) -> float | None:
        """Return the seconds until the next stage that was put off is due, None where none was."""
        return max(0.0, min(self._later)[0] - time.monotonic()) if self._later else None

    def again(self, child: str | None, missing: Mapping[str, Stage]) -> None:
        """Put stages back that have to be built once more, and behind them the one that found them missing."""
        for key, stage in missing.items():
            self.stages[key] = stage
            self._done.discard(key)
        for key in missing:
            self._wait(key)
        for key in missing:
            self._add([key])
        if child is not None:
            self._wait(child)
            self._add([child])

    def fail(self, key: str, error: Mapping[str, Any]) -> list[str]:
        """Take note that a stage failed; return it and all that can no longer be built."""
        lost, look = [], [key]
        while look:
            key = look.pop()
            if key in self.failed or key in self._done:
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
