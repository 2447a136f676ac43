"""Running a plan with a real tiny model: sharing, resume, failures, records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.api import run_grid
from bench.core.errors import CellError
from bench.core.spec import Part
from bench.engine import preflight
from bench.engine.executors.inline import InlineExecutor
from bench.engine.plan import Plan
from bench.engine.record_files import record_path
from bench.engine.store import Store
from bench.engine.work import Machine
from bench.report.explain import explain
from tests.engine.acting import HERE
from tests.engine.conftest import Tiny


def acting(*names: str) -> list[str]:
    return [f"{HERE}:{name}" for name in names]


def records(tiny: Tiny) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((tiny.out / "records").glob("*.json"))]


def test_inference_and_repair_defenses_share_one_trained_victim(tiny: Tiny) -> None:
    report = tiny.run(tiny.plan(defenders=["vanilla", *acting("Flagger", "Cleaner", "Repairer")]))
    assert report.done == 4 and not report.failed
    expected = {"load": 1, "poison": 1, "trigger": 1, "train": 1, "repair": 1, "filter": 1, "detect": 1, "evaluate": 3}
    assert Counter(tiny.events) == expected


def test_clean_texts_that_are_filtered_once_are_those_of_every_attack(tiny: Tiny) -> None:
    chained = f"{HERE}:Settled>{HERE}:Cleaner>{HERE}:Settled"
    defenders = [*acting("Cleaner", "Settled"), chained]
    report = tiny.run(tiny.plan(attacks=["badnets", "addsent"], defenders=defenders))
    assert report.done == 6 and not report.failed
    # Two attacks: two filters of both; one of clean texts, and two; and once more the latter with one filter after it.
    assert Counter(tiny.events)["filter"] == 2 + (1 + 2) + 2 * 1 + 2 * 2
    found = {(record["cell"]["attack"]["name"], record["cell"]["defense"]["name"]): record for record in records(tiny)}
    for attack in ("badnets", "addsent"):
        metrics = [found[attack, name]["metrics"] for name in {defense for _, defense in found}]
        assert metrics[0] == metrics[1] == metrics[2] and metrics[0]["cacc"]["n"] > 0


def test_the_second_run_of_a_finished_grid_executes_nothing(tiny: Tiny) -> None:
    plan = tiny.plan(defenders=["vanilla", "lora"])
    assert tiny.run(plan).executed == 7
    before = {path: path.stat().st_mtime_ns for path in (tiny.out / "records").iterdir()}
    again = tiny.run(plan)
    assert (again.executed, again.to_execute, again.done) == (0, 0, 2)
    assert {path: path.stat().st_mtime_ns for path in (tiny.out / "records").iterdir()} == before


def test_a_lost_record_is_rewritten_without_running_anything(tiny: Tiny) -> None:
    plan = tiny.plan(defenders=["vanilla"])
    tiny.run(plan)
    path = record_path(tiny.out, next(iter(plan.cells.values())))
    before = path.read_text()
    path.unlink()
    assert tiny.run(plan).executed == 0
    assert path.read_text() == before


def test_a_later_defense_retrains_a_victim_only_if_its_weights_were_released(tiny: Tiny) -> None:
    tiny.run(tiny.plan(defenders=["vanilla"]), keep_weights=True)
    tiny.events.clear()
    tiny.run(tiny.plan(defenders=acting("Flagger")))
    assert sorted(tiny.events) == ["detect"]  # the weights were kept, and vanilla's predictions serve it too
    tiny.events.clear()
    tiny.run(tiny.plan(defenders=acting("Repairer")))
    assert Counter(tiny.events) == {"train": 1, "repair": 1, "evaluate": 1}


def test_weights_are_released_after_the_last_stage_that_needs_them_and_predictions_stay(tiny: Tiny) -> None:
    plan = tiny.plan(defenders=["vanilla", *acting("Repairer")])
    tiny.run(plan)
    assert not list((tiny.out / "store").rglob("weights.safetensors"))
    assert len(list((tiny.out / "store").rglob("predictions.npz"))) == 2
    store = Store(tiny.out / "store")
    for stage in plan.unique():
        assert store.has(stage.key)


def test_one_failing_defense_leaves_its_siblings_alone(tiny: Tiny) -> None:
    report = tiny.run(tiny.plan(defenders=["vanilla", *acting("Crashes", "Vandal", "RemovesAll")]))
    assert report.done == 1 and len(report.failed) == 3
    errors = {r["cell"]["defense"]["name"]: r["error"] for r in records(tiny) if r["status"] == "failed"}
    assert errors["crashes"]["type"] == "ZeroDivisionError"
    assert "on purpose" in errors["crashes"]["traceback"]
    assert "changed the victim that it was lent" in errors["vandal"]["message"]
    assert "removed every training row of class 1" in errors["removes-all"]["message"]
    assert errors["removes-all"]["stage"] == "cleanse"


def test_a_stage_that_runs_out_of_memory_is_tried_with_smaller_batches_before_it_fails(tiny: Tiny) -> None:
    report = tiny.run(tiny.plan(defenders=["vanilla", f"{HERE}:Hungry(parts=4)", f"{HERE}:Hungry(parts=17)"]))
    assert report.done == 2
    (reason,) = report.failed.values()
    assert reason.startswith("Memory ran out, even with batches cut into 16 parts")
    cuts = {r["cell"]["defense"]["name"]: r["cost"]["batches_cut"] for r in records(tiny) if r["status"] == "ok"}
    assert cuts == {"vanilla": 1, "hungry": 4}


def test_failed_cells_are_kept_and_run_again_only_when_asked(tiny: Tiny) -> None:
    plan = tiny.plan(defenders=acting("Crashes"))
    assert tiny.run(plan).executed == 3  # load, poison and trigger; the training failed
    runner, todo = tiny.runner(plan)
    assert not todo.stages and len(runner.report.failed) == 1
    runner, todo = tiny.runner(plan, retry_failed=True)
    assert Counter(stage.kind for stage in todo.stages.values()) == {"train": 1, "evaluate": 1}


def test_a_cell_that_cannot_be_is_a_failed_record_with_its_reason(tiny: Tiny) -> None:
    plan = tiny.plan(defenders=["vanilla"], label_rules=["clean"], poison_ratios=[0.1, 0.9])
    report = tiny.run(plan)
    assert report.done == 1
    (reason,) = report.failed.values()
    assert "leaves" in reason and "0.9 of 48 rows needs 43" in reason


def test_impossible_cells_do_not_stop_the_rest(tiny: Tiny) -> None:
    plan = tiny.plan(defenders=["vanilla", "lora"])
    lost = next(iter(plan.cells))
    plan.impossible[lost] = CellError("It cannot be.", "Leave it.")
    plan.stages.pop(lost)
    report = tiny.run(plan)
    assert report.done == 1 and report.failed == {lost: "It cannot be. Leave it."}


def test_a_finished_cell_stays_when_the_training_that_a_new_one_needs_again_cannot_be(
    tiny: Tiny, grid_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*defenders: str) -> dict[str, str]:
        options = {"defenders": list(defenders), "out": tiny.out, "engine": "inline", "device": "cpu"}
        return {record["cell"]["defense"]["name"]: record["status"] for record in run_grid(grid_file(), **options)}

    def gone(part: Part) -> None:
        raise CellError(f"The weights of model {part.name!r} are not on this machine.", "Name a local folder.")

    assert run("vanilla") == {"vanilla": "ok"}
    before = records(tiny)
    monkeypatch.setattr(preflight, "_check_model", gone)
    assert run("vanilla", *acting("Flagger")) == {"vanilla": "ok", "flagger": "failed"}
    assert before[0] in records(tiny)


def test_a_record_that_another_run_finished_meanwhile_is_not_replaced_by_a_failure(tiny: Tiny) -> None:
    plan = tiny.plan(defenders=["vanilla"])
    away = Plan(plan.cells, plan.stages, dict.fromkeys(plan.cells, CellError("It cannot be here.", "Leave it.")))
    runner, todo = tiny.runner(away)
    assert not todo.cells and not todo.stages
    tiny.run(plan)
    before = records(tiny)
    report = runner.run(InlineExecutor(tiny.out / "store", Machine(None)), todo)
    assert (report.done, report.failed, records(tiny)) == (1, {}, before)


@pytest.fixture
def done(tiny: Tiny) -> dict[str, dict]:
    """Return the records of a run by defense."""
    tiny.run(tiny.plan(defenders=["vanilla", *acting("Flagger", "Cleaner", "Cleanser")]))
    return {record["cell"]["defense"]["name"]: record for record in records(tiny)}


def test_a_record_holds_the_whole_spec_the_counts_and_the_cost(done: dict[str, dict]) -> None:
    record = done["vanilla"]
    assert record["schema_version"] == 1 and record["status"] == "ok" and record["error"] is None
    assert record["cell"]["attack"] == {
        "name": "badnets",
        "options": {
            "poison_file": "generated",
            "triggers": ["cf", "mn", "bb", "tq"],
            "num_triggers": 4,
            "draw": "replacement",
        },
    }
    assert record["cell"]["label_rule"] == "mix" and record["cell"]["limit"] == 48
    assert record["poison"]["rows"] == 4  # floor(0.1 x 48)
    cacc, asr = record["metrics"]["cacc"], record["metrics"]["asr"]
    assert cacc["n"] == record["dataset_info"]["test"] and cacc["value"] == cacc["hits"] / cacc["n"]
    assert asr["n"] < cacc["n"] and record["metrics"]["asr_floor"]["n"] == asr["n"]
    assert record["cost"]["trainable_parameters"] > 0 and record["cost"]["train_seconds"] > 0
    assert record["knowledge"]["method"] == 0
    assert record["knowledge"]["selection"] == record["dataset_info"]["dev"] // 2


def test_flags_count_as_rejections_and_as_flips(done: dict[str, dict]) -> None:
    flagged, plain = done["flagger"], done["vanilla"]
    assert flagged["metrics"]["frr"]["hits"] == 0 and flagged["metrics"]["far"]["hits"] == 0
    assert flagged["metrics"]["cacc"] == plain["metrics"]["cacc"]
    assert flagged["metrics"]["asr"]["hits"] == 0
    n, hits = plain["metrics"]["asr"]["n"], plain["metrics"]["asr"]["hits"]
    assert flagged["metrics_flip"]["asr"]["hits"] == n - hits
    assert plain["metrics_flip"] is None and plain["metrics"]["frr"] is None


def test_neither_place_nor_turn_tells_a_defense_what_is_poisoned(tiny: Tiny) -> None:
    tiny.run(tiny.plan(defenders=["vanilla", *acting("Positional", "SecondGuesser")]))
    found = {record["cell"]["defense"]["name"]: record["metrics"] for record in records(tiny)}
    # A third is flagged, blindly: of clean and poisoned texts alike, up to chance (200 texts and more: 5 deviations).
    assert 0.15 < found["positional"]["frr"]["value"] < 0.5 and 0.5 < found["positional"]["far"]["value"] < 0.85
    for name in ("cacc", "asr"):
        assert found["second-guesser"][name] == found["vanilla"][name]


def test_a_filter_that_removes_the_trigger_brings_the_asr_to_its_floor(done: dict[str, dict]) -> None:
    measured = done["cleaner"]["metrics"]
    assert measured["asr"] == measured["asr_floor"]


def test_a_cleanser_reports_what_it_removed(done: dict[str, dict]) -> None:
    assert done["cleanser"]["cleansed"] == {"removed": 4, "removed_poisoned": 4}
    assert done["vanilla"]["cleansed"] is None


def test_two_cleansers_report_together_what_they_removed(tiny: Tiny) -> None:
    plan = tiny.plan(defenders=[f"{HERE}:Cleanser>{HERE}:RemovesFirst"])
    tiny.run(plan)
    (record,) = records(tiny)
    assert record["cleansed"] == {"removed": 4 + 3, "removed_poisoned": 4}
    (cell,) = plan.cells.values()
    first, second = (line for line in explain(cell, record) if ". cleanse: " in line)
    assert first.endswith("it sees no poison flag.")
    assert second.endswith("All cleansers together removed 7 rows, 4 of them poisoned.")


def test_a_number_does_not_depend_on_what_else_is_in_the_grid(
    tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tiny.run(tiny.plan(defenders=["lora", "vanilla"], attacks=["addsent", "badnets"]))
    together = {record["key"]: record["metrics"] for record in records(tiny)}
    alone = Tiny(tmp_path_factory.mktemp("alone"), tiny.model, [])
    alone.run(alone.plan(defenders=["vanilla"]))
    (record,) = records(alone)
    assert together[record["key"]] == record["metrics"]
