"""Both sides of the end-to-end comparison really run, and measure the same cells."""

from __future__ import annotations

import os
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.errors import CellError
from bench.engine.expand import expand
from bench.engine.grid_cost import grid_cost, run_alone, small_grid
from bench.engine.inference_cost import inference_rows
from bench.engine.plan import make_plan
from bench.engine.record_files import read_record, record_path
from bench.engine.work import Machine
from tests.tiny import tiny_model


def test_the_small_grid_is_four_attacks_by_thirteen_defenders(tmp_path_factory: Any) -> None:
    plan = make_plan(expand([small_grid(str(tiny_model(tmp_path_factory, "bert")), "demo", 64)]))
    assert len(plan.cells) == len(plan.stages) == 4 * 13
    counts = plan.summary()
    # vanilla, onion, strip and rap share one training, which bki looks at before its own: 1 + 7 + 2 an attack.
    assert counts["trainings"] == 4 * 10 and counts["trainings_alone"] == 4 * (13 + 1)
    assert {cell.limit for cell in plan.cells.values()} == {64}
    assert {cell.model.options["epochs"] for cell in plan.cells.values()} == {1}


@pytest.mark.slow
def test_both_sides_run_the_same_cells(tiny: Any) -> None:
    def plan_at(precision: str) -> Any:
        return tiny.plan(defenders=["vanilla", "strip"], precisions=[precision])

    told: list[str] = []
    served: dict[str, set[int]] = {}

    def tell(text: str) -> None:
        told.append(text)
        served.setdefault(text.partition(":")[0], set()).add(forkserver._forkserver._forkserver_pid)

    rows = grid_cost(plan_at, Machine(None), workers=1, sides=["ours", "ours-bf16", "alone"], tell=tell)
    # Each of our sides forks its workers from a process of its own, so that none finds the imports done.
    assert len(served["ours"]) == len(served["ours-bf16"]) == 1 and served["ours"] != served["ours-bf16"]
    assert [row["name"] for row in rows] == ["ours", "ours-bf16", "alone"]
    assert [row["trainings"] for row in rows] == [1, 1, 2] and len(told) == 6
    for row in rows:
        assert row["seconds"] > 0 and row["cells"] == 2 and row["failed"] == 0 and 0 <= row["mean_asr"] <= 1
        assert row["against_alone"] == pytest.approx(rows[2]["seconds"] / row["seconds"])
        assert "against_published" not in row and row["stage_seconds"]["train"] > 0
    assert set(rows[0]["stage_seconds"]) == set(rows[2]["stage_seconds"]) >= {"load", "detect", "evaluate"}


def test_a_cell_alone_comes_to_the_results_of_ours_and_leaves_nothing(tiny: Any, tmp_path: Path) -> None:
    plan = tiny.plan(defenders=["vanilla"], set={"model.max_steps": 1})
    assert tiny.run(plan).done == 1
    ((key, cell),) = plan.cells.items()
    ours = read_record(record_path(tiny.out, cell))
    alone = run_alone(cell, plan.stages[key], tmp_path / "alone", Machine(None, loop="reference"))
    assert alone["stages"] == ours["stages"] and not (tmp_path / "alone").exists()
    assert alone["metrics"]["cacc"]["n"] == ours["metrics"]["cacc"]["n"]
    # One step of different dropout masks moves few predictions.
    apart = [abs(alone["metrics"][name]["value"] - ours["metrics"][name]["value"]) for name in ("cacc", "asr")]
    assert np.max(apart) < 0.1
    assert alone["cost"]["steps"] == 1 and alone["cost"]["selection_accuracies"]
    # Evaluating the training set decides nothing.
    published = run_alone(cell, plan.stages[key], tmp_path / "alone", Machine(None, loop="published"))
    assert published["metrics"] == alone["metrics"]


@pytest.mark.slow
def test_a_cell_that_fails_is_no_figure(tiny: Any) -> None:
    with pytest.raises(CellError, match="Every cell failed.*clean samples"):
        grid_cost(lambda precision: tiny.plan(defenders=["musclelora(clean_samples=100000)"]), Machine(None), workers=1)


def noted(cell: Any, stages: Any, folder: Path, machine: Machine) -> dict[str, Any]:
    """Build a cell alone, and note which process did it."""
    (Path(os.environ["NOTED"]) / cell.key).write_text(str(os.getpid()))
    return run_alone(cell, stages, folder, machine)


@pytest.mark.slow
@pytest.mark.parametrize(("side", "processes"), [("alone", 1), ("published", 2)])
def test_each_cell_of_the_published_way_is_a_process_of_its_own(
    side: str, processes: int, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTED", str(tmp_path))
    monkeypatch.setattr("bench.engine.grid_cost.run_alone", noted)
    plan = tiny.plan(defenders=["vanilla", "strip"])
    (row,) = grid_cost(lambda precision: plan, Machine(None), workers=1, sides=[side])
    found = [path.read_text() for path in tmp_path.iterdir() if len(path.name) > 8]
    assert len(found) == 2 and len(set(found)) == processes
    assert row["name"] == side and row[f"against_{side}"] == 1.0 and row["failed"] == 0


def inference_setting(tmp_path_factory: Any) -> tuple[Any, list[Any]]:
    """Return the spec of a tiny model and 60 dev rows."""
    from bench.core.example import Example
    from bench.victim.spec import model_spec

    words = ("warm film", "dull mess", "clever story", "cold empty plot")
    dev = [Example(f"the {words[row % 4]} {row}", row % 2) for row in range(60)]
    return model_spec(str(tiny_model(tmp_path_factory, "bert"))), dev


def test_inference_rows_say_what_was_timed(tmp_path_factory: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    spec, dev = inference_setting(tmp_path_factory)
    rows = inference_rows(spec, dev, ["the warm mess", "a film"], layers=1, process=lambda: ThreadPoolExecutor(1))
    assert [(row["defense"], row["sentences"]) for row in rows] == [("onion", 2), ("strip", 2)]
    # Half of the dev rows calibrate.
    assert rows[1]["calibration_rows"] == 30
    for row in rows:
        assert row["sentences_per_second"] == pytest.approx(2 / row["seconds"]) and row["peak_memory_mb"] > 50


@pytest.mark.slow
def test_other_ways_read_a_sample(tmp_path_factory: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    spec, dev = inference_setting(tmp_path_factory)
    texts = ["a", "the warm mess", "b"]
    rows = inference_rows(spec, dev, texts, layers=1, sample=1, process=lambda: ThreadPoolExecutor(1))
    assert [(row["name"], row["sentences"]) for row in rows] == [
        *(("ours", 1), ("in full", 1), ("one at a time", 1)),
        *(("ours", 3), ("ours", 3)),
    ]
