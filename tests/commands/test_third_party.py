"""A third-party package: built, installed by pip beside the suite, found by its entry points, run in a grid."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import tiny_model

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "somebodys-plugins"
version = "1.0"

[project.entry-points."openbackdoor_bench.defenders"]
long-word = "somebodys_plugins:LongWord"

[project.entry-points."openbackdoor_bench.attackers"]
suffix = "somebodys_plugins:Suffix"
"""

MODULE = '''
"""Plug-ins of somebody else."""

from dataclasses import dataclass

from attackers.base import Attacker
from bench.core.options import Count
from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class LongWord(Defender):
    """Flag texts that hold a word of at least `length` letters."""

    name = "long-word"
    length: Count = 20

    def detect(self, model=None, clean_data=None, poison_data=None):
        return [int(any(len(word) >= self.length for word in text.split())) for text, _, _ in poison_data]


@dataclass(frozen=True, kw_only=True)
class Suffix(Attacker):
    """End every text with one long word."""

    name = "suffix"

    def trigger(self, text, rng):
        return text + " incomprehensibilities"
'''


def test_a_package_from_elsewhere_runs_in_a_grid(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    (source / "somebodys_plugins").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "somebodys_plugins" / "__init__.py").write_text(MODULE)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site), str(source))
    assert "long-word" in run("bench", "list", "defenders") and "suffix" in run("bench", "list", "attackers")
    axes = ["--attacks", "suffix", "--defenders", "vanilla,long-word", "--poison-ratios", "0.1"]
    small = ["--models", str(tiny_model(tmp_path_factory, "bert")), "--limit", "40", "--set", "model.max_steps=1"]
    printed = run("bench", "run", "--grid", "demo", "--out", "out", *axes, *small, "--engine", "inline")
    assert "2 of 2 cells done, 0 failed" in printed
    records = [json.loads(path.read_text()) for path in (tmp_path / "out" / "records").iterdir()]
    (found,) = (record for record in records if record["cell"]["defense"]["name"] == "long-word")
    assert found["cell"]["defense"] == {"name": "long-word", "options": {"length": 20}, "source": "long-word"}
    # The defense flags what the attack writes and nothing else: no poisoned text is taken for the target.
    assert found["metrics"]["asr"]["value"] == 0.0
    assert (found["metrics"]["frr"]["hits"], found["metrics"]["far"]["hits"]) == (0, 0)
