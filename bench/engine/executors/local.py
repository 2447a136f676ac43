"""Worker processes on this machine: one thread each on the CPU, one process per GPU."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.engine.executors import Outcome, Task
from bench.engine.executors.inline import attempt
from bench.engine.work import Machine

# A neighbour that spins while it waits costs a factor of ten; one thread each makes numbers repeat.
WORKER_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def _initialise(environment: dict[str, str], devices: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    os.environ.update(environment)
    if devices is not None:
        os.environ["BENCH_WORKER_DEVICE"] = devices.get()


def _attempt(task: Task, root: Path, machine: Machine) -> list[Outcome]:
    device = os.environ.get("BENCH_WORKER_DEVICE", machine.device)
    return attempt(task, root, Machine(machine.data_dir, device))


class LocalExecutor:
    """A pool of worker processes; a worker that dies takes only its own stage with it."""

    def __init__(self, root: Path, machine: Machine, workers: int, devices: Sequence[str] = ()) -> None:
        self.root, self.machine, self.slots, self.devices = root, machine, workers, tuple(devices)
        self._running: dict[Future, Task] = {}
        self._lost: list[Task] = []
        self._saved = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
        os.environ.update(WORKER_ENVIRONMENT)  # read by the workers when they start
        self._pool = self._new_pool(workers)

    def _new_pool(self, workers: int) -> ProcessPoolExecutor:
        context, queue = get_context("spawn"), None
        if self.devices:
            queue = context.Queue()
            for number in range(workers):
                queue.put(self.devices[number % len(self.devices)])
        return ProcessPoolExecutor(workers, context, _initialise, (WORKER_ENVIRONMENT, queue))

    def submit(self, task: Task) -> None:
        """Hand the task to a free worker."""
        try:
            self._running[self._pool.submit(_attempt, task, self.root, self.machine)] = task
        except BrokenProcessPool:  # a worker has died since the last look
            self._lost.append(task)

    def finished(self) -> Iterator[Outcome]:
        """Wait for the next task to end; return its outcomes and those of any that ended besides."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        outcomes = []
        for future in done:
            task = self._running.pop(future)
            try:
                outcomes += future.result()
            except BrokenProcessPool:
                self._lost.append(task)
        if self._lost:
            outcomes += self._recover()
        return iter(outcomes)

    def _recover(self) -> list[Outcome]:
        """Run what was under way when a worker died, each stage alone: only the one that kills its worker fails."""
        lost = [*self._lost, *self._running.values()]
        self._lost, self._running = [], {}
        self._pool.shutdown(wait=False, cancel_futures=True)
        outcomes = [outcome for task in lost for payload in task for outcome in self._alone(payload)]
        self._pool = self._new_pool(self.slots)
        return outcomes

    def _alone(self, payload: Mapping[str, Any]) -> list[Outcome]:
        self._pool = self._new_pool(1)
        try:
            return self._pool.submit(_attempt, (payload,), self.root, self.machine).result()
        except BrokenProcessPool:
            error = {
                "type": "WorkerDied",
                "message": "The worker process died while it built this stage.",
                "remedy": "It may have run out of memory: run with fewer --workers and --retry-failed.",
                "stage": payload["kind"],
                "traceback": None,
            }
            return [Outcome(payload["key"], None, error)]
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Stop the workers at once; half-built drafts stay aside and are never taken for results."""
        processes = list((self._pool._processes or {}).values()) if self._running else []
        self._pool.shutdown(wait=not processes, cancel_futures=True)
        for process in processes:
            process.terminate()
        for name, value in self._saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
