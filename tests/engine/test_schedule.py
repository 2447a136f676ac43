"""The order of the work: tasks, their members, and what a failure takes with it."""

from __future__ import annotations

import json

import pytest

from bench.engine import gangs
from bench.engine.executors import Task
from bench.engine.executors.inline import InlineExecutor
from bench.engine.schedule import Schedule
from bench.engine.stages import Stage
from bench.engine.work import Machine
from tests.engine.conftest import Tiny


def stage(name: str, *parents: Stage) -> Stage:
    return Stage("train", {"name": name}, {str(place): parent for place, parent in enumerate(parents)})


def scheduled(groups: list[list[Stage]]) -> Schedule:
    stages = {member.key: member for group in groups for member in group}
    return Schedule(stages, [[member.key for member in group] for group in groups])


def test_a_task_starts_when_the_parents_of_all_its_members_are_done() -> None:
    a, b = stage("a"), stage("b")
    left, right = stage("left", a), stage("right", b)
    schedule = scheduled([[a], [b], [left, right]])
    assert [schedule.take(), schedule.take(), schedule.take()] == [[a], [b], None]
    schedule.done(a.key)
    assert schedule.take() is None
    schedule.done(b.key)
    assert schedule.take() == [left, right] and schedule.take() is None


def test_a_member_that_can_no_longer_be_built_leaves_its_group_and_the_rest_goes_on() -> None:
    a, b = stage("a"), stage("b")
    left, right = stage("left", a), stage("right", b)
    below = stage("below", right)
    schedule = scheduled([[a], [b], [left, right], [below]])
    schedule.take(), schedule.take()
    assert set(schedule.fail(b.key, {"message": "gone"})) == {b.key, right.key, below.key}
    assert schedule.take() is None
    schedule.done(a.key)
    assert schedule.take() == [left]


def test_groups_that_wait_for_each_other_are_run_one_by_one() -> None:
    a, b = stage("a"), stage("b")
    after_a, after_b = stage("after a", a), stage("after b", b)
    schedule = scheduled([[a, after_b], [b, after_a]])
    assert schedule.take() is None
    assert schedule.break_up() and not schedule.break_up()
    assert [schedule.take(), schedule.take(), schedule.take()] == [[a], [b], None]


def test_a_group_that_waits_for_what_another_run_builds_stays_whole() -> None:
    a, b, c = stage("a"), stage("b"), stage("c")
    gang = [stage("one", a), stage("two", a)]
    below = [stage("below one", gang[0]), stage("below two", gang[1])]  # waits for the gang, so for a as well
    crossed = [[b, stage("after c", c)], [c, stage("after b", b)]]  # wait for each other, whatever becomes of a
    schedule = scheduled([[a], gang, below, *crossed])
    assert schedule.take() == [a]
    schedule.later(a.key, 0.0)
    assert schedule.break_up() and not schedule.break_up()
    assert [schedule.take(), schedule.take(), schedule.take(), schedule.take()] == [[b], [c], [a], None]
    schedule.done(a.key)
    assert schedule.take() == gang
    for member in gang:
        schedule.done(member.key)
    assert schedule.take() == below


def test_a_gang_of_trainings_goes_to_a_worker_as_one_task_and_changes_no_record(
    tiny: Tiny, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = {"defenders": ["vanilla", "tests.engine.acting:Crashes"], "seeds": [0, 1]}
    tiny.run(tiny.plan(**axes))
    alone = _metrics(tiny)
    tiny.out = tmp_path_factory.mktemp("gang")
    monkeypatch.setattr(gangs, "tasks", _trainings_together)
    runner, todo = tiny.runner(tiny.plan(**axes))
    executor = _Counting(tiny.out / "store", Machine(None))
    runner.run(executor, todo)
    assert max(executor.sizes) == 4 and _metrics(tiny) == alone


def _trainings_together(stages: list[Stage], size: int) -> list[list[str]]:
    trainings = [stage.key for stage in stages if stage.kind == "train"]
    return [*([stage.key] for stage in stages if stage.kind != "train"), trainings]


def _metrics(tiny: Tiny) -> dict[str, tuple]:
    records = [json.loads(path.read_text()) for path in (tiny.out / "records").glob("*.json")]
    return {
        record["key"]: (record["status"], record["metrics"], (record["error"] or {}).get("type")) for record in records
    }


class _Counting(InlineExecutor):
    """Notes the sizes of the tasks that it is given."""

    def submit(self, task: Task) -> None:
        self.sizes = [*getattr(self, "sizes", []), len(task)]
        super().submit(task)
