"""The stages of a cell and their keys: cells that agree on what made a stage share it.

    load -> poison -> [cleanse] -> train -> [repair] -> evaluate
         -> trigger ------------------------> [filter] -> evaluate;  detect beside evaluate

A filter that draws nothing and looks at no victim takes the clean texts in a stage of their own: one for all attacks.
A stage that the defense leaves alone is not in the chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from bench.core.registry import RESERVED
from bench.core.seeding import digest
from bench.core.spec import Cell, Part
from bench.engine.clean_rows import method_rows

# Raise a number when what a stage writes changes: everything made from it is then built again.
VERSION = {
    "load": 1,
    "poison": 1,
    "trigger": 1,
    "cleanse": 2,
    "train": 2,
    "repair": 2,
    "filter": 2,
    "detect": 2,
    "evaluate": 1,
}
WEIGHTS = frozenset({"train", "repair"})  # kinds whose folder holds weights
# What looks on at a training and what it looks at: in its key, but in none of its random numbers or its children's,
# so that a watched training is the very one that nobody watched.
ONLOOKERS = frozenset({"analysis", "watched"})

ALIKE = "released"  # the recipe in the key of a training in which the recipes do not differ


@dataclass(frozen=True, eq=False)
class Stage:
    """One unit of work.

    `key` names its folder and holds everything that made it; `identity` is the same without versions
    and pins, and is what its random numbers derive from.
    """

    kind: str
    content: Mapping[str, Any]
    parents: Mapping[str, Stage]

    # Both digests are made when asked for: counting the stages of a grid needs neither.
    @cached_property
    def key(self) -> str:
        """Return the digest of kind, version, content with versions and pins, and the keys of the parents."""
        parents = {role: parent.key for role, parent in self.parents.items()}
        return digest(self.kind, VERSION[self.kind], _by_digest(self.content, "pinned"), parents)[:40]

    @cached_property
    def identity(self) -> str:
        """Return the digest of kind, content and the identities of the parents, onlookers and shards left out."""
        parents = {role: parent.identity for role, parent in self.parents.items() if role not in ONLOOKERS}
        content = {name: value for name, value in self.content.items() if name not in ONLOOKERS}
        if "model" in content:
            content["model"] = _on_one_device(content["model"])
        return digest(self.kind, _by_digest(content, "identity"), parents)

    @cached_property
    def trainings(self) -> frozenset[int]:
        """Return the object ids of the trainings that this stage is made from, its own included."""
        above = {parent.trainings for parent in self.parents.values() if parent.trainings}
        if self.kind != "train" and len(above) == 1:
            return above.pop()  # most stages have one training behind them, and share the set that says so
        own = {id(self)} if self.kind == "train" else set()
        return frozenset(own.union(*above))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and self.key == other.key

    def payload(self) -> dict[str, Any]:
        """Return what a worker needs, as JSON values."""
        content = {name: value.payload() if isinstance(value, Part) else value for name, value in self.content.items()}
        return {
            "kind": self.kind,
            "key": self.key,
            "identity": self.identity,
            "content": content,
            "parents": {role: parent.key for role, parent in self.parents.items()},
            "parent_payloads": {role: parent.payload() for role, parent in self.parents.items()},
        }


class Chains:
    """Builds the stages of cells, one object per stage however many cells need it."""

    def __init__(self) -> None:
        self._stages: dict[tuple, Stage] = {}

    def stage(self, kind: str, content: Mapping[str, Any], parents: Mapping[str, Stage]) -> Stage:
        """Return the stage of this kind, content and parents."""
        # A parent is one object here, so that its id says as much as its key.
        lookup = (kind, tuple(content.items()), tuple((role, id(parent)) for role, parent in parents.items()))
        found = self._stages.get(lookup)
        if found is None:
            found = self._stages[lookup] = Stage(kind, content, parents)
        return found

    def of(self, cell: Cell, links: Sequence[tuple[Part, Any]]) -> CellStages:
        """Return the stages of a cell whose defense has these links: parts and constructed defenses, in order."""
        load = self.stage("load", {"dataset": cell.dataset, "limit": cell.limit}, {})
        data = poison = self._poison(cell, load)
        asked = {"attack": cell.attack, "target_label": cell.target_label, "seed": cell.seed}
        trigger = self.stage("trigger", asked, {"load": load})
        taken = 0  # rows that a link learnt from: they set no threshold of a later one
        for part, defense in _that(links, "cleanse"):
            shared = {"victim": self._train(cell, load, poison, None)} if defense.wants_victim else {}
            setting = {**self._setting(cell, part), **_shown(cell), **_spared(defense, taken)}
            data = self.stage("cleanse", setting, {"load": load, "data": data, **shared})
            taken = max(taken, _own_rows(defense))
        trained, spared = None, {}
        for part, defense in _that(links, "train"):
            trained, spared = part, _spared(defense, taken)
            taken = max(taken, _own_rows(defense))
        victim = self._train(cell, load, data, trained, trigger, spared)
        for part, defense in _that(links, "repair"):
            parents = {"load": load, "data": data, "victim": victim}
            victim = self.stage("repair", {**self._setting(cell, part), **_spared(defense, taken)}, parents)
            taken = max(taken, _own_rows(defense))
        tests: dict[str, Stage] = {"load": load, "trigger": trigger}
        for part, defense in _that(links, "filter"):
            if defense.filter_uses_model:
                setting = {**self._setting(cell, part), **_spared(defense, taken)}
                tests = self._filtered(tests, setting, {"victim": victim})
            else:
                setting = {"defense": part, "seed": cell.seed, **_spared(defense, taken)}
                seeded = defense.calibrated or _own_rows(defense) > 0
                tests = (
                    self._filtered(tests, setting) if defense.filter_is_drawn else self._apart(tests, setting, seeded)
                )
            taken = max(taken, _own_rows(defense))
        evaluate = self.stage("evaluate", {"precision": cell.precision}, {**tests, "victim": victim})
        detect = tuple(
            self.stage("detect", {**self._setting(cell, part), **_spared(defense, taken)}, {**tests, "victim": victim})
            for part, defense in _that(links, "detect")
        )
        return CellStages(load, poison, trigger, victim, evaluate, detect)

    def _filtered(
        self, tests: Mapping[str, Stage], setting: Mapping[str, Any], lent: Mapping[str, Stage] | None = None
    ) -> dict[str, Stage]:
        """Return what is tested on once one stage has rewritten the clean and the poisoned texts."""
        made = self.stage("filter", setting, {**tests, **(lent or {})})
        return {"load": tests["load"], "trigger": tests["trigger"], "filter": made}

    def _apart(self, tests: Mapping[str, Stage], setting: Mapping[str, Any], seeded: bool) -> dict[str, Stage]:
        """Return the same with the clean texts in a stage of their own, which knows no attack and which all share."""
        # The seed decides nothing but which clean rows the defense has, if any.
        shared = {**setting, "seed": setting["seed"] if seeded else 0, "texts": "clean"}
        before = {role: tests[role] for role in ("clean", "filter") if role in tests}
        above = dict(list(before.items())[:1])  # the clean texts of the last filter, wherever they are
        clean = self.stage("filter", shared, {"load": tests["load"], **above})
        parents = {role: stage for role, stage in tests.items() if role != "clean"}
        made = self.stage("filter", {**setting, "texts": "poisoned"}, parents)
        return {"load": tests["load"], "trigger": tests["trigger"], "filter": made, "clean": clean}

    def _poison(self, cell: Cell, load: Stage) -> Stage:
        if cell.poison_ratio == 0.0:
            # Nothing is poisoned, so every attack shares the clean control.
            return self.stage("poison", {}, {"load": load})
        content = {
            "attack": cell.attack,
            "poison_ratio": cell.poison_ratio,
            "label_rule": cell.label_rule,
            "target_label": cell.target_label,
            "seed": cell.seed,
        }
        return self.stage("poison", content, {"load": load})

    def _train(
        self,
        cell: Cell,
        load: Stage,
        data: Stage,
        defense: Part | None,
        watched: Stage | None = None,
        spared: Mapping[str, Any] | None = None,
    ) -> Stage:
        content, parents = {**self._setting(cell, defense), **(spared or {})}, {"load": load, "data": data}
        if defense is None and not _recipe_trains(cell.model):
            content["recipe"] = ALIKE
        if cell.analysis is not None and watched is not None:
            content, parents = {**content, "analysis": cell.analysis}, {**parents, "watched": watched}
        return self.stage("train", content, parents)

    def _setting(self, cell: Cell, defense: Part | None) -> dict[str, Any]:
        content: dict[str, Any] = {
            "model": cell.model,
            "recipe": cell.recipe,
            "precision": cell.precision,
            "seed": cell.seed,
        }
        if defense is not None:
            content["defense"] = defense
        return content


def _shown(cell: Cell) -> dict[str, str]:
    """Return what a cleanser's content says where its rows are not shown in the order in which they were written."""
    moved = cell.attack.options.get("poison_file") == "published" or cell.attack.name.startswith(RESERVED)
    return {"shown": "in place"} if moved and cell.poison_ratio else {}


