"""Estimated times: units and sums worked out by hand, rates of real runs, a real calibration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench.cli import app
from bench.commands.estimated import Estimated, lines, missing, words
from bench.commands.run import Request
from bench.engine.calibration import cache_file, cached, calibrate, keep
from bench.engine.estimate import (
    LIGHT_SECONDS,
    LOADING,
    PREDICTING,
    PREDICTIONS,
    STEPPING,
    Estimate,
    Sized,
    Sizes,
    estimate,
    rate_name,
    rates_of_runs,
    units,
)
from bench.engine.expand import expand
from bench.engine.grid import Grid
from bench.engine.plan import make_plan
from bench.engine.preflight import default_workers
from bench.engine.runner import Report
from bench.engine.store import Store
from tests.engine.acting import HERE

MODEL = {"batch_size": 8, "epochs": 3, "max_steps": None}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep calibrations of tests out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("kind", "model", "expected"),
    [
        ("load", {}, 1),
        ("train", MODEL, 7 * 3 * 8),  # 50 rows make 7 batches of 8
        ("train", {**MODEL, "max_steps": 5}, 5 * 8),
        ("cleanse", MODEL, 50),
        ("evaluate", MODEL, 40 + 30),  # 3 of 4 classes are not the target
        ("detect", MODEL, 40 + 30),
    ],
)
def test_units_by_hand(kind: str, model: dict[str, Any], expected: float) -> None:
    assert units(kind, model, Sizes(train=50, dev=20, test=40, classes=4)) == expected


def test_a_filter_of_some_texts_has_these_to_do() -> None:
    sizes = Sizes(train=50, dev=20, test=40, classes=4)
    assert [units("filter", {}, sizes, texts) for texts in ("clean", "poisoned", None)] == [40, 30, 70]


def test_an_estimate_is_the_sum_of_units_and_rates(tiny: Any) -> None:
    plan = tiny.plan(defenders=["vanilla", "strip"], set={"model.epochs": 2, "model.max_steps": None})
    stages = plan.unique()
    train = next(stage for stage in stages if stage.kind == "train")
    sizes = Sized(None).of(train)
    assert sizes is not None and sizes.train == 48  # the limit
    plain = {"model": train.content["model"], "precision": "fp32"}
    rates = {
        rate_name(STEPPING, train.content, "demo", "cpu"): 0.01,
        rate_name(PREDICTING, plain, "demo", "cpu"): 0.002,
        rate_name(LOADING, plain, "demo", "cpu"): 3.0,
        "load|demo||None|None||None|cpu": 7.0,
    }
    found = estimate(stages, rates, Sized(None), "cpu")
    tests = sizes.test * 1.5
    assert found.seconds["load"] == 7.0 and found.seconds["poison"] == LIGHT_SECONDS
    assert found.seconds["train"] == pytest.approx(3 + 0.01 * 2 * 48 + 0.002 * 2 * sizes.dev / 2)
    assert found.seconds["evaluate"] == pytest.approx(3 + 0.002 * tests)
    assert found.seconds["detect"] == pytest.approx(3 + 0.002 * PREDICTIONS * tests)
    assert found.assumed == pytest.approx(found.seconds["detect"] + 2 * LIGHT_SECONDS)  # poison and trigger besides
    assert found.wall(2) == found.total / 2 and not found.unknown
    # Another device, precision or batch was never measured.
    assert estimate(stages, rates, Sized(None), "cuda").unknown["train"] == 1


def test_what_was_run_is_estimated_as_it_took(tiny: Any) -> None:
    plan = tiny.plan(defenders=["lora"])
    assert tiny.run(plan).done == 1
    store = Store(tiny.out / "store")
    took = {stage.kind: store.manifest(stage.key)["seconds"] for stage in plan.unique()}
    found = estimate(plan.unique(), rates_of_runs(tiny.out, "cpu"), Sized(None), "cpu")
    assert dict(found.seconds) == pytest.approx(took) and found.assumed == 0
    assert rates_of_runs(tiny.out, "cuda:0") == {} == rates_of_runs(tiny.out / "nowhere", "cpu")


def test_data_that_are_not_here_have_no_estimate(tiny: Any, tmp_path: Path) -> None:
    stages = tiny.plan(datasets=["sst2"], defenders=["vanilla"]).unique()
    found = estimate(stages, {}, Sized(tmp_path), "cpu")
    assert found.unknown == {"train": 1, "evaluate": 1} and "unknown" in lines(found, 1, "cpu")[0]


def test_a_calibration_is_measured_once_and_kept(tiny: Any) -> None:
    stages, told = tiny.plan(defenders=["vanilla", "strip"]).unique(), []
    assert cached() == {}
    found = calibrate(stages, {}, Sized(None), "cpu", told.append)
    # vanilla and strip share their training.
    assert len(told) == 1 and sorted(name.partition("|")[0] for name in found) == sorted(
        (STEPPING, PREDICTING, LOADING)
    )
    assert all(0 < seconds < 60 for seconds in found.values()) and cached() == found
    assert calibrate(stages, cached(), Sized(None), "cpu", told.append) == {} and len(told) == 1
    cache_file().write_text("not json")
    assert cached() == {}
    keep({"a": 1.0})
    assert json.loads(cache_file().read_text()) == {"a": 1.0}


def test_a_calibration_that_fails_or_dies_is_left_out_and_the_others_are_made(tiny: Any) -> None:
    plan = tiny.plan(defenders=[f"{HERE}:Crashes", f"{HERE}:Dies", f"{HERE}:Hungry", "vanilla"])
    told: list[str] = []
    found = calibrate(plan.unique(), {}, Sized(None), "cpu", told.append)
    assert sorted(name.partition("|")[0] for name in found) == sorted((STEPPING, PREDICTING, LOADING))  # vanilla's
    reasons = [line for line in told if line.startswith("  left out: ")]
    assert len(told) == 4 + len(reasons) and len(reasons) == 3
    assert "ZeroDivisionError on purpose" in reasons[0]
    assert "its process died" in reasons[1] and "MemoryError" in reasons[2]


def test_plan_prints_the_time_and_does_not_calibrate_when_told_so(grid_file: Any, tmp_path: Path) -> None:
    grid = str(grid_file())
    asked = ["plan", "--grid", grid, "--out", str(tmp_path / "out"), "--no-calibrate"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0 and "time: unknown on cpu" in result.output and not cache_file().exists()
    assert CliRunner().invoke(app, ["run", *asked[1:-1], "--engine", "inline"]).exit_code == 0
    again = CliRunner().invoke(app, asked)
    assert "nothing is left to run" in again.output
    more = CliRunner().invoke(app, [*asked, "--seeds", "1", "--workers", "1"])
    assert "time: about" in more.output and "by 1 worker(s) on cpu" in more.output and "train" in more.output
    wrong = CliRunner().invoke(app, [*asked, "--workers", "0", "--seeds", "1"])
    assert wrong.exit_code == 2 and "--workers is 0" in wrong.output


def test_a_run_says_how_far_its_estimate_was_off(tiny: Any, tmp_path: Path) -> None:
    plan = tiny.plan(defenders=["vanilla"])
    estimated = Estimated(Request("tiny", engine="inline"), plan, tmp_path, None, ["cpu"])
    estimated.found = Estimate(seconds={"train": 100.0}, stages={"train": 4})
    console = Console(record=True, width=200)
    estimated.began -= 150
    estimated.tell(Report(executed=4), console)
    assert "time: 3 min, estimated 2 min: 50 % more" in console.export_text()  # 150 s instead of 100
    # What was not run, or could not be estimated, is not compared.
    estimated.tell(Report(executed=3), console)
    assert console.export_text() == ""


def test_a_run_of_sharded_trainings_is_estimated_for_the_workers_that_it_has(tiny: Any, tmp_path: Path) -> None:
    plan, devices = tiny.plan(defenders=["vanilla"], set={"model.shards": 2}), [f"cuda:{i}" for i in range(8)]
    estimated = Estimated(Request("tiny", engine="local"), plan, tmp_path, None, devices)
    assert estimated.workers == default_workers(devices, 2) == 4


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (99, "99 s"), (600, "10 min"), (7200, "2.0 h")])
def test_times_in_words(seconds: float, text: str) -> None:
    assert words(seconds) == text


def test_a_plan_leaves_what_it_cannot_read_where_it_is(tmp_path: Path) -> None:
    plan = make_plan(
        expand([Grid(datasets=("demo",), attacks=("badnets",), models=("minilm-l6",), defenders=("vanilla",))])
    )
    (key,) = plan.cells
    record = tmp_path / "records" / f"{key}.json"
    record.parent.mkdir()
    record.write_text('{"schema_version": 2}')
    assert {stage.kind for stage in missing(plan, tmp_path)} >= {"train", "evaluate"}
    assert record.read_text() == '{"schema_version": 2}' and not (tmp_path / "store").exists()
