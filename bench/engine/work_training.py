"""The stage that trains a victim, alone or in a gang."""

from __future__ import annotations

from typing import Any

from bench.core.example import blinded
from bench.engine import plugins
from bench.engine.ranks import train_by_ranks
from bench.engine.returned import hooks_of
from bench.engine.sharding import shards_of
from bench.engine.victims import bound, clean_rows, fresh, versions
from bench.engine.work import Job
from bench.victim.assembly import add_stand_in
from bench.victim.run import TrainingLog
from bench.victim.training import Task, train_gang


def training(job: Job) -> tuple[Task, dict[str, Any]]:
    """Return the training of a stage, its victim made and wrapped, and what the stage says of itself already."""
    data = job.examples("data", "train").examples
    victim = fresh(job, dict(job.content), job.seed("head"))
    hooks, counts = (), {"method": 0, "calibration": 0}
    if "defense" in job.content:
        defense, counts = bound(job)
        defense.wrap(victim)
        hooks = hooks_of(defense.hooks(defense.knowledge))
    stand_in = add_stand_in(victim, job.content["recipe"], job.seed("defense"))
    selection = clean_rows(job).selection
    task = Task(victim, blinded(data), selection, job.seed("train"), hooks, _observers(job))
    noted = {"knowledge": {**counts, "selection": len(selection)}}
    return task, noted if stand_in is None else {**noted, "stand_in_rank": stand_in}


def trained(job: Job, task: Task, noted: dict[str, Any], log: TrainingLog) -> dict[str, Any]:
    """Write the weights of a training that has ended; return what the stage says of itself."""
    task.victim.save(job.aside)
    return noted_of(task, noted, log)


def noted_of(task: Task, noted: dict[str, Any], log: TrainingLog) -> dict[str, Any]:
    """Return what a stage says of a training that has ended."""
    seen = {"analysis": task.observers[0].found()} if task.observers else {}
    return {"log": log.json(), **noted, "versions": versions(), **seen}


def _observers(job: Job) -> tuple[Any, ...]:
    """Return what looks on at this training: at most one analysis, with the clean and the poisoned test rows."""
    if "analysis" not in job.content:
        return ()
    clean, poisoned = job.examples("load", "test").examples, job.examples("watched", "test").examples
    return (plugins.analysis(job.content["analysis"]).watcher(clean, poisoned, job.meta("load")["classes"]),)


def _plainly(job: Job, task: Task) -> TrainingLog:
    """Train by the plain loop, the other side of the comparison of `bench speed`."""
    from bench.victim.plain_cell import train_cell_plainly

    published = job.machine.loop == "published"
    return train_cell_plainly(
        task.victim, task.examples, task.selection, seed=task.seed, hooks=task.hooks, whole_set=published
    )


def train_stage(job: Job) -> dict[str, Any]:
    """Train the victim on the data as they are, with the hooks of the defense if it acts here."""
    if job.machine.loop == "ours" and shards_of(job.content) > 1:
        return train_by_ranks(job)
    task, noted = training(job)
    (log,) = train_gang([task]) if job.machine.loop == "ours" else (_plainly(job, task),)
    if isinstance(log, Exception):
        raise log
    return trained(job, task, noted, log)
