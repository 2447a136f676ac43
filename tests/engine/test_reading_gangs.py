"""Evaluations and detections in gangs: who is read together, records equal to those of reading alone, faults alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bench.engine import gangs
from bench.engine.artifacts import read_arrays
from bench.engine.executors import Task
from bench.engine.executors.attempt import ATTEMPTS
from bench.engine.executors.inline import InlineExecutor
from bench.engine.executors.local import LocalExecutor
from bench.engine.locks import owner_of
from bench.engine.plan import Plan
from bench.engine.record_files import comparable
from bench.engine.stages import Stage
from bench.engine.store import MANIFEST, WEIGHTS_FILE
from bench.engine.work import Machine
from bench.victim.joint import answers
from bench.victim.joint.passes import JointModel
from tests.engine.conftest import Tiny
from tests.tiny import tiny_model

READ = ("evaluate", "detect")
GRID = {
    "defenders": ["vanilla", "lora", "lora>strip(repeat=2)", "musclelora"],
    "attacks": ["badnets", "addsent"],
    "seeds": [0, 1],
}
LORA = {**GRID, "defenders": ["lora"]}


def groups(tiny: Tiny, size: int, **axes: Any) -> list[list[Stage]]:
    """Return the stages of each group of evaluations or detections, gangs only."""
    plan = tiny.plan(**axes)
    stages = {stage.key: stage for stage in plan.unique()}
    found = [[stages[key] for key in group] for group in gangs.tasks(plan.unique(), size) if len(group) > 1]
    assert all(len({stage.kind for stage in group}) == 1 for group in found)
    return [group for group in found if group[0].kind in READ]


def trained_by(stage: Stage) -> str:
    return stage.parents["victim"].content["defense"].name


def test_the_plan_forms_gangs_of_evaluations_and_of_detections(tiny: Tiny) -> None:
    found = groups(tiny, 3, **GRID)
    told = sorted((group[0].kind, len(group)) for group in found)
    # Four trainings each of LoRA and MuScleLoRA; the detector reads the victims that LoRA's cells evaluate.
    assert told == [("detect", 3), ("evaluate", 3), ("evaluate", 3)]
    assert all(len({trained_by(stage) for stage in group}) == 1 for group in found)
    assert groups(tiny, 1, **GRID) == []
    assert groups(tiny, 16, defenders=["vanilla", "strip", "rap"], seeds=[0, 1]) == []  # a backbone for each


@pytest.mark.parametrize(
    ("defender", "gang"),
    [("lora>strip", True), ("lora>rap", True), ("lora>tests.engine.acting:Flagger", False)]
    + [("lora>tests.engine.acting:Louder", False), ("lora>tests.engine.acting:Asking", True)],
)
def test_only_a_detector_that_asks_shares_its_passes(tiny: Tiny, defender: str, gang: bool) -> None:
    found = groups(tiny, 16, defenders=[defender], seeds=[0, 1])
    assert sorted(group[0].kind for group in found) == (["detect", "evaluate"] if gang else ["evaluate"])


def test_a_repaired_victim_is_read_with_the_others(tiny: Tiny) -> None:
    (group,) = groups(tiny, 16, defenders=["lora", "lora>tests.engine.acting:Repairer"], seeds=[0, 1])
    assert sorted(stage.parents["victim"].kind for stage in group) == ["repair", "repair", "train", "train"]


def keys(plan: Plan, kind: str) -> list[str]:
    return [stage.key for stage in plan.unique() if stage.kind == kind]


def records(tiny: Tiny) -> dict[str, Any]:
    found = [json.loads(path.read_text()) for path in (tiny.out / "records").glob("*.json")]
    return {record["key"]: comparable(record) for record in found}


def stored(tiny: Tiny, *kinds: str) -> dict[str, Path]:
    """Return the folders of the finished stages of these kinds."""
    paths = {path.parent.name: path for path in (tiny.out / "store").glob("??/*/manifest.json")}
    return {key: path.parent for key, path in paths.items() if json.loads(path.read_text())["kind"] in kinds}


def arrays(tiny: Tiny) -> dict[tuple[str, str], np.ndarray]:
    """Return every array that was read off a victim."""
    return {
        (key, name): values
        for key, folder in stored(tiny, *READ).items()
        for name, values in read_arrays(next(folder.glob("*.npz"))).items()
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Return a run of the grid whose victims were read one by one, their weights kept."""
    tiny = Tiny(tmp_path_factory.mktemp("done") / "out", str(tiny_model(tmp_path_factory, "bert")), [])
    assert tiny.run(tiny.plan(**GRID), keep_weights=True).failed == {}
    return tiny


