"""The plan of a grid: counts worked out by hand, nothing run, and the full grid within seconds."""

from __future__ import annotations

import functools
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.core.registry import DEFENDERS, own_plugins
from bench.engine import plugins
from bench.engine.expand import Expanded, expand
from bench.engine.grid import Grid, load_grid
from bench.engine.plan import Plan, make_plan
from bench.engine.stages import VERSION, with_ancestors

ROOT = Path(__file__).resolve().parents[2]
SECONDS_FOR_FULL = 20  # it is to take less than 5; the rest is for a slow and busy machine


@functools.cache
def plan(name: str) -> Plan:
    return make_plan(expand(load_grid(name).blocks()))


def test_demo_by_hand() -> None:
    grid = load_grid("demo")
    assert (len(grid.attacks), len(grid.poison_ratios), len(grid.models), len(grid.seeds)) == (4, 2, 1, 1)
    assert set(grid.defenders) == {"vanilla", "lora", "adapter", "prefix", "musclelora"}  # all act at training alone
    # 4 attacks x ratio 0.1 are 4 poisoned sets, ratio 0 is one more for all attacks; each is trained on 5 times.
    assert repr(plan("demo")) == "Plan(cells=40, impossible=0, stages=75, trainings=25)"
    assert plan("demo").summary() == {
        "cells": 4 * 2 * 5,
        "impossible": 0,
        "stages": 1 + 5 + 4 + 25 + 40,
        "trainings": 25,
        "trainings_alone": 40,
        "trainings_saved": 15,
        "stages_evaluate": 40,
        "stages_load": 1,
        "stages_poison": 5,
        "stages_train": 25,
        "stages_trigger": 4,
    }


def test_table1_by_hand() -> None:
    # 4 data sets x 4 attacks x 5 defenses, one ratio: nothing to share but data and poison.
    counts = plan("table1").summary()
    assert (counts["cells"], counts["trainings"], counts["trainings_saved"]) == (80, 80, 0)
    assert (counts["stages_load"], counts["stages_poison"], counts["stages_trigger"]) == (4, 16, 16)


def test_full_holds_every_combination() -> None:
    whole = plan("full")
    defenses = len(own_plugins(DEFENDERS))
    assert len(whole.cells) == 4 * 4 * defenses * 6 * 5 * 3
    assert len(whole.stages) + len(whole.impossible) == len(whole.cells)
    # A model without a linear before its classifier carries no multi-scale module, and nothing else is impossible.
    assert {whole.cells[key].model.name for key in whole.impossible} <= {"llama2-7b", "gpt2-xl"}
    assert {whole.cells[key].defense.name for key in whole.impossible} <= {"musclelora", "mslr"}
    counts = whole.summary()
    # 4 data sets: the clean control, and 4 attacks x 4 ratios x 3 seeds; the trigger knows no ratio.
    assert (counts["stages_load"], counts["stages_poison"], counts["stages_trigger"]) == (4, 4 + 192, 48)
    # The clean control is trained on once per data set, model, training defense and seed, not once per attack.
    vanilla = 4 * 6 * 3 * (1 + 4 * 4)
    trained = [chain.victim for key, chain in whole.stages.items() if whole.cells[key].defense.name == "vanilla"]
    assert len({stage.key for stage in trained}) == vanilla == 1224
    assert (
        counts["trainings_saved"] > 0 and counts["trainings"] + counts["trainings_saved"] == counts["trainings_alone"]
    )


def test_planning_full_takes_seconds(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "plan", "--grid", "full"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of the processor, not of the clock: neighbours on the machine are no fault of the plan.
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"python -m bench plan --grid full: {seconds:.1f} s of one core")
    record_property("plan_full_seconds", round(seconds, 2))
    assert done.returncode == 0, done.stderr
    counts = plan("full").summary()
    for number in ("cells", "stages", "trainings", "trainings_saved"):
        assert str(counts[number]) in done.stdout
    assert seconds < SECONDS_FOR_FULL and list(tmp_path.iterdir()) == []


def test_parents_come_before_their_children_and_each_stage_once() -> None:
    seen: set[str] = set()
    unique = plan("demo").unique()
    for stage in unique:
        assert stage.kind in VERSION and stage.key not in seen
        assert all(parent.key in seen for parent in stage.parents.values())
        seen.add(stage.key)
    assert len(seen) == len(unique) == 75


def test_the_stages_of_a_vanilla_cell() -> None:
    grid = Grid(datasets=("demo",), attacks=("addsent",), models=("bert-base",), defenders=("vanilla",))
    (chain,) = make_plan(expand([grid])).stages.values()
    order = [stage.kind for stage in with_ancestors(chain.last())]
    assert order == ["load", "trigger", "poison", "train", "evaluate"]
    parents = {stage.kind: {role: parent.kind for role, parent in stage.parents.items()} for stage in
               with_ancestors(chain.last())}  # fmt: skip
    assert parents == {
        "load": {},
        "trigger": {"load": "load"},
        "poison": {"load": "load"},
        "train": {"load": "load", "data": "poison"},
        "evaluate": {"load": "load", "trigger": "trigger", "victim": "train"},
    }


def test_a_payload_is_json_and_leads_back() -> None:
    (chain,) = make_plan(
        expand([Grid(datasets=("demo",), attacks=("addsent",), models=("bert-base",), defenders=("lora(rank=3)",))])
    ).stages.values()
    payload = json.loads(json.dumps(chain.victim.payload()))
    assert (payload["kind"], payload["key"], payload["identity"]) == ("train", chain.victim.key, chain.victim.identity)
    assert plugins.defender(payload["content"]["defense"]).rank == 3
    assert payload["parents"] == {"load": chain.load.key, "data": chain.poison.key}
    assert plugins.attacker(payload["parent_payloads"]["data"]["content"]["attack"]).sentence == "I watch this 3D movie"


def test_an_impossible_cell_has_no_stages() -> None:
    model = "gpt2-xl(head=plain)"  # which has no linear before its classifier
    grid = Grid(datasets=("demo",), attacks=("addsent",), models=(model,), defenders=("vanilla", "mslr"))
    made = make_plan(expand([grid]))
    assert (len(made.cells), len(made.stages), len(made.impossible)) == (2, 1, 1)
    assert made.summary()["impossible"] == 1 and not set(made.stages) & set(made.impossible)


def test_a_plan_of_nothing() -> None:
    counts = make_plan(Expanded()).summary()
    assert counts == dict.fromkeys(
        ("cells", "impossible", "stages", "trainings", "trainings_alone", "trainings_saved"), 0
    )
