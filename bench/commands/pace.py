"""How much longer a run takes: what is left of it, at the pace of the stages that it has built so far."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from bench.engine.stages import Stage

Kind = tuple[str, ...]


class Pace:
    """The stages that a run has to build, and the seconds that those which are built took."""

    def __init__(self, stages: Iterable[Stage] = (), known: Mapping[str, float] | None = None) -> None:
        """Take what is to be built, and the mean seconds by kind of stage where they are known before."""
        self._lock = threading.RLock()  # the live display reads while the run writes
        self._known = dict(known or {})
        self._left: dict[str, Stage] = {}
        self._count: Counter[Kind] = Counter()  # of what is left; never walked stage by stage: a grid has thousands
        self._children: dict[str, list[str]] = defaultdict(list)
        self._began: dict[str, float] = {}
        self._most = 1  # stages that were under way at once: a gang takes one worker
        self._took: dict[Kind, list[float]] = defaultdict(lambda: [0.0, 0.0])  # seconds, stages
        self.add(stages)

    def add(self, stages: Iterable[Stage]) -> None:
        """Take stages that have to be built besides."""
        with self._lock:
            for stage in stages:
                if stage.key not in self._left:
                    self._left[stage.key] = stage
                    self._count[_kind(stage)] += 1
                    for parent in stage.parents.values():
                        self._children[parent.key].append(stage.key)

    def begin(self, stage: Stage, now: float) -> None:
        """Note that a stage was begun; `now` in seconds."""
        with self._lock:
            self._began[stage.key] = now
            self._most = max(self._most, len(self._began))

    def done(self, stage: Stage, now: float) -> None:
        """Note that a stage was built."""
        with self._lock:
            began = self._began.get(stage.key)
            if began is not None:
                for kind in (_kind(stage), (stage.kind,)):
                    self._took[kind][0] += now - began
                    self._took[kind][1] += 1
            self.forget(stage.key)

    def forget(self, key: str) -> None:
        """Note that a stage need not be built any more, or cannot be."""
        with self._lock:
            self._began.pop(key, None)
            stage = self._left.pop(key, None)
            if stage is not None:
                self._count[_kind(stage)] -= 1

    def drop(self, stage: Stage) -> int:
        """Note that a stage cannot be built, nor what needs it; return how many needed it."""
        with self._lock:
            self.forget(stage.key)
            lost, due = 0, list(self._children[stage.key])
            while due:
                key = due.pop()
                if key in self._left:
                    self.forget(key)
                    lost += 1
                    due += self._children[key]
            return lost

    def seconds(self, now: float, workers: int = 1) -> float | None:
        """Return the seconds until all is built by so many workers; None while no training was ever timed."""
        total = 0.0
        with self._lock:
            for kind, count in self._count.items():
                whole = self._expected(kind)
                if whole is None and kind[0] == "train" and count:
                    return None
                total += (whole or 0.0) * count
            for key, began in self._began.items():
                if key in self._left:
                    total -= min(now - began, self._expected(_kind(self._left[key])) or 0.0)
            return total / max(1, min(max(workers, self._most), len(self._left)))

    def _expected(self, kind: Kind) -> float | None:
        """Return the mean seconds of stages of this kind, defense and model, else of this kind."""
        for like in (kind, kind[:1]):
            if like in self._took:
                return self._took[like][0] / self._took[like][1]
        return self._known.get(kind[0])


def _kind(stage: Stage) -> Kind:
    parts = (stage.content.get(axis) for axis in ("defense", "model"))
    return (stage.kind, *(part.name if part is not None else "" for part in parts))
