"""What makes a number repeat is set for the length of a stage, and given back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from bench.engine.repeatable import CUBLAS, repeatable
from defenders.base import Defender
from tests.engine.conftest import Tiny
from tests.engine.test_faults import records


def test_a_stage_on_a_cpu_runs_on_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    with repeatable("cpu", False):
        assert torch.get_num_threads() == 1 and not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def test_deterministic_forbids_kernels_that_vary_and_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CUBLAS, raising=False)
    with pytest.raises(ZeroDivisionError), repeatable("cpu", True):
        assert torch.are_deterministic_algorithms_enabled() and os.environ[CUBLAS] == ":4096:8"
        raise ZeroDivisionError
    assert not torch.are_deterministic_algorithms_enabled() and CUBLAS not in os.environ


@dataclass(frozen=True)
class Varies(Defender):
    """Trains with an operation that torch says may differ from run to run, on a CPU too."""

    name = "varies"

    def wrap(self, victim: Any) -> None:
        """Call it."""
        torch.zeros(4).put_(torch.tensor([0, 1]), torch.tensor([1.0, 2.0]))


def test_deterministic_changes_no_number_on_a_cpu_and_fails_the_cell_whose_operation_may_vary(tiny: Tiny) -> None:
    from bench.engine.executors.inline import InlineExecutor
    from bench.engine.work import Machine

    plan = tiny.plan(defenders=["vanilla", "lora", "tests.engine.test_repeatable:Varies"])
    freely = tiny.run(plan)
    assert freely.done == 3
    strict = Tiny(tiny.out.parent / "strict", tiny.model, [])
    runner, todo = strict.runner(plan)
    report = runner.run(InlineExecutor(strict.out / "store", Machine(None, deterministic=True)), todo)
    assert report.done == 2 and "does not have a deterministic implementation" in next(iter(report.failed.values()))
    alike, found = records(tiny.out), records(strict.out)
    done = [key for key, record in found.items() if record["status"] == "ok"]
    assert len(done) == 2 and all(found[key] == alike[key] for key in done)
