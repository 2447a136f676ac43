"""Worker processes of Ray: on this machine, or all over a cluster whose machines share the output folder."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.core.errors import RequestError
from bench.engine.executors import Outcome, Task
from bench.engine.executors.attempt import ATTEMPTS, Attempt, attempt, died
from bench.engine.executors.local import WORKER_ENVIRONMENT
from bench.engine.executors.ray_session import Session
from bench.engine.work import Machine
from bench.victim.kept import keep_models

REACH = 10.0  # seconds for the head of a cluster to answer
OBJECTS = 100 * 2**20  # bytes of shared memory that an own cluster may take: tasks and outcomes are a few kilobytes


class _Worker:
    """What lives in a worker process of Ray: it keeps the model that it loaded last."""

    def __init__(self, root: str, machine: Machine, build: Attempt) -> None:
        self.root, self.machine, self.build = Path(root), machine, build
        keep_models()

    def work(self, task: Task) -> list[Outcome]:
        """Build a task; on a GPU, Ray has chosen the one that this process sees."""
        return self.build(task, self.root, self.machine)


class RayExecutor:
    """Actors of Ray, one per CPU or per fraction of a GPU; a task whose actor dies is given to a new one."""

    def __init__(
        self,
        root: Path,
        machine: Machine,
        workers: int | None = None,
        *,
        address: str | None = None,
        gpus_per_worker: float = 1.0,
        build: Attempt = attempt,
        shards: int = 1,
    ) -> None:
        """Connect to the cluster at `address`, or start one of `workers` CPUs on this machine.

        Every actor has `shards` GPUs of one machine, or as many CPUs.

        Raises:
            RequestError: Ray is not installed, the cluster does not answer, or has no room for one worker.
        """
        self.ray = _imported()
        self._session: Session | None = None  # of an own cluster: sockets and logs, gone with it
        self._own = not self.ray.is_initialized()
        if self._own:
            self._connect(address, workers and workers * shards)
        gpus_per_worker = max(gpus_per_worker, shards) if shards > 1 else gpus_per_worker
        on_gpu = machine.device.startswith("cuda")
        have = self.ray.cluster_resources()
        room = int(have.get("GPU", 0) / gpus_per_worker) if on_gpu else int(have.get("CPU", 0)) // shards
        self.slots = min(workers, room) if workers else room
        if self.slots < 1:
            self._leave()
            raise RequestError(
                f"The Ray cluster has no room for a worker: {have.get('CPU', 0):g} CPUs, {have.get('GPU', 0):g} GPUs.",
                "Add machines, lower --gpus-per-worker or model.shards, or use --device cpu.",
            )
        # A worker sees only the GPUs that it was given, and has another working folder.
        devices = tuple(f"cuda:{number}" for number in range(shards)) if on_gpu else (machine.device,) * shards
        place = None if machine.data_dir is None else machine.data_dir.resolve()
        there = dataclasses.replace(machine, data_dir=place, device=devices[0], devices=devices)
        environment = {**WORKER_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        options = {"num_cpus": 1 if on_gpu else shards, "num_gpus": gpus_per_worker if on_gpu else 0, "max_restarts": 0}
        settings = {**options, "runtime_env": {"env_vars": environment}}
        self._arguments = (str(root.resolve()), there, build)
        self._actors = self.ray.remote(_Worker).options(**settings)
        self._idle: deque[Any] = deque()
        self._running: dict[Any, tuple[Any, Task]] = {}
        self._deaths: dict[str, int] = {}

    def _connect(self, address: str | None, workers: int | None) -> None:
        settings: dict[str, Any] = {"address": address or "local"}
        if not address:
            settings |= {"num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECTS}
        try:
            if not address and "RAY_TMPDIR" not in os.environ:
                self._session = Session()
                settings["_temp_dir"] = self._session.folder
            _answers(address)
            self.ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
        except (OSError, ValueError, RuntimeError) as error:
            self._leave()
            raise RequestError(
                f"Ray cannot be used at {address or 'this machine'}: {_reason(error)}",
                "Start a cluster with `ray start --head`, or leave --address out.",
            ) from error

    def submit(self, task: Task) -> None:
        """Hand the task to an actor that has none, a new one if need be."""
        actor = self._idle.popleft() if self._idle else self._actors.remote(*self._arguments)
        self._running[actor.work.remote(task)] = (actor, task)

    def finished(self, seconds: float | None = None) -> Iterator[Outcome]:
        """Wait for the next task to end; return its outcomes and those of any that ended besides."""
        everything = list(self._running)
        ready, _ = self.ray.wait(everything, num_returns=1, timeout=seconds)
        more, _ = self.ray.wait(everything, num_returns=len(everything), timeout=0)
        return iter([outcome for reference in {*ready, *more} for outcome in self._collect(reference)])

    def _collect(self, reference: Any) -> list[Outcome]:
        actor, task = self._running.pop(reference)
        try:
            outcomes = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:  # killed, out of memory, its machine gone or out of reach ...
            self._dismiss(actor)
            return self._once_more(task, _reason(error))
        self._idle.append(actor)
        return outcomes

    def _dismiss(self, actor: Any) -> None:
        """End an actor, so that what it held of the cluster is free; one that is dead already is left alone."""
        with contextlib.suppress(self.ray.exceptions.RayError, RuntimeError):
            self.ray.kill(actor)

    def _once_more(self, task: Task, reason: str) -> list[Outcome]:
        """Give the task of a dead actor to another one, its members alone if it was a gang, up to a limit."""
        name = task[0]["key"]
        self._deaths[name] = self._deaths.get(name, 0) + 1
        if len(task) > 1:
            return [Outcome(payload["key"], busy=True) for payload in task]
        if self._deaths[name] >= ATTEMPTS:
            return died(task, reason)
        self.submit(task)
        return []

    def close(self) -> None:
        """Stop the actors, and the cluster if it was started here."""
        for actor in [*self._idle, *(actor for actor, _ in self._running.values())]:
            self._dismiss(actor)
        self._idle.clear()
        self._running.clear()
        self._leave()

    def _leave(self) -> None:
        if self._own:
            self.ray.shutdown()
        if self._session is not None:
            self._session.end()


def _reason(error: BaseException) -> str:
    """Return the first line of what Ray says, and the last where it says more: the error below a remote traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(dict.fromkeys((lines[0], lines[-1])))


def _answers(address: str | None) -> None:
    """Raise OSError if nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition("//")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=REACH).close()


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine unasked
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        remedy = "Install it with: pip install 'openbackdoor-bench[ray]'."
        raise RequestError("The engine 'ray' needs the package ray, which is not installed.", remedy) from None
    return ray
