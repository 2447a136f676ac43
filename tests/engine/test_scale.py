"""What the engine itself costs; the figures of 15,000 cells are those of `python -m tests.engine.scale`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine import scale

# CPU time of this process, so that busy neighbours do not fail the test.


def test_a_stage_costs_the_engine_less_than_20_ms(tmp_path: Path) -> None:
    for workers in (0, 2):
        cost, stages, _ = scale.overhead(tmp_path, workers, seeds=3)
        assert stages > 70 and cost.cpu / stages < 0.020


@pytest.mark.slow
def test_a_plan_of_3000_cells_and_a_finished_run_of_it_take_a_fifth_of_what_15000_may(tmp_path: Path) -> None:
    plan, cost = scale.large_plan(3_000)
    assert cost.cpu < 4
    _, _, template = scale.overhead(tmp_path, 0, seeds=1)
    scale.finished(plan, tmp_path / "full", template)
    assert scale.resumed(plan, tmp_path / "full").cpu < 2


@pytest.mark.slow
@pytest.mark.parametrize("gang", [1, 16])
def test_ten_times_the_cells_are_ten_times_the_work(tmp_path: Path, gang: int) -> None:
    few, many = (scale.scheduling(tmp_path, seeds, gang) for seeds in (8, 80))
    assert many < 1.15 * few  # calls for a stage: of 80 cells, and of 800
