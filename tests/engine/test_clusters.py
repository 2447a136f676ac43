"""The engines for clusters, each on this machine: Ray's local cluster, and submitit's local executor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from bench.core.errors import BenchError, RequestError
from bench.engine.executors import Outcome, Task, slurm
from bench.engine.executors.slurm import SlurmExecutor
from bench.engine.runner import Runner
from bench.engine.work import Machine
from tests.engine.cheap import build, cheap_plan, drive
from tests.engine.test_faults import journal, records

SEEDS = 1  # 10 cells
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_ray_runs_the_grid_on_two_workers_and_survives_one_that_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    drive(str(tmp_path / "inline"), "inline", SEEDS)
    # In a process of its own: Ray leaves threads, sockets and signal handlers in the one that it ran in.
    script = f"import tests.engine.test_clusters as here; here.ray_with_a_kill({str(tmp_path / 'out')!r})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, timeout=300, check=False)
    assert done.returncode == 0
    assert records(tmp_path / "out") == records(tmp_path / "inline")
    built = journal(tmp_path / "out", "built")
    assert max(built.values()) == 1 and not journal(tmp_path / "out", "discarded")


def ray_with_a_kill(out: str) -> None:
    """Run the cheap grid on Ray and kill the first two workers that build something."""
    kills: list[int] = []
    thread = threading.Thread(target=_kill, args=(Path(out) / "store" / ".locks", kills), daemon=True)
    thread.start()
    report = drive(out, "ray", SEEDS)
    assert report.done == 10 * SEEDS and not report.failed, report
    assert len(kills) == 2 and len(set(kills)) == 2, kills
    assert not list(Path("/tmp").glob(f"bench-ray-{os.getpid()}-*"))


def _kill(locks: Path, kills: list[int]) -> None:
    import json

    while len(kills) < 2:
        for lock in locks.iterdir() if locks.is_dir() else ():
            try:
                pid = json.loads(lock.read_text())["pid"]
                if pid not in kills and len(kills) < 2 and pid != os.getpid():
                    os.kill(pid, signal.SIGKILL)
                    kills.append(pid)
            except (OSError, ValueError):
                continue
        time.sleep(0.001)


@pytest.mark.slow
def test_submitit_runs_the_grid_as_jobs(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    drive(str(tmp_path / "inline"), "inline", SEEDS)
    out = tmp_path / "out"
    runner = Runner(cheap_plan(tmp_path / "model", SEEDS, ("badnets",)), out, {})
    executor = SlurmExecutor(out / "store", Machine(None), 4, settings={"cluster": "local"}, build=build)
    try:
        report = runner.run(executor, runner.todo())
    finally:
        executor.close()
    alone = records(tmp_path / "inline")
    assert report.done == 5 * SEEDS and records(out) == {key: alone[key] for key in runner.plan.cells}
    assert max(journal(out, "built").values()) == 1


def test_a_preempted_job_asks_to_be_queued_again_with_the_same_task() -> None:
    pytest.importorskip("submitit")
    from bench.engine.executors.slurm import StageJob

    bundle = (({"key": "a" * 40},),)
    again = StageJob("store", Machine(None), build).checkpoint(bundle)
    assert isinstance(again.function, StageJob) and again.args == (bundle,)


def slurm_of(tmp_path: Path, workers: int, stages_per_job: object) -> SlurmExecutor:
    settings = {"cluster": "local", "stages_per_job": stages_per_job}
    return SlurmExecutor(tmp_path / "store", Machine(None), workers, settings=settings, build=build)


def test_stages_share_jobs_where_there_are_more_than_jobs_and_each_goes_alone_once_its_job_has_died(
    tmp_path: Path,
) -> None:
    pytest.importorskip("submitit")
    from submitit.core.utils import JobPaths

    class Dead:
        """A job as submitit has it, of a process that was killed."""

        paths = JobPaths(tmp_path, "1")

        def result(self) -> list:
            """Raise what submitit does then."""
            raise RuntimeError("killed")

    executor = slurm_of(tmp_path, 2, 4)
    keys = [letter * 40 for letter in "abcdefghij"]
    assert executor.slots == 8

    def asked() -> list[str]:
        return ["".join(task[0]["key"][0] for task in bundle) for bundle in executor._bundles()]

    for key in keys[:3]:
        executor.submit(({"key": key, "kind": "train"},))
    assert asked() == ["ab", "c"]  # as evenly as can be
    for key in keys:
        executor.submit(({"key": key, "kind": "train"},))
    assert asked() == ["abcd", "efgh"]  # the others wait for a job that is free
    assert asked() == ["i", "j"]
    dead = Dead()
    executor._running[dead] = (({"key": keys[1], "kind": "train"},), ({"key": keys[2], "kind": "train"},))
    assert [(outcome.key, outcome.busy) for outcome in executor._collect(dead)] == [(keys[1], True), (keys[2], True)]
    for key in keys[:4]:
        executor.submit(({"key": key, "kind": "train"},))
    assert asked() == ["a", "b"] and asked() == ["c", "d"]
    for turn in range(3):  # only what dies alone is to blame
        executor._running[dead] = (({"key": keys[1], "kind": "train"},),)
        (outcome,) = executor._collect(dead)
        assert outcome.busy is (turn < 2)
    assert outcome.error["type"] == "WorkerDied" and not executor._running


@pytest.mark.parametrize("wrong", [0, -1, "many", 1.5, True, None])
def test_a_wrong_number_of_stages_for_a_job_is_refused(tmp_path: Path, wrong: object) -> None:
    pytest.importorskip("submitit")
    with pytest.raises(RequestError, match="stages_per_job"):
        slurm_of(tmp_path, 2, wrong)


def test_without_slurm_the_engine_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RequestError, match="There is no sbatch on this machine"):
        SlurmExecutor(tmp_path / "store", Machine(None))
    with pytest.raises(RequestError, match="--slurm"):
        SlurmExecutor(tmp_path / "store", Machine(None), settings={"cluster": "local", "partitoin": "gpu"})


def test_a_slurm_that_takes_no_job_is_asked_again_and_then_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    for name, lines in (
        ("srun", "exit 0"),
        ("sbatch", f"echo asked >> {tmp_path}/log; echo Socket timed out >&2; exit 1"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "WAIT", 0.0)
    executor = SlurmExecutor(tmp_path / "store", Machine(None), build=build)
    executor.submit(({"key": "a" * 40, "kind": "load"},))
    with pytest.raises(BenchError, match="Slurm did not take 1 jobs: .*Socket timed out"):
        executor.finished()
    assert (tmp_path / "log").read_text().count("asked") == slurm.SUBMISSIONS
    executor.close()


@pytest.mark.slow
def test_jobs_here_do_not_hear_the_keyboard_are_queued_again_when_preempted_and_end_when_cancelled(
    tmp_path: Path,
) -> None:
    pytest.importorskip("submitit")
    settings = {"cluster": "local"}
    executor = SlurmExecutor(tmp_path / "store", Machine(None), settings=settings, build=slow_at_first)
    executor.submit(({"key": "a" * 40, "kind": "load"},))
    until = time.monotonic() + 60
    assert not list(executor.finished(0.0))
    while not (started := list(tmp_path.glob("started.*"))) and time.monotonic() < until:
        time.sleep(0.05)
    (job,) = executor._running
    for pid in (int(job.job_id), int(started[0].suffix[1:])):  # submitit's controller, and the process of the job
        os.kill(pid, signal.SIGINT)
    time.sleep(0.5)
    assert not job.done()
    os.kill(int(started[0].suffix[1:]), signal.SIGUSR2)  # what Slurm sends before it preempts a job
    (outcome,) = executor.finished()
    assert outcome.found and len(list(tmp_path.glob("started.*"))) == 2  # it ran again, and its second start went well
    for path in tmp_path.glob("started.*"):
        path.unlink()
    executor.submit(({"key": "b" * 40, "kind": "load"},))
    assert not list(executor.finished(0.0))
    while not (started := list(tmp_path.glob("started.*"))) and time.monotonic() < until:
        time.sleep(0.05)
    executor.close()
    command = Path(f"/proc/{started[0].suffix[1:]}/cmdline")
    assert not command.exists() or not command.read_bytes()  # gone, or dead and not yet waited for


def slow_at_first(task: Task, root: Path, machine: Machine) -> list[Outcome]:
    """Say that this process has started, and take very long if it is the first."""
    first = not list(root.parent.glob("started.*"))
    (root.parent / f"started.{os.getpid()}").touch()
    time.sleep(300 if first else 0)
    return [Outcome(payload["key"], found=True) for payload in task]


@pytest.mark.slow
def test_a_job_that_dies_too_often_is_a_failed_record_that_names_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setattr(slurm, "ATTEMPTS", 1)  # submitit waits 15 seconds for what a dead job may have written
    executor = SlurmExecutor(tmp_path / "store", Machine(None), settings={"cluster": "local"}, build=dies)
    executor.submit(({"key": "a" * 40, "kind": "load"},))
    (outcome,) = executor.finished()
    executor.close()
    message = outcome.error["message"]
    assert outcome.error["type"] == "WorkerDied" and not outcome.busy
    assert "on purpose" in Path(message.split("its log is ")[1].rstrip(".")).read_text()
    assert {path.suffix for path in (tmp_path / "slurm").iterdir()} == {".out", ".err"}  # logs of what went wrong stay


def dies(*_: object) -> None:
    """End the process."""
    sys.stderr.write("on purpose\n")
    sys.stderr.flush()
    os._exit(9)


def test_what_ray_says_of_a_death_is_told_in_one_line() -> None:
    pytest.importorskip("ray")
    from bench.engine.executors.ray import _reason

    said = "The actor died unexpectedly.\n\tclass_name: _Worker\n\n  Worker exit type: SYSTEM_ERROR\n"
    assert _reason(RuntimeError(said)) == "The actor died unexpectedly. Worker exit type: SYSTEM_ERROR"
    assert _reason(RuntimeError("gone")) == "gone" and _reason(KeyError()) == "KeyError"


def test_the_session_of_a_run_that_was_killed_goes_with_the_next_and_no_other_does(tmp_path: Path) -> None:
    from bench.engine.executors.ray_session import LOCK, PREFIX, Session

    process = get_context("forkserver").Process(target=_killed_in_a_session, args=(str(tmp_path),))
    process.start()
    process.join(60)
    (left,) = tmp_path.iterdir()
    assert process.exitcode == -signal.SIGKILL and (left / "socket").exists()
    (tmp_path / f"{PREFIX}strange").mkdir()  # without a lock: not known to be a session
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / LOCK).touch()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "kept")
    first = Session(tmp_path)
    assert not left.exists() and Path(first.folder).is_dir()
    second = Session(tmp_path)
    assert Path(first.folder).is_dir() and Path(second.folder).is_dir()  # both are alive
    first.end()
    second.end()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{PREFIX}link", f"{PREFIX}strange", "kept"]


def _killed_in_a_session(place: str) -> None:
    from bench.engine.executors.ray_session import Session

    (Path(Session(Path(place)).folder) / "socket").touch()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_ray_cluster_that_does_not_answer_is_an_error_at_once(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from bench.engine.executors.ray import RayExecutor

    with pytest.raises(RequestError, match="Ray cannot be used at 127.0.0.1:1: .*refused"):
        RayExecutor(tmp_path / "store", Machine(None), address="127.0.0.1:1")
