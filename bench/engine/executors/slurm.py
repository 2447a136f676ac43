"""Slurm jobs, submitted with submitit: what is ready goes out as one job array, and comes back after a preemption."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError, RequestError
from bench.engine.executors import Outcome, Task
from bench.engine.executors.attempt import ATTEMPTS, Attempt, attempt, died
from bench.engine.executors.local import WORKER_ENVIRONMENT
from bench.engine.work import Machine
from bench.victim.kept import keep_models

ARRAY = 64  # jobs at work at one time unless --workers says otherwise
LOOK = 0.5  # seconds between looks at the jobs
SUBMISSIONS = 6  # how often an array is offered to Slurm
WAIT = 2.0  # seconds after the first time; doubled each time
GLANCE = 0.1  # seconds between looks of a process of this machine at whether it is cancelled
PATIENCE = 5.0  # seconds for cancelled processes of this machine to end


Bundle = tuple[Task, ...]  # what one job builds, one task after the other


class StageJob:
    """A bundle as submitit runs it: a preempted or timed-out job asks to be put back into the queue."""

    def __init__(self, root: str, machine: Machine, build: Attempt, follow: bool = False) -> None:
        """Take what the stages need; with `follow` the job ends with the process that started it."""
        self.root, self.machine, self.build, self.follow = root, machine, build, follow

    def __call__(self, bundle: Bundle) -> list[Outcome]:
        """Build the bundle on the machine that Slurm has chosen."""
        if self.follow:
            threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
        os.environ.update(WORKER_ENVIRONMENT)
        if len(bundle) > 1:
            keep_models()
        return [outcome for task in bundle for outcome in self.build(task, Path(self.root), self.machine)]

    def checkpoint(self, bundle: Bundle) -> Any:
        """Return what submitit queues again: what is finished is found, and the draft of the rest thrown away."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, bundle)


