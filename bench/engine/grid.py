"""A grid file: axes whose product is the cells. `configs/grids/NAME.yaml`, or a path to a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from bench.core.errors import RequestError, unknown
from bench.core.options import Count, Fraction, Index, Options, Text, build
from bench.core.spec import LabelRule, Precision, Recipe

Choice = Text | dict[str, Any]
ALL = "all"


@dataclass(frozen=True)
class Grid(Options):
    """The axes of a sweep; every combination is a cell.

    `defenders` and `attacks` take `all`. `label_rules` is `published` (each attack's published rule)
    or names rules. `set` holds options by `axis.option`. `grids` unites other grids with this one.
    """

    name: Text = "grid"
    about: str = ""
    datasets: tuple[Choice, ...] = ()
    attacks: tuple[Choice, ...] = ()
    defenders: tuple[Choice, ...] = ()
    models: tuple[Choice, ...] = ()
    poison_ratios: tuple[Fraction, ...] = (0.1,)
    label_rules: tuple[LabelRule, ...] | None = None
    target_labels: tuple[Index, ...] = (1,)
    seeds: tuple[Index, ...] = (0,)
    recipes: tuple[Recipe, ...] = ("released",)
    precisions: tuple[Precision, ...] = ("fp32",)
    limit: Count | None = None
    set: dict[str, Any] = field(default_factory=dict)
    grids: tuple[Text, ...] = ()

    def blocks(self) -> list[Grid]:
        """Return this grid's own block and those of the grids that it unites, narrowing nothing.

        Raises:
            RequestError: an axis is empty, or grids unite each other in a circle.
        """
        return self._blocks(())

    def _blocks(self, seen: tuple[str, ...]) -> list[Grid]:
        if self.name in seen:
            raise RequestError(f"Grid {self.name!r} unites itself: {' > '.join((*seen, self.name))}.", "Break the circle.")
        blocks = [block for name in self.grids for block in load_grid(name)._blocks((*seen, self.name))]
        axes = {axis: getattr(self, axis) for axis in ("datasets", "attacks", "defenders", "models")}
        if self.grids and not any(axes.values()):
            return blocks
        empty = [axis for axis, values in axes.items() if not values]
        if empty:
            raise RequestError(f"Grid {self.name!r} names no {empty[0]}.", f"Give {empty[0]} at least one entry.")
        return [*blocks, self]


def narrowed(blocks: list[Grid], changes: Mapping[str, Any]) -> list[Grid]:
    """Return the blocks with the given axes replaced; equal blocks are merged later, by cell."""
    fields = {axis: value for axis, value in changes.items() if axis != "set"}
    extra = changes.get("set", {})
    return [replace(block, **fields, set={**block.set, **extra}) for block in blocks]


def grid_names() -> tuple[str, ...]:
    """Return the names of the grids that come with the package."""
    folder = files("configs") / "grids"
    return tuple(sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")))


def load_grid(name: str) -> Grid:
    """Return the grid of that name, or in that file.

    Raises:
        RequestError: no such grid (with the nearest name), not YAML, an unknown key, a wrong value.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise RequestError(f"There is no grid file {name}.", "Name a file, or one of: " + ", ".join(grid_names()) + ".")
        return _read(path.read_bytes(), path.stem, name)
    if name not in grid_names():
        raise unknown("grid", name, grid_names())
    return _read((files("configs") / "grids" / f"{name}.yaml").read_bytes(), name, name)


def _read(content: bytes, name: str, where: str) -> Grid:
    try:
        values = yaml.safe_load(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise RequestError(f"Grid {where} is not UTF-8 text.", "Save it as UTF-8.") from None
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"Grid {where} is not valid YAML: {reason}.", "Mend the line that is named.") from None
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise RequestError(f"Grid {where} is no mapping of axes to lists.", "Write `datasets: [demo]` and so on.")
    values = {key: _listed(key, value) for key, value in values.items()}
    return build(Grid, {"name": name, **values}, "grid", where)


def _listed(key: str, value: Any) -> Any:
    """A single value stands for a list of one."""
    plural = key not in ("name", "about", "limit", "set")
    return [value] if plural and not isinstance(value, list) and value is not None else value
