"""Worker processes on this machine: one thread each on the CPU, one process per GPU, or per group of GPUs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from bench.core.processes import ENVIRONMENT
from bench.engine.executors import Outcome, Task
from bench.engine.executors.attempt import ATTEMPTS, Attempt, attempt, died
from bench.engine.sharding import groups_of
from bench.engine.work import Machine
from bench.victim.kept import keep_models

WORKER_ENVIRONMENT = ENVIRONMENT
PATIENCE = 5.0  # seconds for a worker to end when asked


def _serve(connection: Connection, root: Path, machine: Machine, build: Attempt) -> None:
    """Build what comes through the connection until it ends: with the run, or when the process of the run has died."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    os.environ.update(WORKER_ENVIRONMENT)
    keep_models()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while (task := connection.recv()) is not None:
            connection.send(build(task, root, machine))


class _Worker:
    """One process and the task that it has."""

    def __init__(self, context: Any, *arguments: Any) -> None:
        self.task: Task | None = None
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, task: Task) -> bool:
        """Hand a task over; tell whether the process was there to take it."""
        try:
            self.connection.send(task)
        except OSError:
            return False
        self.task = task
        return True

    def answer(self) -> list[Outcome] | None:
        """Return the outcomes of the task, None if the process died over it."""
        try:
            return self.connection.recv() if self.connection.poll() else None
        except (EOFError, OSError):
            return None

    def end(self) -> None:
        """Stop the process: at once if it has a task, else by asking."""
        if self.task is not None:
            self.process.terminate()
        else:
            with contextlib.suppress(OSError):
                self.connection.send(None)
        self.connection.close()

    def gone(self) -> int:
        """Wait for the end of a process that was told to stop; return its exit code, below 0 for a signal."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code = self.process.exitcode or 0
        self.process.close()
        return code


class LocalExecutor:
    """Worker processes that live as long as the run; one that dies takes only its own task with it, to be given again.

    They are forked from a process that has imported what they need, so that a new one costs little.
    """

    def __init__(
        self,
        root: Path,
        machine: Machine,
        workers: int,
        devices: Sequence[str] = (),
        build: Attempt = attempt,
        preload: str = "bench.engine.work_victim",
        shards: int = 1,
    ) -> None:
        self.root, self.machine, self.slots, self.build = root, machine, workers, build
        groups = groups_of(devices or (machine.device,), shards)
        self._devices = deque(groups[number % len(groups)] for number in range(workers))  # of workers to come
        self._workers: list[_Worker] = []
        self._device: dict[_Worker, tuple[str, ...]] = {}
        self._deaths: dict[str, int] = {}
        self._saved = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
        os.environ.update(WORKER_ENVIRONMENT)  # read when the process from which they are forked starts
        forks = "forkserver" in get_all_start_methods()
        self._context = get_context("forkserver" if forks else "spawn")
        if forks:
            self._context.set_forkserver_preload([preload])

    def submit(self, task: Task) -> None:
        """Hand the task to a worker that has none, a new one if need be."""
        for worker in [worker for worker in self._workers if worker.task is None]:
            if worker.give(task):
                return
            self._bury(worker)
        worker = self._new_worker()
        if not worker.give(task):
            worker.task = task  # it died as it started: found out, counted and tried again like any other death

    def _new_worker(self) -> _Worker:
        devices = self._devices.popleft()
        machine = dataclasses.replace(self.machine, device=devices[0], devices=devices)
        worker = _Worker(self._context, self.root, machine, self.build)
        self._workers.append(worker)
        self._device[worker] = devices
        return worker

    def _bury(self, worker: _Worker) -> str:
        """Take a dead worker off the list; return how it ended, in words."""
        self._workers.remove(worker)
        self._devices.append(self._device.pop(worker))
        worker.task = None
        worker.end()
        code = worker.gone()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def finished(self, seconds: float | None = None) -> Iterator[Outcome]:
        """Wait for the next task to end; return its outcomes and those of any that ended besides."""
        busy = [worker for worker in self._workers if worker.task is not None]
        signs = [sign for worker in busy for sign in (worker.connection, worker.process.sentinel)]
        ready = set(wait(signs, seconds))
        outcomes: list[Outcome] = []
        for worker in busy:
            if worker.connection in ready or worker.process.sentinel in ready:
                outcomes += self._collect(worker)
        return iter(outcomes)

    def _collect(self, worker: _Worker) -> list[Outcome]:
        """Return what a worker made of its task; if it died over it, another one gets the task, up to a limit."""
        task, found = worker.task or (), worker.answer()
        worker.task = None
        if found is not None:
            return found
        reason = self._bury(worker)
        name = task[0]["key"]
        self._deaths[name] = self._deaths.get(name, 0) + 1
        if self._deaths[name] < ATTEMPTS:
            self.submit(task)
            return []
        if len(task) > 1:  # one member may be the reason: each alone from here on
            for payload in task:
                self._deaths[payload["key"]] = 0
            return [Outcome(payload["key"], busy=True) for payload in task]
        return died(task, reason)

    def close(self) -> None:
        """Stop the workers, those with a task at once: half-built drafts stay aside and are never taken for results."""
        for worker in self._workers:
            worker.end()
        for worker in self._workers:
            worker.gone()
        self._workers.clear()
        for name, value in self._saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
