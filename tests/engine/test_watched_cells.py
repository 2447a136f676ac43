"""Cells whose training an analysis watches: the same numbers, other keys, and the findings in the record."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import RequestError
from bench.core.spec import Cell, Part
from bench.engine.expand import expand
from bench.engine.grid import Grid, load_grid, narrowed
from bench.engine.record_files import read_record, record_path
from tests.engine.conftest import Tiny
from tests.engine.keys import identities_of, keys_of, moved
from tests.engine.test_sharing import CLEANSER, FILTER, REPAIR

WATCHED = {"analysis": {"name": "fourier", "looks": 2, "rows": 20}}


def cell(defense: str, **axes: Any) -> Cell:
    grid = Grid(datasets=("sst2",), attacks=("badnets",), models=("bert-base",), defenders=(defense,), **axes)
    (found,) = expand([grid]).cells.values()
    return found


@pytest.mark.parametrize("defense", ["vanilla", "lora", CLEANSER, FILTER, REPAIR])
def test_watching_changes_the_key_of_the_training_and_no_random_number(defense: str) -> None:
    base, watched = cell(defense), cell(defense, analysis="fourier")
    assert base.key != watched.key
    assert moved(base, watched) == set(keys_of(base)) - {"load", "poison", "trigger", "cleanse"}
    assert identities_of(base) == identities_of(watched)


def test_options_of_the_analysis_are_part_of_the_key() -> None:
    keys = [cell("lora", analysis=choice).key for choice in ("fourier", "fourier(looks=3)", "fourier(looks=20)")]
    assert keys[0] == keys[2] != keys[1]
    assert cell("lora", analysis="fourier", set={"analysis.looks": 3}).key == keys[1]


def test_a_cell_without_analysis_says_nothing_of_one() -> None:
    assert "analysis" not in cell("lora").json()
    assert cell("lora", analysis="fourier").json()["analysis"]["name"] == "fourier"
    with pytest.raises(RequestError, match="analysis is 'fourier'"):
        dataclasses.replace(cell("lora"), analysis="fourier")


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ("fourrier", "fourier"),
        ("fourier(look=3)", "looks"),
        ("fourier(rows=1)", "rows"),
        ("fourier(deltas=[0])", "deltas"),
    ],
)
def test_a_wrong_analysis_is_refused(choice: str, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        cell("lora", analysis=choice)


def test_a_setting_without_an_analysis_is_refused() -> None:
    with pytest.raises(RequestError, match="has no analysis to set looks of"):
        cell("lora", set={"analysis.looks": 3})


def test_a_watched_training_is_the_very_one_that_nobody_watched(tiny: Tiny) -> None:
    defenses = {"defenders": ["vanilla", "musclelora"], "poison_ratios": [0.5]}
    plain, watched = tiny.plan(**defenses), tiny.plan(**defenses, **WATCHED)
    for plan in (plain, watched):
        report = tiny.run(plan, keep_weights=True)
        assert (report.done, report.failed) == (2, {})
    pairs = list(zip(plain.stages.values(), watched.stages.values(), strict=True))
    store = tiny.runner(plain)[0].store
    for one, other in pairs:
        assert one.evaluate.key != other.evaluate.key
        for stage, file in (("victim", "weights.safetensors"), ("evaluate", "predictions.npz")):
            contents = [(store.open(getattr(of, stage).key) / file).read_bytes() for of in (one, other)]
            assert contents[0] == contents[1], (stage, file)
    assert tiny.runner(watched)[1].stages == {}  # a second run has nothing to do


def test_the_record_holds_what_was_found(tiny: Tiny) -> None:
    plan = tiny.plan(defenders=["vanilla"], poison_ratios=[0.5], **WATCHED)
    assert tiny.run(plan).failed == {}
    (one,) = plan.cells.values()
    record = read_record(record_path(tiny.out, one))
    found = record["analysis"]
    assert found == json.loads(json.dumps(found, allow_nan=False))
    assert (found["steps"], found["rows"]) == ([0, 1, 2], {"clean": 20, "backdoor": 20})
    # 2 kernels x (delta 4 and one from the data) x 2 neighbourhoods x 2 mappings
    assert len(found["filters"]) == 16
    for entry in found["filters"]:
        shown = [entry[name] for name in ("lfr", "hfr", "low_error")]
        assert (entry["degenerate"] is None) == all(series is not None and len(series) == 3 for series in shown)
    # The accuracies of the last look but the restored best one are of the same rows: fractions of 20.
    for series in found["accuracy"].values():
        assert len(series) == 3 and all(round(20 * value, 6) == round(20 * value) for value in series)


def test_a_sweep_is_a_block_for_each_combination(tmp_path: Path) -> None:
    path = tmp_path / "swept.yaml"
    path.write_text(
        "{datasets: demo, attacks: badnets, models: bert-base, defenders: musclelora, "
        "sweep: {defense.mu_max: [0, 0.1], model.epochs: [1, 2]}, set: {model.batch_size: 8}}"
    )
    blocks = load_grid(str(path)).blocks()
    cells = list(expand(blocks).cells.values())
    found = [(one.defense.options["mu_max"], one.model.options["epochs"]) for one in cells]
    assert found == [(0.0, 1), (0.0, 2), (0.1, 1), (0.1, 2)]
    assert {one.model.options["batch_size"] for one in cells} == {8}
    assert len(expand(narrowed(blocks, {"set": {"model.epochs": 3}})).cells) == 2


@pytest.mark.parametrize("sweep", ["{defense.mu_max: []}", "{defense.mu: [1]}", "{mu_max: [0.1]}", "{model.epochs: 3}"])
def test_a_wrong_sweep_is_refused(sweep: str, tmp_path: Path) -> None:
    path = tmp_path / "swept.yaml"
    path.write_text(f"{{datasets: demo, attacks: badnets, models: bert-base, defenders: musclelora, sweep: {sweep}}}")
    with pytest.raises(RequestError):
        expand(load_grid(str(path)).blocks())


def test_a_part_stands_for_the_analysis() -> None:
    assert isinstance(cell("lora", analysis="fourier").analysis, Part)
