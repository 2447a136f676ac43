"""Stages of a few milliseconds that write what real ones write, for tests of the engine itself.

Real processes and the real store; what a stage writes depends on its own seed and on every byte of its parents.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.example import Example
from bench.core.seeding import digest
from bench.engine.artifacts import write_arrays, write_examples
from bench.engine.executors import Outcome, Task
from bench.engine.executors.attempt import outcome
from bench.engine.executors.inline import InlineExecutor
from bench.engine.executors.local import LocalExecutor
from bench.engine.expand import expand
from bench.engine.grid import Grid
from bench.engine.plan import Plan, make_plan
from bench.engine.runner import Report, Runner
from bench.engine.store import WEIGHTS_FILE, file_sha256
from bench.engine.work import Job, Machine, execute

ROWS = 12
SECONDS = 0.006  # what a stage takes at most, on top of what the engine does
ACTING = ("Flagger", "Cleaner", "Repairer", "Cleanser")
TEST_ROWS = [Example(f"text {row}", row % 2, 0) for row in range(ROWS)]


def _rng(job: Job) -> random.Random:
    read = {role: _bytes(folder) for role, folder in sorted(job.parents.items())}
    return random.Random(digest(job.identity, read))


def _bytes(folder: Path) -> list[str]:
    return [file_sha256(path) for path in sorted(folder.iterdir()) if path.suffix in (".jsonl", ".npz", ".safetensors")]


def _load(job: Job, rng: random.Random) -> dict[str, Any]:
    for split in ("train", "dev", "test"):
        write_examples(job.aside / f"{split}.jsonl", TEST_ROWS, range(ROWS))
    return {"dataset": "cheap", "classes": 2, "train": ROWS, "dev": ROWS, "test": ROWS, "files": {}}


def _poison(job: Job, rng: random.Random) -> dict[str, Any]:
    rows = [Example(f"{text} {rng.random()}", label, 0) for text, label, _ in TEST_ROWS]
    write_examples(job.aside / "train.jsonl", rows, range(ROWS))
    return {"rule": "mix", "rows": 1, "positions": digest(rng.random()), "dropped": 0}


def _trigger(job: Job, rng: random.Random) -> dict[str, Any]:
    write_examples(job.aside / "test.jsonl", TEST_ROWS[::2], range(0, ROWS, 2))
    return {"rows": ROWS // 2, "placed": ROWS // 2, "dropped": 0}


def _cleanse(job: Job, rng: random.Random) -> dict[str, Any]:
    return {**_poison(job, rng), "knowledge": {}, "removed": 1, "removed_poisoned": 1}


def _train(job: Job, rng: random.Random) -> dict[str, Any]:
    (job.aside / WEIGHTS_FILE).write_bytes(rng.randbytes(2000))
    log = {"trainable_parameters": 1, "peak_memory_mb": 1.0, "samples_per_second": 1.0, "selection": [rng.random()]}
    return {"log": {**log, "steps": 1}, "knowledge": {"selection": 2}, "decided": []}


def _filter(job: Job, rng: random.Random) -> dict[str, Any]:
    for name in ("clean", "poisoned"):
        write_examples(job.aside / f"{name}.jsonl", TEST_ROWS, range(ROWS))
    return {"knowledge": {}}


def _detect(job: Job, rng: random.Random) -> dict[str, Any]:
    flags = {"clean": [rng.randrange(2) for _ in range(ROWS)], "poisoned": [rng.randrange(2) for _ in range(ROWS // 2)]}
    write_arrays(job.aside / "flags.npz", flags)
    return {"knowledge": {}}


def _evaluate(job: Job, rng: random.Random) -> dict[str, Any]:
    draw = np.random.default_rng(rng.randrange(2**32))
    arrays = {"clean": draw.random((ROWS, 2)), "poisoned": draw.random((ROWS // 2, 2))}
    labels = [example.label for example in TEST_ROWS]
    write_arrays(job.aside / "predictions.npz", {**arrays, "labels": labels, "rows": range(0, ROWS, 2)})
    return {}


KINDS = {"load": _load, "poison": _poison, "trigger": _trigger, "cleanse": _cleanse, "train": _train}
KINDS |= {"repair": _train, "filter": _filter, "detect": _detect, "evaluate": _evaluate}


def _timed(job: Job) -> dict[str, Any]:
    rng = _rng(job)
    time.sleep(SECONDS * random.random())
    meta = KINDS[job.kind](job, rng)
    time.sleep(SECONDS * random.random())
    return meta


def _at_once(job: Job) -> dict[str, Any]:
    return KINDS[job.kind](job, random.Random(job.identity))


WORKERS, NO_OPS = dict.fromkeys(KINDS, _timed), dict.fromkeys(KINDS, _at_once)


def build(task: Task, root: Path, machine: Machine) -> list[Outcome]:
    """Build a task of cheap stages."""
    return [outcome(payload, lambda it=payload: execute(it, root, machine, WORKERS)) for payload in task]


def build_at_once(task: Task, root: Path, machine: Machine) -> list[Outcome]:
    """Build a task of stages that take no time."""
    return [outcome(payload, lambda it=payload: execute(it, root, machine, NO_OPS)) for payload in task]


def cheap_plan(folder: Path, seeds: int, attacks: tuple[str, ...] = ("badnets", "addsent")) -> Plan:
    """Return a plan of 5 cells for each seed and attack; `folder` gets what passes for a model."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    defenders = ["vanilla", *(f"tests.engine.acting:{name}" for name in ACTING)]
    axes = {"datasets": ["demo"], "attacks": list(attacks), "models": [str(folder)], "defenders": defenders}
    return make_plan(expand([Grid(**axes, seeds=tuple(range(seeds)))]))


def drive(out: str, engine: str, seeds: int, order: int | None = None) -> Report:
    """Run the cheap plan into a folder: `inline`, or with so many workers; `order` shuffles its cells."""
    folder = Path(out)
    plan = cheap_plan(folder.parent / "model", seeds)
    if order is not None:
        cells = random.Random(order).sample(list(plan.cells), len(plan.cells))
        plan = Plan({key: plan.cells[key] for key in cells}, {key: plan.stages[key] for key in cells}, {})
    runner = Runner(plan, folder, {})
    executor = executor_of(engine, folder / "store")
    try:
        return runner.run(executor, runner.todo())
    finally:
        executor.close()


def executor_of(engine: str, root: Path) -> Any:
    """Return the executor over cheap stages: `inline`, `ray`, or a number of local workers."""
    if engine == "inline":
        return InlineExecutor(root, Machine(None), build)
    if engine == "ray":
        from bench.engine.executors.ray import RayExecutor

        return RayExecutor(root, Machine(None), 2, build=build)
    return LocalExecutor(root, Machine(None), int(engine), build=build, preload="tests.engine.cheap")
