"""Which stages go to one worker together: fixed by the plan, never by who is idle."""

from __future__ import annotations

from collections.abc import Iterable

from bench.core.seeding import digest
from bench.engine import plugins
from bench.engine.stages import Stage
from defenders.base import asks_questions


def tasks(stages: Iterable[Stage], size: int = 1) -> list[list[str]]:
    """Return the keys of the stages in groups of at most `size`, each group the work of one worker at one time.

    Trainings of one parameter-efficient defense on one model, one data set and in one precision form a gang, across
    attacks, ratios, label rules and seeds; so do the evaluations of what they train, and its detections by one
    defense that asks questions (`Defender.questions`). Every stage stands in one group, and none in the group of a
    stage that it is made from. A member's numbers do not depend on its group: members that are already in the store
    are left out of it, and a group that cannot start because its members wait for each other's children is run one
    by one.
    """
    groups: list[list[str]] = []
    open_groups: dict[str, list[str]] = {}
    for stage in stages:
        kind = _gang(stage) if size > 1 else None
        if kind is None:
            groups.append([stage.key])
            continue
        group = open_groups.get(kind)
        if group is None or len(group) == size:
            group = open_groups[kind] = []
            groups.append(group)
        group.append(stage.key)
    return groups


def _gang(stage: Stage) -> str | None:
    """Return what the members of a gang have in common, None for a stage that is built alone."""
    training = _training(stage)
    if training is None or "defense" not in training.content:
        return None
    defense = training.content["defense"]
    if not type(plugins.defender(defense)).parameter_efficient:
        return None
    detector = None
    if stage.kind == "detect":
        detector = stage.content["defense"]
        if not asks_questions(type(plugins.defender(detector))):
            return None
    data = training.parents["data"]
    while "load" not in data.parents:
        data = data.parents["data"]
    model, precision = training.content["model"], training.content["precision"]
    read_by = [stage.kind, detector and detector.name]
    return digest(read_by, data.parents["load"].key, defense.name, model.name, precision)


def _training(stage: Stage) -> Stage | None:
    """Return the training that a stage is, or whose victim it reads; None for any other stage."""
    if stage.kind not in ("train", "evaluate", "detect"):
        return None
    while stage.kind != "train":  # a repair stands between
        stage = stage.parents["victim"]
    return stage
