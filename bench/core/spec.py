"""A cell: one dataset x attack x defense x model x ratio x rule x target x seed, and its identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any, Literal

from pydantic import InstanceOf

from bench.core.options import Count, Fraction, Index, Options
from bench.core.seeding import digest

LabelRule = Literal["clean", "dirty", "mix"]
Recipe = Literal["released", "paper"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, eq=False)
class Part:
    """A named, fully constructed choice on one axis of a grid.

    `options` are all its options, defaults included; `source` is `module:Class` for a plug-in that is
    not in the folder. `version` and `pins` (sha256 of files, that of a plug-in's module among them) enter stage keys
    but no generator. `place` says where the user's own data lie: their identity is their content, so it enters nothing.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    version: int = 1
    pins: Mapping[str, str] = field(default_factory=dict)
    place: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def identity(self) -> str:
        """Return the digest of name, source and options."""
        return digest("part", self.name, self.source, self.options)

    @cached_property
    def pinned(self) -> str:
        """Return the digest of the identity, the version and the pins."""
        return digest(self.identity, self.version, self.pins)

    @property
    def read_from(self) -> str | None:
        """Return the file, folder (without the folders around it) or `hub:ID` of a user's own data, else None."""
        source = self.place.get("source")
        return source if source is None or source.startswith("hub:") else PurePath(source).name or source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and self.pinned == other.pinned

    def __hash__(self) -> int:
        return hash(self.pinned)

    def json(self) -> dict[str, Any]:
        """Return name and options, and the source where there is one, as JSON values."""
        content: dict[str, Any] = {"name": self.name, "options": dict(self.options)}
        if self.source:
            content["source"] = self.source
        return content

    def payload(self) -> dict[str, Any]:
        """Return what a worker needs to build the choice again, as JSON values."""
        return {**self.json(), "pins": dict(self.pins), "place": dict(self.place)}


@dataclass(frozen=True)
class Cell(Options):
    """Everything that decides one result of the benchmark.

    Raises:
        RequestError: a field has the wrong type or lies outside its range.
    """

    dataset: Part
    attack: Part
    model: Part
    defense: Part
    poison_ratio: Fraction = 0.1
    label_rule: LabelRule = "mix"
    target_label: Index = 1
    seed: Index = 0
    recipe: Recipe = "released"
    precision: Precision = "fp32"
    limit: Count | None = None
    analysis: InstanceOf[Part] | None = None  # what looks on while the victim trains; without it the older identity

    @cached_property
    def key(self) -> str:
        """Return the digest of the spec: the name of the cell's record."""
        axes = [part.identity for part in (self.dataset, self.attack, self.model, self.defense)]
        watched = [] if self.analysis is None else [self.analysis.identity]
        return digest("cell", axes, self._scalars(), *watched)[:40]

    def _scalars(self) -> dict[str, Any]:
        names = ("poison_ratio", "label_rule", "target_label", "seed", "recipe", "precision", "limit")
        return {name: getattr(self, name) for name in names}

    def json(self) -> dict[str, Any]:
        """Return the whole spec as JSON values, as it stands in a record."""
        axes = {axis: getattr(self, axis).json() for axis in ("dataset", "attack", "model", "defense")}
        watched = {} if self.analysis is None else {"analysis": self.analysis.json()}
        return {**axes, **self._scalars(), **watched}

    def title(self) -> str:
        """Return the cell in one line of words."""
        return (
            f"{self.dataset.name} / {self.attack.name} @ {self.poison_ratio:g} ({self.label_rule}) / "
            f"{self.defense.name} / {self.model.name} / seed {self.seed}"
        )
