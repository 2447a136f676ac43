"""The file of a plug-in from elsewhere is part of what it makes: edited, its stages are made again, and no others."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import CellError, RequestError
from bench.core.registry import DEFENDERS
from bench.core.spec import Cell
from bench.engine import plugins
from bench.engine.expand import expand
from bench.engine.grid import Grid
from bench.engine.plan import make_plan
from bench.engine.runner import Runner
from tests.engine.cheap import executor_of
from tests.engine.keys import identities_of, keys_of

DEFENSE = """
from dataclasses import dataclass
from defenders.base import Defender


@dataclass(frozen=True)
class Mine(Defender):
    name = "mine"

    def detect(self, model=None, clean_data=None, poison_data=None):
        return [int("cf" in text.split()) for text, _, _ in poison_data]
"""
ATTACK = """
from dataclasses import dataclass
from attackers.base import Attacker


@dataclass(frozen=True)
class Mine(Attacker):
    name = "mine"

    def trigger(self, text, rng):
        return "cf " + text
"""
ANALYSIS = """
from dataclasses import dataclass
from bench.analysis.watchers.base import Analysis


@dataclass(frozen=True)
class Mine(Analysis):
    name = "mine"
"""
EDITED = ('"cf', '"mn')
AXES: dict[str, tuple[str, ...]] = {"attacks": ("badnets",), "defenders": ("vanilla",)}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A function that writes mine.py, as between two commands: it is imported anew."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(code: str) -> None:
        (tmp_path / "mine.py").write_text(code, encoding="utf-8")
        importlib.invalidate_caches()
        sys.modules.pop("mine", None)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two contents of one second and size
    yield write
    sys.modules.pop("mine", None)


def cell(**axes: Any) -> Cell:
    (found,) = expand([Grid(datasets=("demo",), models=("bert-base",), **{**AXES, **axes})]).cells.values()
    return found


@pytest.mark.parametrize(
    ("code", "axes", "stages"),
    [
        (DEFENSE, {"defenders": ("mine:Mine",)}, {"detect"}),
        (DEFENSE, {"defenders": ("fine-mixing>mine:Mine",)}, {"detect"}),
        (ATTACK, {"attacks": ("mine:Mine",)}, {"poison", "trigger", "train", "evaluate"}),
        (ANALYSIS, {"analysis": "mine:Mine"}, {"train", "evaluate"}),
    ],
)
def test_an_edit_changes_the_keys_of_what_the_code_makes_and_no_random_number(
    written: Callable[[str], None], code: str, axes: dict[str, Any], stages: set[str]
) -> None:
    found = []
    for content in (code, code, code.replace(*EDITED) + "\n# edited\n"):
        written(content)
        one = cell(**axes)
        found.append((one.key, identities_of(one), keys_of(one)))
    first, again, edited = found
    assert first == again and first[:2] == edited[:2]
    assert {kind for kind in first[2] if first[2][kind] != edited[2][kind]} == stages


def test_after_an_edit_the_same_command_runs_again(written: Callable[[str], None], tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "bert"}')

    def run() -> tuple[int, int]:
        grid = Grid(datasets=("demo",), attacks=("badnets",), models=(str(model),), defenders=("vanilla", "mine:Mine"))
        runner = Runner(make_plan(expand([grid])), out, {}, keep_weights=True)
        report = runner.run(executor_of("inline", out / "store"), runner.todo())
        return report.executed, report.written

    written(DEFENSE)
    assert run() == (6, 2)
    written(DEFENSE)
    assert run() == (0, 0)
    written(DEFENSE.replace(*EDITED))
    assert run() == (1, 1)


def test_what_a_process_has_imported_already_is_not_taken_for_what_the_file_says(
    written: Callable[[str], None], tmp_path: Path
) -> None:
    written(DEFENSE)
    planned = cell(defenders=("mine:Mine",)).defense
    (tmp_path / "mine.py").write_text(DEFENSE.replace(*EDITED))
    with pytest.raises(RequestError, match="'mine:Mine' has changed since this process imported it.*Start Python"):
        cell(defenders=("mine:Mine",))
    # A run that is under way goes on with what it began with ...
    assert plugins.part_of(DEFENDERS, plugins.restore(DEFENDERS, planned), "mine:Mine") == planned
    # ... and a worker that starts now does not mix the two.
    sys.modules.pop("mine")
    with pytest.raises(CellError, match="'mine:Mine' has changed since the run began.*the same command again"):
        plugins.restore(DEFENDERS, planned)
    assert cell(defenders=("mine:Mine",)).defense != planned


def test_a_class_that_no_file_holds_can_be_used(written: Callable[[str], None]) -> None:
    written(DEFENSE)
    importlib.import_module("mine").__file__ = None
    assert cell(defenders=("mine:Mine",)).defense.pins == {}
