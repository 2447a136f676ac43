"""The engines for clusters, each on this machine: Ray's local cluster, and submitit's local executor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bench.core.errors import RequestError
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

    task = ({"key": "a" * 40},)
    again = StageJob("store", Machine(None), build).checkpoint(task)
    assert isinstance(again.function, StageJob) and again.args == (task,)


def test_without_slurm_the_engine_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RequestError, match="There is no sbatch on this machine"):
        SlurmExecutor(tmp_path / "store", Machine(None))
    with pytest.raises(RequestError, match="--slurm"):
        SlurmExecutor(tmp_path / "store", Machine(None), settings={"cluster": "local", "partitoin": "gpu"})


def test_a_ray_cluster_that_does_not_answer_is_an_error_at_once(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from bench.engine.executors.ray import RayExecutor

    with pytest.raises(RequestError, match="Ray cannot be used at 127.0.0.1:1: .*refused"):
        RayExecutor(tmp_path / "store", Machine(None), address="127.0.0.1:1")