class SlurmExecutor:
    """Jobs of Slurm, or with `cluster=local` processes on this machine by the same way."""

    def __init__(
        self,
        root: Path,
        machine: Machine,
        workers: int | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        build: Attempt = attempt,
        shards: int = 1,
    ) -> None:
        """Prepare the folder for the jobs' files beside the store; `settings` are parameters of submitit.

        Two are not: `cluster`, and `stages_per_job`, how many tasks a job builds at most when more are ready than
        `workers` can take. Every job asks for one task of Slurm with `shards` GPUs of one node, or as many CPUs.

        Raises:
            RequestError: submitit or Slurm is not there, or a setting is not one of submitit's.
        """
        submitit = _imported()
        given = dict(settings or {})
        cluster = given.pop("cluster", "slurm")
        if cluster not in ("slurm", "local"):
            raise RequestError(f"--slurm cluster={cluster} is neither slurm nor local.", "Leave it out.")
        self.bundle = given.pop("stages_per_job", 1)
        if type(self.bundle) is not int or self.bundle < 1:
            raise RequestError(f"--slurm stages_per_job={self.bundle} is no number from 1 on.", "Leave it out for 1.")
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise RequestError("There is no sbatch on this machine.", "Run it where Slurm is, or use --engine local.")
        self.jobs = workers or ARRAY
        self.slots = self.jobs * self.bundle
        self.cluster = cluster
        self._executor = submitit.AutoExecutor(folder=root.parent / "slurm", cluster=cluster)
        on_gpu = machine.device.startswith("cuda")
        defaults: dict[str, Any] = {"name": "bench", "timeout_min": 240, "gpus_per_node": shards if on_gpu else 0}
        if shards > 1 and not on_gpu:
            defaults["cpus_per_task"] = shards
        if cluster == "slurm":
            defaults["slurm_array_parallelism"] = self.jobs
        try:
            self._executor.update_parameters(**{**defaults, **given})
        except (NameError, TypeError, ValueError, AssertionError) as error:
            said = " ".join(str(error).split())
            raise RequestError(f"--slurm: {said}", "Name parameters of submitit, as slurm_partition=gpu.") from error
        devices = tuple(f"cuda:{number}" for number in range(shards)) if on_gpu else (machine.device,) * shards
        place = None if machine.data_dir is None else machine.data_dir.resolve()
        placed = dataclasses.replace(machine, data_dir=place, device=devices[0], devices=devices)
        self._job = StageJob(str(root.resolve()), placed, build, follow=cluster == "local")
        self._waiting: list[Task] = []
        self._running: dict[Any, Bundle] = {}
        self._suspects: set[str] = set()  # stages whose job has died: each goes alone from then on
        self._deaths: dict[str, int] = {}

    def submit(self, task: Task) -> None:
        """Keep the task for the next array."""
        self._waiting.append(task)

    def finished(self, seconds: float | None = None) -> Iterator[Outcome]:
        """Send what has gathered as one array, then wait for a job to end; return the outcomes of those that have.

        Raises:
            BenchError: Slurm did not take the jobs, however often it was asked.
        """
        bundles = self._bundles()
        if bundles:
            self._running |= dict(zip(self._sent(bundles), bundles, strict=True))
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            done = [job for job in self._running if job.done()]
            outcomes = [outcome for job in done for outcome in self._collect(job)]
            if outcomes or not self._running or (until is not None and time.monotonic() >= until):
                return iter(outcomes)
            time.sleep(LOOK if self.cluster == "slurm" else LOOK / 10)

    def _bundles(self) -> list[Bundle]:
        """Take what has gathered, as far as jobs are free: as evenly as can be, at most `stages_per_job` in one."""
        bundles: list[Bundle] = []
        free = self.jobs - len(self._running)
        while self._waiting and free > 0:
            alone = self._waiting[0][0]["key"] in self._suspects
            size = 1 if alone else min(self.bundle, -(-len(self._waiting) // free))
            near = next((i for i, task in enumerate(self._waiting) if i and task[0]["key"] in self._suspects), size)
            bundles.append(tuple(self._waiting[: min(size, near)]))
            self._waiting = self._waiting[len(bundles[-1]) :]
            free -= 1
        return bundles

    def _sent(self, bundles: list[Bundle]) -> list[Any]:
        """Return the jobs of bundles; a controller that is too busy to answer is asked again."""
        for turn in range(SUBMISSIONS):
            try:
                with _unreachable_from_the_keyboard() if self.cluster == "local" else contextlib.nullcontext():
                    return self._executor.map_array(self._job, bundles)
            except (RuntimeError, OSError) as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                if turn + 1 < SUBMISSIONS:
                    time.sleep(WAIT * 2**turn)
        raise BenchError(
            f"Slurm did not take {len(bundles)} jobs: {reason.rstrip('.')}.",
            "See to that; what is finished is kept, and the same command goes on from there.",
        )

    def _collect(self, job: Any) -> list[Outcome]:
        """Return what a job made of its bundle; of one that died each stage is sent again, alone."""
        bundle = self._running.pop(job)
        try:
            outcomes = job.result()
        except Exception as error:  # submitit's own errors, or a result that was cut off as the job died
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        else:
            _forget(job, logs=True)
            return outcomes
        _forget(job, logs=False)
        keys = [payload["key"] for task in bundle for payload in task]
        self._suspects.update(keys)
        if len(keys) == 1:
            self._deaths[keys[0]] = self._deaths.get(keys[0], 0) + 1
            if self._deaths[keys[0]] >= ATTEMPTS:
                return died(bundle[0], f"{reason.rstrip('.')}; its log is {job.paths.stderr}")
        return [Outcome(key, busy=True) for key in keys]

    def close(self) -> None:
        """Cancel the jobs that are queued or running; wait for those that are processes of this machine."""
        for job in self._running:
            job.cancel(check=False)
            if self.cluster == "local":  # what submitit sends is an interrupt, and those do not reach it
                with contextlib.suppress(OSError, ValueError):
                    os.kill(int(job.job_id), signal.SIGKILL)
        until = time.monotonic() + PATIENCE
        while self.cluster == "local" and time.monotonic() < until and not all(job.done() for job in self._running):
            time.sleep(LOOK / 10)
        if self.cluster == "local" and self._running:
            time.sleep(3 * GLANCE)  # for their processes to notice
        for job in self._running:
            _forget(job, logs=False)
        self._running.clear()
        self._waiting.clear()


@contextlib.contextmanager
def _unreachable_from_the_keyboard() -> Iterator[None]:
    """Let processes that are started here not hear a Ctrl-C: the run decides what it means, as it does for Slurm's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # an interrupt that came meanwhile is delivered now


def _follow(parent: int) -> None:
    """End this process once its parent has: submitit's controller on this machine, when it is cancelled."""
    while os.getppid() == parent:
        time.sleep(GLANCE)
    os._exit(1)


def _forget(job: Any, logs: bool) -> None:
    """Delete the files of a job that has ended: submitit never does, and a large grid has a hundred thousand jobs."""
    paths = job.paths
    left = [paths.submitted_pickle, paths.result_pickle, paths.submission_file]
    for path in [*left, paths.stdout, paths.stderr] if logs else left:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _imported() -> Any:
    try:
        import submitit
    except ImportError:
        remedy = "Install it with: pip install 'openbackdoor-bench[slurm]'."
        raise RequestError("The engine 'slurm' needs the package submitit, which is not installed.", remedy) from None
    return submitit