def unread(done: Tiny, folder: Path) -> Tiny:
    """Return a copy of a run without what was read off victims and without records."""
    tiny = Tiny(folder / "unread", done.model, [])
    shutil.copytree(done.out, tiny.out)
    shutil.rmtree(tiny.out / "records")
    shutil.rmtree(tiny.out / "store" / ".journal")
    for path in stored(tiny, *READ).values():
        shutil.rmtree(path)
    return tiny


def same_records(tiny: Tiny, done: Tiny, count: int) -> bool:
    """Tell whether so many records are there, each that of the other run."""
    found, expected = records(tiny), records(done)
    return len(found) == count and all(record == expected[key] for key, record in found.items())


def same_bits(tiny: Tiny, done: Tiny) -> bool:
    """Tell whether all that was read is what was read in the other run."""
    expected = arrays(done)
    return all((values == expected[name]).all() for name, values in arrays(tiny).items())


class Counting(InlineExecutor):
    """Remembers the kind and size of each task."""

    tasks: list[tuple[str, int]]

    def submit(self, task: Task) -> None:
        """Build the stages now."""
        self.tasks = [*getattr(self, "tasks", []), (task[0]["kind"], len(task))]
        super().submit(task)


def read(tiny: Tiny, plan: Plan, gang: int) -> list[tuple[str, int]]:
    """Read in gangs what `unread` left to read; return the tasks."""
    runner, todo = tiny.runner(plan, gang=gang, keep_weights=True)
    executor = Counting(tiny.out / "store", Machine(None))
    assert runner.run(executor, todo).failed == {}
    return executor.tasks


def test_gangs_on_a_cpu_read_every_bit_that_is_read_alone(done: Tiny, tmp_path: Path) -> None:
    tiny = unread(done, tmp_path)
    tasks = read(tiny, tiny.plan(**GRID), 4)
    assert Counter(tasks) == {("evaluate", 1): 4, ("evaluate", 4): 2, ("detect", 4): 1}
    assert same_records(tiny, done, 16) and same_bits(tiny, done)
    assert arrays(tiny).keys() == arrays(done).keys()


def test_in_one_pass_they_are_read_up_to_the_order_of_sums(
    done: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, whole, passes = unread(done, tmp_path), JointModel.probabilities, []

    def counted(self: Any, texts: Any, *arguments: Any) -> Any:
        passes.append(len(texts))
        return whole(self, texts, *arguments)

    monkeypatch.setattr(JointModel, "probabilities", counted)
    monkeypatch.setattr(answers, "default_width", lambda device, members: members)  # as on a GPU
    read(tiny, tiny.plan(**GRID), 4)
    assert passes == [4, 4, 4]
    expected, found = arrays(done), arrays(tiny)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-4)
        else:  # a flag may turn where a score lies on the threshold
            assert (found[name] == values).mean() > 0.99
    before, now = records(done), records(tiny)
    assert now.keys() == before.keys()
    assert all(now[key]["knowledge"] == before[key]["knowledge"] for key in before)


@pytest.mark.parametrize("joint", [True, False])
def test_a_victim_without_numbers_fails_alone(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, joint: bool) -> None:
    if joint:
        monkeypatch.setattr(answers, "default_width", lambda device, members: members)
    ruined = [f"tests.engine.acting:Ruined(ruined={value})" for value in ("false", "true")]
    axes = {"defenders": ruined, "seeds": [0, 1]}
    plan = tiny.plan(**axes, set={"model.max_steps": 1})
    assert [len(group) for group in groups(tiny, 4, **axes)] == [4]
    report = tiny.run(plan, gang=4)
    assert report.done == 2 and len(report.failed) == 2
    assert all("predictions are not finite" in reason for reason in report.failed.values())
    spoilt = {record["status"]: record["cell"]["defense"]["options"]["ruined"] for record in records(tiny).values()}
    assert spoilt == {"ok": False, "failed": True}


