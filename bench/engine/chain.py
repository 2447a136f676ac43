"""A defense of a cell as a chain of links, `e-pur>fine-mixing`; a single defense is a chain of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.core.errors import CellError, RequestError
from bench.core.registry import DEFENDERS
from bench.core.spec import Part
from bench.engine import plugins
from bench.engine.sharding import inserts
from defenders.base import Defender

LINK = ">"


@dataclass(frozen=True)
class Chain:
    """The links in the order in which they act, each with the name under which it was asked for."""

    links: tuple[tuple[str, Any], ...]

    def __post_init__(self) -> None:
        training = [defense.name for _, defense in self.links if "train" in defense.stages()]
        if len(training) > 1:
            raise RequestError(
                f"{LINK.join(name for name, _ in self.links)!r} trains in {len(training)} ways: {', '.join(training)}.",
                "Only one link of a chain may act at training.",
            )

    def for_model(self, spec: Any, recipe: str) -> Chain:
        """Return the chain with every option that it leaves to the model file or the recipe filled in."""
        return Chain(tuple((name, defense.for_model(spec, recipe)) for name, defense in self.links))

    def check_weights(self, spec: Any) -> None:
        """Raise CellError where the whole model would train and its weights are bf16."""
        inserted = any(inserts(defense) for _, defense in self.links)
        if spec.weights == "bf16" and spec.stand_in_rank is None and not inserted:
            raise CellError(
                f"{LINK.join(name for name, _ in self.links)!r} trains the whole of model {spec.name!r}, whose bf16"
                " weights would lose most steps in their rounding.",
                "Set model.stand_in_rank=1024 to let LoRA stand for it, or leave model.weights out.",
            )

    def check_shards(self, spec: Any) -> None:
        """Raise CellError where a training that is to be sharded needs whole gradients."""
        if spec.shards == 1 or spec.stand_in_rank is not None or any(inserts(defense) for _, defense in self.links):
            return
        acting = [name for name, defense in self.links if type(defense).hooks is not Defender.hooks]
        if acting:
            raise CellError(
                f"{acting[0]!r} acts on whole gradients, and no device holds those of a sharded training.",
                "Leave model.shards out.",
            )

    def part(self) -> Part:
        """Return the part that stands for the chain in a cell."""
        parts = [plugins.part_of(DEFENDERS, defense, name) for name, defense in self.links]
        if len(parts) == 1:
            return parts[0]
        pins = {str(place): f"version {part.version}" for place, part in enumerate(parts)}
        pins |= {f"{place} {name}": pin for place, part in enumerate(parts) for name, pin in part.pins.items()}
        places = {str(place): part.place for place, part in enumerate(parts) if part.place}
        options = {"links": [part.json() for part in parts]}
        return Part(LINK.join(part.name for part in parts), options, pins=pins, place=places)


def names_of(choice: str | Mapping[str, Any]) -> list[str | Mapping[str, Any]]:
    """Return the links of a choice: `a(x=1)>b` has two; a mapping is one.

    Raises:
        RequestError: a link is empty.
    """
    if not isinstance(choice, str):
        return [choice]
    links = plugins.split_outside_brackets(choice, LINK)
    bare = re.sub(r"\([^()]*\)", "", choice).replace(" ", "")
    if not links or bare.startswith(LINK) or bare.endswith(LINK) or LINK * 2 in bare:
        raise RequestError(f"{choice!r} has an empty link.", "Write NAME>NAME.")
    return list(links)


def links_of(part: Part) -> list[tuple[Part, Any]]:
    """Return the parts and the constructed defenses of a cell's defense."""
    if LINK not in part.name:
        return [(part, plugins.defender(part))]
    links = []
    for place, content in enumerate(part.options["links"]):
        defense = plugins.defender({**content, "place": part.place.get(str(place), {})})
        links.append((plugins.part_of(DEFENDERS, defense, content.get("source") or content["name"]), defense))
    return links
