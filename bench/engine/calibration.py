"""A short calibration: seconds a row and a text take on this machine, kept in the user's cache."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError
from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.core.paths import cache_folder
from bench.core.processes import settle
from bench.engine import plugins
from bench.engine.estimate import LOADING, PREDICTING, STEPPING, Rates, Sized, dataset_of, model_of, rate_name
from bench.engine.sharding import shards_of
from bench.engine.stages import Stage
from bench.engine.work_data import restored_dataset

STEPS = 3  # of which the first warms up
TEXTS = 64  # that are predicted
Tell = Callable[[str], None]


def cache_file() -> Path:
    """Return the file that calibrations are kept in: one for each machine, in the user's cache."""
    return cache_folder() / f"speed-{platform.node() or 'machine'}-{os.cpu_count()}.json"


def cached() -> Rates:
    """Return the rates that were calibrated before; none where the file is absent or damaged."""
    try:
        content = json.loads(cache_file().read_text("utf-8"))
        return {str(name): float(rate) for name, rate in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def keep(rates: Mapping[str, float]) -> None:
    """Add rates to the cache; one that cannot be written is left alone, since it only saves time."""
    from bench.engine.store import StoreError, write_json

    path = cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**cached(), **rates})
    except (OSError, StoreError):
        return


def calibrate(stages: Iterable[Stage], known: Mapping[str, float], sized: Sized, device: str, tell: Tell) -> Rates:
    """Return rates of training and predicting that the stages need and `known` lacks, and keep them.

    For each model, data set, precision and training defense: 3 steps, of which 2 are timed, and 64 texts, in a process
    of one thread. A model or a data set that is not on this machine is left out, and so are a sharded training and one
    that fails or dies, which `tell` is told.
    """
    todo: dict[str, Stage] = {}
    looked: set[str] = set()
    for stage in stages:
        if stage.kind == "train" and shards_of(stage.content) == 1:
            name = rate_name(STEPPING, stage.content, dataset_of(stage), device)
            if name not in known and name not in looked:
                looked.add(name)  # once for all stages of its kind
                if sized.of(stage) is not None and _here(stage):
                    todo[name] = stage
    found: Rates = {}
    if not todo:
        return found
    pool = _process()
    try:
        for name, stage in todo.items():
            tell(f"calibrating: {' '.join(filter(None, (*_names(stage), device)))}")
            try:
                seconds = pool.submit(measured, _payload(stage), sized.data_dir, device).result()
            except BenchError:  # the run itself will say so
                continue
            except BrokenProcessPool:
                tell("  left out: its process died, for want of memory perhaps")
                pool.shutdown()
                pool = _process()
                continue
            except Exception as error:  # of a plug-in: in a run it is a failed record
                tell(f"  left out: {' '.join(f'{type(error).__name__} {error}'.split())}")
                continue
            found[name] = seconds[STEPPING]
            for kind in (PREDICTING, LOADING):
                found[rate_name(kind, _shared(stage), dataset_of(stage), device)] = seconds[kind]
    finally:
        pool.shutdown()
    keep(found)
    return found


def _process() -> ProcessPoolExecutor:
    """Return a pool of one process, which does not inherit what this one has imported."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), settle)


def _shared(stage: Stage) -> dict[str, Any]:
    return {"model": stage.content["model"], "precision": stage.content["precision"]}


def _names(stage: Stage) -> list[str]:
    parts = [stage.content["model"], stage.content.get("defense")]
    return [*(part.name for part in parts if part is not None), dataset_of(stage), stage.content["precision"]]


def _here(stage: Stage) -> bool:
    from bench.victim.loading import available

    part = model_of(stage)
    return part is not None and available(plugins.model(part))


def _payload(stage: Stage) -> dict[str, Any]:
    load = stage
    while load.kind != "load":
        load = load.parents["load"]
    return {**stage.payload()["content"], "dataset": load.payload()["content"]["dataset"]}


def measured(content: Mapping[str, Any], data_dir: Path | None, device: str) -> dict[str, float]:
    """Return the seconds of training on a row, of predicting a text and of loading, for the content of a train stage.

    Raises:
        BenchError: data, model or defense cannot be had.
    """
    import dataclasses

    from bench.data import load_dataset
    from bench.victim.contenders import Clock
    from bench.victim.loading import load_victim
    from bench.victim.training import train

    data = load_dataset(restored_dataset(content["dataset"]), data_dir)
    spec = plugins.model(content["model"])
    rows = tuple(data.train[: STEPS * spec.batch_size])
    began = time.perf_counter()
    short = dataclasses.replace(spec, epochs=STEPS, max_steps=STEPS)
    victim = load_victim(short, len(data.classes), seed=0, device=device, precision=content["precision"])
    hooks: Any = ()
    if "defense" in content:
        defense = plugins.defender(content["defense"])
        clean = tuple(data.dev[: defense.samples()])
        known = Knowledge(len(data.classes), clean=clean, recipe=content["recipe"], model=short, device=device)
        defense = defense.bound(known)
        defense.wrap(victim)
        hooks = defense.hooks(known)
    loading = time.perf_counter() - began
    clock = Clock(device, warm_up=1)
    train(victim, _blinded(rows), (), seed=0, hooks=hooks, progress=clock)
    texts = [example.text for example in data.test[:TEXTS]]
    began = time.perf_counter()
    victim.predict(texts)
    predicting = (time.perf_counter() - began) / len(texts)
    return {STEPPING: clock.seconds / (clock.steps * spec.batch_size), PREDICTING: predicting, LOADING: loading}


def _blinded(rows: Iterable[Example]) -> list[Example]:
    return [Example(row.text, row.label, 0) for row in rows]
