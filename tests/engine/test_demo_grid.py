"""The grid `demo` by the command line, on worker processes, on Ray and as jobs of submitit: the same, bit for bit.

Its corpus, attacks, defenses, ratios, rows and steps are its own. In place of MiniLM stands the random BERT of two
layers: 25 trainings of MiniLM take four minutes of CPU on each engine, and CI has two cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.test_faults import journal, lines, records
from tests.tiny import tiny_model

ROOT = Path(__file__).resolve().parents[2]
CELLS, STAGES = 40, 75
# A job of submitit is a process that imports torch: 10 of them here, and not one for each of 75 stages.
SHARED = ("--slurm", "cluster=local", "--slurm", "stages_per_job=20")


def files(out: Path) -> dict[str, dict[str, str]]:
    """Return the sha256 of every file of every stage but of what says how long it took."""
    found = {}
    for path in (out / "store").glob("??/*/manifest.json"):
        digests = json.loads(path.read_text())["files"]
        found[path.parent.name] = {name: sha256 for name, sha256 in digests.items() if name != "meta.json"}
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that runs the grid with some options and returns its folder."""
    folder, model = tmp_path_factory.mktemp("demo"), tiny_model(tmp_path_factory, "bert")

    def run(name: str, *options: str) -> Path:
        out = folder / name
        command = [sys.executable, "-m", "bench", "run", "--grid", "demo", "--models", str(model), "--out", str(out)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, "--device", "cpu", "--workers", "2", *options],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return out

    return run


@pytest.fixture(scope="module")
def local(demo: Callable[..., Path]) -> Path:
    """Return the folder of the whole grid by worker processes."""
    out = demo("local")
    assert len(records(out)) == CELLS and sum(journal(out, "built").values()) == STAGES
    return out


@pytest.mark.slow
def test_ray_runs_the_demo_grid_on_a_cluster_of_two_cpus(demo: Callable[..., Path], local: Path) -> None:
    pytest.importorskip("ray")
    out = demo("ray", "--engine", "ray")
    assert records(out) == records(local) and files(out) == files(local)
    built = journal(out, "built")
    assert len(built) == STAGES and max(built.values()) == 1


@pytest.mark.slow
def test_submitit_runs_the_demo_grid_as_jobs(demo: Callable[..., Path], local: Path) -> None:
    pytest.importorskip("submitit")
    out = demo("slurm", "--engine", "slurm", *SHARED)
    assert records(out) == records(local) and files(out) == files(local)
    built = journal(out, "built")
    assert len(built) == STAGES and max(built.values()) == 1
    assert len({line["pid"] for line in lines(out)}) <= 10
    assert not list((out / "slurm").iterdir())  # submitit's pickles and logs of jobs that went well