def _own_rows(defense: Any) -> int:
    """Return how many clean rows the method of a defense learns from."""
    return method_rows(defense.samples(), defense.calibrated, defense.clean_budget)


def _that(links: Sequence[tuple[Part, Any]], kind: str) -> list[tuple[Part, Any]]:
    """Return the links that act at a kind of stage."""
    return [(part, defense) for part, defense in links if kind in _acting(type(defense))]


def _spared(defense: Any, taken: int) -> dict[str, Any]:
    """Return what a stage's content says of rows that earlier links took; nothing where it makes no difference."""
    if not defense.calibrated or taken <= _own_rows(defense):
        return {}
    # Stages that were built before hold thresholds of the few rows, or none, that a budget had left in front.
    return {"taken": taken} if defense.clean_budget is None else {"taken": taken, "budget": "behind"}


def _recipe_trains(model: Part) -> bool:
    """Tell whether a recipe changes a training that no defense takes part in: by the head beside a stand-in's LoRA."""
    return model.options.get("stand_in_rank") is not None


@cache
def _acting(cls: type) -> frozenset[str]:
    """Return the stages at which a class of defenses acts; asked once, not for every cell."""
    return cls.stages()


@dataclass(frozen=True)
class CellStages:
    """The stages of one cell that its record is made from."""

    load: Stage
    poison: Stage
    trigger: Stage
    victim: Stage
    evaluate: Stage
    detect: tuple[Stage, ...]

    def last(self) -> tuple[Stage, ...]:
        """Return the stages that must be done before the record is written."""
        return (self.evaluate, *self.detect)


def _on_one_device(model: Part) -> Part:
    """Return a model without the number of devices that it trains on: the same training draws the same numbers."""
    if "shards" not in model.options:
        return model
    return Part(model.name, {name: value for name, value in model.options.items() if name != "shards"}, model.source)


def _by_digest(content: Mapping[str, Any], attribute: str) -> dict[str, Any]:
    return {name: getattr(value, attribute) if isinstance(value, Part) else value for name, value in content.items()}


def with_ancestors(stages: Iterable[Stage]) -> list[Stage]:
    """Return the stages of one plan and everything they are made from, parents first, each once."""
    order: dict[int, Stage] = {}

    def visit(stage: Stage) -> None:
        if id(stage) in order:
            return
        for parent in stage.parents.values():
            visit(parent)
        order[id(stage)] = stage

    for stage in stages:
        visit(stage)
    return list(order.values())
