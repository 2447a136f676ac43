"""A tiny run: a random BERT of two layers on the first 48 rows of the demo corpus, two steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.engine.executors.inline import InlineExecutor
from bench.engine.expand import expand
from bench.engine.grid import Grid
from bench.engine.plan import Plan, make_plan
from bench.engine.runner import Report, Runner, Todo
from bench.engine.work import Machine
from tests.tiny import tiny_model


@dataclass
class Tiny:
    """Plans and runs tiny grids into one folder."""

    out: Path
    model: str
    events: list[str]

    def plan(self, **axes: Any) -> Plan:
        """Return the plan of the tiny grid with some axes replaced."""
        settings = {"model.max_steps": 2, "model.batch_size": 8, **axes.pop("set", {})}
        defaults = {"datasets": ["demo"], "attacks": ["badnets"], "models": [self.model], "limit": 48}
        return make_plan(expand([Grid(**{**defaults, **axes, "set": settings})]))

    def runner(self, plan: Plan, **options: Any) -> tuple[Runner, Todo]:
        """Return a runner over the folder and what it has to do."""
        runner = Runner(plan, self.out, {"device": "cpu"}, listener=self._listen, **options)
        return runner, runner.todo()

    def run(self, plan: Plan, **options: Any) -> Report:
        """Run a plan in this process."""
        runner, todo = self.runner(plan, **options)
        return runner.run(InlineExecutor(self.out / "store", Machine(None)), todo)

    def _listen(self, event: str, value: Any) -> None:
        if event == "done":
            self.events.append(value.kind)


@pytest.fixture
def tiny(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Return a tiny run into an empty folder."""
    return Tiny(tmp_path / "out", str(tiny_model(tmp_path_factory, "bert")), [])


@pytest.fixture
def grid_file(tmp_path: Path, tiny: Tiny) -> Callable[..., Path]:
    """Return a function that writes a tiny grid file."""
    import yaml

    def write(**axes: Any) -> Path:
        defaults = {"datasets": ["demo"], "attacks": ["badnets"], "models": [tiny.model], "limit": 48}
        settings = {"model.max_steps": 2, "model.batch_size": 8}
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({**defaults, "defenders": ["vanilla"], "set": settings, **axes}))
        return path

    return write
