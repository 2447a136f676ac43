"""The command line as a user runs it: real processes, real workers, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.conftest import grid_file, tiny  # noqa: F401  (fixtures)

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def bench(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def stages(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in (out / "store").glob("??/*/manifest.json")}


def test_run_twice_table_and_publish(tmp_path: Path, grid_file: Callable[..., Path]) -> None:  # noqa: F811
    grid = str(grid_file(defenders=["vanilla", "lora"], poison_ratios=[0, 0.1]))
    first = bench("run", "--grid", grid, "--out", "out", "--workers", "2", cwd=tmp_path)
    assert first.returncode == 0, first.stderr + first.stdout
    assert "4 of 4 cells done, 0 failed" in first.stdout and "table: out/tables/README.md" in first.stdout
    # load, trigger, 2 poisons (ratio 0 and 0.1), 4 trainings, 4 evaluations
    assert "12 stages executed" in first.stdout
    again = bench("run", "--grid", grid, "--out", "out", cwd=tmp_path)
    assert again.returncode == 0 and "\n0 stages executed" in "\n" + again.stdout
    (tmp_path / "out" / "tables" / "README.md").unlink()
    assert bench("table", "--out", "out", cwd=tmp_path).returncode == 0
    assert (tmp_path / "out" / "tables" / "README.md").is_file()
    published = bench("publish", "--out", "out", "--to", "board", cwd=tmp_path)
    assert published.returncode == 0
    assert (tmp_path / "board" / "records.jsonl").read_text() == ""  # --limit runs are never published


def test_one_or_two_workers_give_the_same_numbers(tmp_path: Path, grid_file: Callable[..., Path]) -> None:  # noqa: F811
    grid = str(grid_file(defenders=["vanilla", "musclelora(clean_samples=16)"]))
    found = []
    for workers in ("1", "2"):
        assert bench("run", "--grid", grid, "--out", workers, "--workers", workers, cwd=tmp_path).returncode == 0
        records = [json.loads(path.read_text()) for path in sorted((tmp_path / workers / "records").iterdir())]
        found.append([(record["key"], record["metrics"], record["poison"]) for record in records])
    assert len(found[0]) == 2 and found[0] == found[1]


def test_a_run_killed_in_the_middle_loses_no_finished_stage(tmp_path: Path, grid_file: Callable[..., Path]) -> None:  # noqa: F811
    names = ["vanilla", "lora", "mslr", "adapter", "prefix"]
    grid = str(grid_file(defenders=names, attacks=["badnets", "addsent"]))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "bench", "run", "--grid", grid, "--out", "out", "--workers", "1", "--keep-weights"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len(stages(out)) < 8 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = stages(out)
    assert 8 <= len(before) < 25
    resumed = bench("run", "--grid", grid, "--out", "out", "--workers", "1", "--keep-weights", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    after = stages(out)
    # load, 2 poisons, 2 triggers, 10 trainings, 10 evaluations; what was there was not built again
    assert len(after) == 25 and {key: after[key] for key in before} == before
    assert f"{25 - len(before)} stages executed" in resumed.stdout


def test_a_worker_that_dies_takes_only_its_own_cell(tmp_path: Path, grid_file: Callable[..., Path]) -> None:  # noqa: F811
    grid = str(grid_file(defenders=["vanilla", "tests.engine.acting:Dies"]))
    result = bench("run", "--grid", grid, "--out", "out", "--workers", "2", cwd=tmp_path)
    assert result.returncode == 1
    assert "1 of 2 cells done, 1 failed" in result.stdout
    assert "The worker process died" in result.stdout and "Traceback" not in result.stdout + result.stderr
