"""A grid file: axes whose product is the cells. `configs/grids/NAME.yaml`, or a path to a file."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from bench.core.errors import RequestError, unknown
from bench.core.options import Count, Fraction, Index, Options, Text, build
from bench.core.paths import is_file
from bench.core.spec import LabelRule, Precision, Recipe
from bench.core.yaml_text import read_yaml
from bench.engine.settings import give_way, without_idle

Choice = Text | dict[str, Any]
NotEmpty = Field(min_length=1)
CELLS = ("datasets", "attacks", "defenders", "models")  # axes without which a grid has no cells of its own


@dataclass(frozen=True)
class Grid(Options):
    """The axes of a sweep; every combination is a cell.

    `defenders` and `attacks` take `all`. `label_rules` names rules; without it each attack has its published one. `set`
    holds options by `axis.option`, `sweep` lists of values for such options: each combination is a block. `analysis`
    looks on at every training. `grids` unites other grids with this one; a path there is relative to the folder of the
    grid file that names it, and what else that file states is of its own cells alone.
    """

    name: Text = "grid"
    about: str = ""
    datasets: tuple[Choice, ...] = ()
    attacks: tuple[Choice, ...] = ()
    defenders: tuple[Choice, ...] = ()
    models: tuple[Choice, ...] = ()
    poison_ratios: Annotated[tuple[Fraction, ...], NotEmpty] = (0.1,)
    label_rules: Annotated[tuple[LabelRule, ...], NotEmpty] | None = None
    target_labels: Annotated[tuple[Index, ...], NotEmpty] = (1,)
    seeds: Annotated[tuple[Index, ...], NotEmpty] = (0,)
    recipes: Annotated[tuple[Recipe, ...], NotEmpty] = ("released",)
    precisions: Annotated[tuple[Precision, ...], NotEmpty] = ("fp32",)
    limit: Count | None = None
    analysis: Choice | None = None
    set: dict[str, Any] = field(default_factory=dict)
    sweep: dict[str, Annotated[list[Any], NotEmpty]] = field(default_factory=dict)
    grids: tuple[Text, ...] = ()

    def blocks(self) -> list[Grid]:
        """Return this grid's own block and those of the grids that it unites, narrowing nothing.

        Raises:
            RequestError: an axis is empty, or grids unite each other in a circle.
        """
        return self._blocks(())

    def _blocks(self, seen: tuple[str, ...]) -> list[Grid]:
        where = self.__dict__.get("_file") or self.name
        if where in seen:
            names = " > ".join(Path(place).stem for place in (*seen, where))
            raise RequestError(f"Grid {self.name!r} unites itself: {names}.", "Break the circle.")
        blocks = [block for name in self.grids for block in load_grid(name)._blocks((*seen, where))]
        axes = {axis: getattr(self, axis) for axis in CELLS}
        if self.grids and not any(axes.values()):
            return blocks
        empty = [axis for axis, values in axes.items() if not values]
        if empty:
            raise RequestError(f"Grid {self.name!r} names no {empty[0]}.", f"Give {empty[0]} at least one entry.")
        names, values = tuple(self.sweep), itertools.product(*self.sweep.values())
        turns = [dict(zip(names, turn, strict=True)) for turn in values]
        return [*blocks, *(replace(self, sweep={}, set={**self.set, **turn}) for turn in turns)]


def narrowed(blocks: list[Grid], changes: Mapping[str, Any]) -> list[Grid]:
    """Return the blocks with the given axes replaced; equal blocks are merged later, by cell.

    What a grid sets of plug-ins that are narrowed away goes with them. On an axis that is replaced, options that the
    new choices name themselves stand above what the grid sets, and what `changes` sets above both.

    Raises:
        RequestError: an axis is replaced by nothing, or by a value that it cannot take.
    """
    fields = {axis: value for axis, value in changes.items() if axis != "set"}
    empty = [axis for axis, value in fields.items() if value == ()]
    if empty:
        raise RequestError(f"{empty[0]} is replaced by nothing.", "Give it at least one entry, or leave it out.")
    extra = changes.get("set", {})
    changed = [replace(block, **fields, set={**block.set, **extra}) for block in blocks]
    kept = without_idle(blocks, changed, extra)
    for block in kept:
        give_way(block, fields, extra)
    return kept


def grid_names() -> tuple[str, ...]:
    """Return the names of the grids that come with the package."""
    folder = files("configs") / "grids"
    return tuple(sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")))


def load_grid(name: str) -> Grid:
    """Return the grid of that name, or in that file.

    Raises:
        RequestError: no such grid (with the nearest name), not YAML, an unknown key, a wrong value, or one that would
            reach no cell: of a grid that only unites others.
    """
    path = Path(name)
    if name not in grid_names() and (path.suffix in (".yaml", ".yml") or is_file(path)):
        if not is_file(path):
            raise RequestError(
                f"There is no grid file {name}.", "Name a file, or one of: " + ", ".join(grid_names()) + "."
            )
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RequestError(f"Grid {name} cannot be read: {error.strerror}.", "Make it readable.") from None
        grid = _read(content, path.stem, name)
        object.__setattr__(grid, "grids", tuple(_beside(path.parent, other) for other in grid.grids))
        object.__setattr__(grid, "_file", str(path.resolve()))  # two files of one name are two grids
        return grid
    if name not in grid_names():
        raise unknown("grid", name, grid_names())
    return _read((files("configs") / "grids" / f"{name}.yaml").read_bytes(), name, name)


def _beside(folder: Path, name: str) -> str:
    """Return what a grid file in a folder means by a name: one of ours, or a file relative to the folder."""
    if name in grid_names():
        return name
    path = folder / name
    return str(path) if path.suffix in (".yaml", ".yml") or is_file(path) else name


def _read(content: bytes, name: str, where: str) -> Grid:
    try:
        values = read_yaml(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise RequestError(f"Grid {where} is not UTF-8 text.", "Save it as UTF-8.") from None
    except ValueError as error:
        raise RequestError(f"Grid {where} is not valid YAML: {error}.", "Mend the line that is named.") from None
    if not isinstance(values, Mapping):
        raise RequestError(f"Grid {where} is no mapping of axes to lists.", "Write `datasets: [demo]` and so on.")
    values = {key: _listed(key, value) for key, value in values.items()}
    grid = build(Grid, {"name": name, **values}, "grid", where)
    idle = sorted(values.keys() - {"name", "about", "grids", *CELLS})
    if grid.grids and idle and not any(getattr(grid, axis) for axis in CELLS):
        raise RequestError(
            f"Grid {where} has no cells of its own for its {', '.join(idle)}: it only unites {', '.join(grid.grids)}.",
            "Write that into the grids that it unites, or give it on the command line.",
        )
    return grid


def _listed(key: str, value: Any) -> Any:
    """A single value stands for a list of one."""
    plural = key not in ("name", "about", "limit", "analysis", "set", "sweep")
    return [value] if plural and not isinstance(value, list) and value is not None else value