def test_a_victim_that_is_lost_is_trained_again_and_the_others_are_read(done: Tiny, tmp_path: Path) -> None:
    tiny = unread(done, tmp_path)
    plan = tiny.plan(**LORA)
    path = stored(tiny, "train")[keys(plan, "train")[1]] / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    tasks = read(tiny, plan, 4)
    assert tasks == [("evaluate", 4), ("train", 1), ("evaluate", 1)]
    assert tiny.events.count("evaluate") == 4 and tiny.events.count("train") == 1
    assert same_records(tiny, done, 4) and same_bits(tiny, done)


def test_a_victim_that_cannot_be_restored_fails_alone(done: Tiny, tmp_path: Path) -> None:
    tiny = unread(done, tmp_path)
    plan = tiny.plan(**LORA)
    store = tiny.runner(plan)[0].store
    key = keys(plan, "train")[1]
    folder = stored(tiny, "train")[key]
    manifest = store.manifest(key)
    with store.draft(key) as aside:
        shutil.copytree(folder, aside, dirs_exist_ok=True)
        (aside / MANIFEST).unlink()
        weights = load_file(aside / WEIGHTS_FILE)
        weights.pop(next(name for name in weights if ".lora_A." in name))
        save_file(weights, aside / WEIGHTS_FILE)
        shutil.rmtree(folder)
        store.finish(key, aside, manifest)
    report = tiny.run(plan, gang=4)
    assert report.done == 3 and len(report.failed) == 1
    assert "do not fit this victim" in next(iter(report.failed.values()))
    good = {key: record for key, record in records(tiny).items() if record["status"] == "ok"}
    assert len(good) == 3 and all(record == records(done)[key] for key, record in good.items())


class Reaper:
    """Kills, so many times, a worker that holds the claims on several evaluations at once."""

    def __init__(self, out: Path, keys: list[str], times: int) -> None:
        self.locks, self.keys, self.times = out / "store" / ".locks", keys, times
        self.killed: list[int] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Reaper:
        self.thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.over.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.over.is_set() and len(self.killed) < self.times:
            owners = [owner_of(self.locks / key) for key in self.keys]
            pids = Counter(owner["pid"] for owner in owners if owner)
            for pid, held in pids.items():
                if held == len(self.keys) and pid not in self.killed:
                    os.kill(pid, signal.SIGKILL)
                    self.killed.append(pid)
            time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, ATTEMPTS])
def test_a_worker_killed_in_the_middle_of_a_gang_costs_nothing(done: Tiny, tmp_path: Path, times: int) -> None:
    """Its gang goes to another worker; after so many deaths each member goes alone."""
    tiny = unread(done, tmp_path)
    plan, sizes = tiny.plan(**LORA), []
    gang = keys(plan, "evaluate")

    class Counted(LocalExecutor):
        def submit(self, task: Task) -> None:
            sizes.append(len(task))
            super().submit(task)

    runner, todo = tiny.runner(plan, gang=4, keep_weights=True)
    executor = Counted(tiny.out / "store", Machine(None), 2)
    try:
        with Reaper(tiny.out, gang, times) as reaper:
            report = runner.run(executor, todo)
    finally:
        executor.close()
    assert len(reaper.killed) == times and report.failed == {}
    assert sizes[:times] == [4] * times  # then once more, or what is left of it one by one
    assert sizes[times:] == [4] if times < ATTEMPTS else set(sizes[times:]) == {1}
    assert same_records(tiny, done, 4) and same_bits(tiny, done)
    journal = "".join(path.read_text() for path in (tiny.out / "store" / ".journal").iterdir())
    lines = [json.loads(line) for line in journal.splitlines()]
    built = Counter(line["key"] for line in lines if line["what"] == "built")
    assert set(built) <= set(gang) and max(built.values()) == 1
    assert not [line for line in lines if line["what"] == "discarded"]
