"""Gangs in the plan and in a run: who trains together, records equal to those of training alone, failures alone."""

from __future__ import annotations

import json
import weakref
from typing import Any

import pytest
import torch

from bench.core.registry import DEFENDERS, names
from bench.engine import gangs, plugins, work_training
from tests.engine.conftest import Tiny

GRID = {"defenders": ["vanilla", "lora", "musclelora"], "attacks": ["badnets", "addsent"], "seeds": [0, 1]}
# One dev row of 100 may lie on the other side of a tie once floats are summed in another order.
ALIKE = 0.011


def records(tiny: Tiny) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in (tiny.out / "records").glob("*.json")}


def test_the_plan_forms_gangs_of_one_defense_each(tiny: Tiny) -> None:
    plan = tiny.plan(**GRID)
    stages = {stage.key: stage for stage in plan.unique()}
    groups = gangs.tasks(plan.unique(), 3)
    assert sorted(key for group in groups for key in group) == sorted(stages)
    several = [
        [stages[key] for key in group] for group in groups if len(group) > 1 and stages[group[0]].kind == "train"
    ]
    assert sorted(len(group) for group in several) == [3, 3]
    for group in several:
        assert {stage.kind for stage in group} == {"train"}
        assert len({stage.content["defense"].name for stage in group}) == 1
    assert groups == gangs.tasks(plan.unique(), 3)
    assert all(len(group) == 1 for group in gangs.tasks(plan.unique(), 1))


def test_other_models_data_and_precisions_are_other_gangs(tiny: Tiny) -> None:
    plan = tiny.plan(defenders=["lora"], precisions=["fp32", "bf16"], seeds=[0, 1])
    # Two of trainings, and two of what they train to be evaluated.
    assert sorted(len(group) for group in gangs.tasks(plan.unique(), 16))[-5:] == [1, 2, 2, 2, 2]


def test_records_of_a_gang_are_those_of_training_alone(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> None:
    alone = Tiny(tmp_path_factory.mktemp("alone"), tiny.model, [])
    plan = tiny.plan(**GRID)
    assert tiny.run(plan, gang=4).failed == {} == alone.run(plan).failed
    ganged, expected = records(tiny), records(alone)
    assert ganged.keys() == expected.keys() and len(ganged) == 12
    for key, record in ganged.items():
        for name, entry in record["metrics"].items():
            twin = expected[key]["metrics"][name]
            assert entry is twin is None or entry["value"] == pytest.approx(twin["value"], abs=ALIKE), (key, name)
        assert record["poison"] == expected[key]["poison"] and record["knowledge"] == expected[key]["knowledge"]
    again = tiny.run(plan, gang=4)
    assert (again.executed, again.done) == (0, 12)


def test_members_that_are_done_are_left_out_and_numbers_stay(tiny: Tiny) -> None:
    tiny.run(tiny.plan(defenders=["lora"], seeds=[1]), gang=4)
    before = records(tiny)
    tiny.events.clear()
    report = tiny.run(tiny.plan(defenders=["lora"], seeds=[0, 1, 2]), gang=4)
    assert report.done == 3 and tiny.events.count("train") == 2
    assert {key: record for key, record in records(tiny).items() if key in before} == before


def test_members_for_whom_there_is_no_room_train_after_the_others(
    tiny: Tiny, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two victims fit, a third does not: two train on one backbone, then the third alone, with a gang's numbers."""
    plan = tiny.plan(defenders=["lora"], seeds=[0, 1, 2])
    roomy = Tiny(tmp_path_factory.mktemp("roomy"), tiny.model, [])
    assert roomy.run(plan, gang=3).failed == {}
    load, living, refused = work_training.fresh, [], []

    def short(job: Any, content: Any, seed: int) -> Any:
        alive = [victim for victim in (kept() for kept in living) if victim is not None]
        if len(alive) == 2:
            refused.append(len({victim.word_embedding.data_ptr() for victim in alive}))
            raise torch.OutOfMemoryError("out of memory")
        victim = load(job, content, seed)
        living.append(weakref.ref(victim))
        return victim

    monkeypatch.setattr(work_training, "fresh", short)
    assert tiny.run(plan, gang=3).failed == {}
    assert refused == [1]
    assert sorted(_gangs(tiny)) == [1, 2, 2] and _gangs(roomy) == [3, 3, 3]
    expected = records(roomy)
    for key, record in records(tiny).items():
        for name, entry in record["metrics"].items():
            twin = expected[key]["metrics"][name]
            assert entry is twin is None or entry["value"] == pytest.approx(twin["value"], abs=ALIKE), (key, name)


def _gangs(tiny: Tiny) -> list[int]:
    """Return, for every training in the store, how many trained together."""
    metas = [json.loads(path.read_text()) for path in (tiny.out / "store").glob("??/*/meta.json")]
    return [meta["log"]["gang"] for meta in metas if "log" in meta]


def test_one_member_that_becomes_no_number_fails_alone(tiny: Tiny) -> None:
    wild = {"name": tiny.model, "learning_rate_pet": 1e38}
    plan = tiny.plan(defenders=["lora"], models=[tiny.model, wild], seeds=[0, 1], set={"model.max_steps": 4})
    assert 4 in map(len, gangs.tasks(plan.unique(), 4))
    report = tiny.run(plan, gang=4)
    assert report.done == 2 and len(report.failed) == 2
    assert "loss became" in next(iter(report.failed.values()))


@pytest.mark.parametrize("name", names(DEFENDERS))
def test_who_says_that_it_is_parameter_efficient_trains_no_backbone(name: str, tiny: Tiny) -> None:
    from bench.core.knowledge import Knowledge
    from bench.victim.joint.support import shareable
    from bench.victim.loading import load_victim
    from bench.victim.spec import model_spec

    defense = plugins.construct(DEFENDERS, name, {})
    if not type(defense).parameter_efficient:
        return
    assert "train" in defense.stages()
    spec = model_spec(tiny.model)
    victims = [load_victim(spec, 2, seed=seed) for seed in (0, 1)]
    for seed, victim in enumerate(victims):
        defense.for_model(spec, "released").bound(Knowledge(2, seed=seed, model=spec)).wrap(victim)
    assert shareable(victims) == ""
