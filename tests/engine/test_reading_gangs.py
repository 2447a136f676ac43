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
from bench.engine.record_files import comparable
from bench.engine.stages import Stage
from bench.engine.store import MANIFEST, WEIGHTS_FILE
from bench.engine.work import Machine
from bench.victim.joint import answers
from bench.victim.joint.passes import JointModel
from tests.engine.conftest import Tiny

READ = ("evaluate", "detect")
GRID = {
    "defenders": ["vanilla", "lora", "lora>strip(repeat=2)", "musclelora"],
    "attacks": ["badnets", "addsent"],
    "seeds": [0, 1],
}
LORA = {"defenders": ["lora"], "seeds": [0, 1, 2]}


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


def forget(tiny: Tiny) -> None:
    """Delete what was read off victims, and the records."""
    for folder in stored(tiny, *READ).values():
        shutil.rmtree(folder)
    shutil.rmtree(tiny.out / "records")


def trained(tiny: Tiny, **axes: Any) -> tuple[Any, dict[str, Any], dict[tuple[str, str], np.ndarray]]:
    """Return a plan, its records and arrays by reading alone; all but the trained victims is then gone."""
    plan = tiny.plan(**axes)
    assert tiny.run(plan, keep_weights=True).failed == {}
    alone = records(tiny), arrays(tiny)
    forget(tiny)
    tiny.events.clear()
    return plan, *alone


class Counting(InlineExecutor):
    """Remembers the kind and size of each task."""

    tasks: list[tuple[str, int]]

    def submit(self, task: Task) -> None:
        """Build the stages now."""
        self.tasks = [*getattr(self, "tasks", []), (task[0]["kind"], len(task))]
        super().submit(task)


def read(tiny: Tiny, plan: Any, gang: int) -> list[tuple[str, int]]:
    """Read in gangs what `trained` left to read; return the tasks."""
    runner, todo = tiny.runner(plan, gang=gang, keep_weights=True)
    executor = Counting(tiny.out / "store", Machine(None))
    assert runner.run(executor, todo).failed == {}
    return executor.tasks


def test_gangs_on_a_cpu_read_every_bit_that_is_read_alone(tiny: Tiny) -> None:
    plan, expected, alone = trained(tiny, **GRID)
    tasks = read(tiny, plan, 4)
    assert Counter(tasks) == {("evaluate", 1): 4, ("evaluate", 4): 2, ("detect", 4): 1}
    assert records(tiny) == expected and len(expected) == 16
    found = arrays(tiny)
    assert found.keys() == alone.keys() and all((found[name] == alone[name]).all() for name in alone)


def test_in_one_pass_they_are_read_up_to_the_order_of_sums(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, expected, alone = trained(tiny, **GRID)
    whole, passes = JointModel.probabilities, []

    def counted(self: Any, texts: Any, *arguments: Any) -> Any:
        passes.append(len(texts))
        return whole(self, texts, *arguments)

    monkeypatch.setattr(JointModel, "probabilities", counted)
    monkeypatch.setattr(answers, "default_width", lambda device, members: members)  # as on a GPU
    read(tiny, plan, 4)
    assert passes == [4, 4, 4]
    assert records(tiny).keys() == expected.keys()
    found = arrays(tiny)
    for (key, name), values in alone.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found[key, name], values, rtol=1e-4, atol=1e-4)
        else:  # flags may turn where a score lies on the threshold
            assert (found[key, name] == values).mean() > 0.99
    assert {key: record["knowledge"] for key, record in records(tiny).items()} == {
        key: record["knowledge"] for key, record in expected.items()
    }


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


def test_a_victim_that_is_lost_is_trained_again_and_the_others_are_read(tiny: Tiny) -> None:
    plan, expected, alone = trained(tiny, **LORA)
    path = sorted(stored(tiny, "train").values())[1] / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    tasks = read(tiny, plan, 4)
    assert tasks == [("evaluate", 3), ("train", 1), ("evaluate", 1)]
    assert tiny.events.count("evaluate") == 3 and tiny.events.count("train") == 1
    assert records(tiny) == expected
    assert all((values == alone[name]).all() for name, values in arrays(tiny).items())


def test_a_victim_that_cannot_be_restored_fails_alone(tiny: Tiny) -> None:
    plan, expected, _ = trained(tiny, **LORA)
    store = tiny.runner(plan)[0].store
    key, folder = sorted(stored(tiny, "train").items())[1]
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
    assert report.done == 2 and len(report.failed) == 1
    assert "do not fit this victim" in next(iter(report.failed.values()))
    assert all(record == expected[key] for key, record in records(tiny).items() if record["status"] == "ok")


class Reaper:
    """Kills, so many times, a worker that holds the claims on several evaluations at once."""

    def __init__(self, out: Path, keys: set[str], times: int) -> None:
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
def test_a_worker_killed_in_the_middle_of_a_gang_costs_nothing(tiny: Tiny, times: int) -> None:
    """Its gang goes to another worker; after so many deaths each member goes alone."""
    plan, expected, alone = trained(tiny, **LORA)
    keys = {stage.key for stage in plan.unique() if stage.kind == "evaluate"}
    runner, todo = tiny.runner(plan, gang=4, keep_weights=True)
    executor = LocalExecutor(tiny.out / "store", Machine(None), 2)
    sizes: list[int] = []
    submit = executor.submit
    executor.submit = lambda task: (sizes.append(len(task)), submit(task))
    try:
        with Reaper(tiny.out, keys, times) as reaper:
            report = runner.run(executor, todo)
    finally:
        executor.close()
    assert len(reaper.killed) == times and report.failed == {}
    assert sizes == ([3, 3] if times == 1 else [3, 3, 3, 1, 1, 1])
    assert records(tiny) == expected
    assert all((values == alone[name]).all() for name, values in arrays(tiny).items())
    lines = [json.loads(line) for path in (tiny.out / "store" / ".journal").iterdir() for line in path.open()]
    built = Counter(line["key"] for line in lines if line["what"] == "built" and line["pid"] != os.getpid())
    assert built == dict.fromkeys(keys, 1) and not [line for line in lines if line["what"] == "discarded"]
