"""A built wheel, in an empty folder, runs too: its configs and the paper's numbers travel with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import tiny_model

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_runs_the_demo_grid_in_an_empty_folder(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pytest.importorskip("hatchling")
    wheels, site, empty = tmp_path / "wheels", tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    build = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(ROOT)]
    run(*build, cwd=tmp_path)
    (wheel,) = wheels.glob("openbackdoor_bench-*.whl")
    run("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel), cwd=tmp_path)
    assert {path.name for path in site.iterdir() if path.is_dir()} >= {"bench", "attackers", "defenders", "configs"}
    assert not (site / "tests").exists()
    # -P keeps the working folder off the path: what is imported is what was installed.
    bench = ["-P", "-m", "bench"]
    assert "demo" in run(*bench, "list", "grids", cwd=empty, PYTHONPATH=str(site))
    model = str(tiny_model(tmp_path_factory, "bert"))
    small = ["--models", model, "--limit", "32", "--set", "model.max_steps=1", "--defenders", "vanilla,lora"]
    printed = run(*bench, "run", "--grid", "demo", *small, cwd=empty, PYTHONPATH=str(site))
    assert "16 of 16 cells done, 0 failed" in printed
    assert (empty / "runs" / "demo" / "tables" / "README.md").is_file()
