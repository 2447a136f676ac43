"""The pages docs/attackers.md, docs/defenders.md and docs/grids.md, written from the code and the configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
import re
import sys
import types
import typing
from typing import Any

from bench.core import registry
from bench.core.errors import CellError
from bench.core.registry import ATTACKERS, DEFENDERS, Family
from bench.core.spec import Recipe
from bench.engine.grid import Grid, grid_names, load_grid
from bench.report.markdown import escape, table
from bench.victim.spec import ModelSpec, model_names, model_spec

MADE = "Written by `python -m bench docs` from the code: change the code, not this page."
ORDER = ("cleanse", "train", "repair", "filter", "detect")
AXES = ("datasets", "attacks", "defenders", "models", "poison_ratios", "seeds", "recipes", "precisions")
CHAINED = (
    "Defenses compose: `e-pur>fine-mixing`. Clean rows that a link of such a chain learns from set no threshold of\n"
    "another. Under a `clean_budget` each link has exactly so many rows; those for its thresholds come from behind\n"
    "the rows that the links before it learn from, and where the clean rows do not suffice, its stage fails."
)
LITERAL = re.compile(r"`[^`]*`")


def reference_pages() -> dict[str, str]:
    """Return the text of each generated page by file name."""
    return {"attackers.md": _plugins(ATTACKERS), "defenders.md": _plugins(DEFENDERS), "grids.md": _grids()}


def _plugins(family: Family) -> str:
    found = registry.own_plugins(family)
    kind = family.kind.capitalize()
    parts = [f"# {kind}s", MADE]
    parts.append(f"`python -m bench new {family.kind} NAME` writes the file and the test of another one.")
    if family is DEFENDERS:
        parts.append(CHAINED)
    parts.append(_overview(family, found))
    for name in sorted(found):
        parts += _plugin(family, name, found[name])
    return "\n\n".join(parts) + "\n"


def _overview(family: Family, found: dict[str, type]) -> str:
    if family is ATTACKERS:
        rows = [[_link(name), _first(found[name])] for name in sorted(found)]
        return table(["Attacker", "What it does"], rows, 2)
    rows = [[_link(name), _stages(found[name]), _needs(found[name]), _first(found[name])] for name in sorted(found)]
    return table(["Defender", "Acts at", "Clean rows", "What it does"], rows, 4)


def _link(name: str) -> str:
    anchor = re.sub(r"[^a-z0-9-]", "", name.lower().replace(" ", "-"))
    return f"[{name}](#{anchor})"


def _first(plugin: type) -> str:
    return _prose(" ".join((inspect.getdoc(plugin) or "").split("\n\n")[0].split()))


def _stages(plugin: type) -> str:
    acting = [stage for stage in ORDER if stage in plugin.stages()]
    return ", ".join(acting) or "nowhere"


def _needs(plugin: type) -> str:
    plain = plugin()  # `calibrated` may hang on options: of the class it is then a property, which is always true
    samples = plain.samples() or getattr(plain, "clean_samples", None) or 0
    wanted = [f"{samples} labelled"] * bool(samples) + ["threshold"] * bool(plain.calibrated)
    return " + ".join(wanted) or "none"


def _plugin(family: Family, name: str, plugin: type) -> list[str]:
    module = inspect.getdoc(sys.modules[plugin.__module__]) or ""
    own = inspect.getdoc(plugin) or ""
    parts = [f"## {name}", _blocks(module), _blocks(own)]
    if family is DEFENDERS:
        parts.append(f"Acts at: {_stages(plugin)}. Version {plugin.version}.")
    else:
        bank = f" Reads the paraphrase bank `{plugin.bank}`." if plugin.bank else ""
        parts.append(f"Label rule on SST-2 (released): {plugin.default_rule('sst2', 'released')}.{bank}")
    filled = _filled(family, plugin)
    rows = [_option(plugin, field, filled) for field in dataclasses.fields(plugin) if field.init]
    parts.append(table(["Option", "Type", "Default"], rows, 3) if rows else "It has no options.")
    return parts


def _blocks(text: str) -> str:
    """Return a docstring as Markdown: its paragraphs, its lists of `*` lines."""
    lines = [re.sub(r"^\* ", "- ", line) for line in text.split("\n")]
    spaced: list[str] = []
    for line in lines:
        starts_list = line.startswith("- ") and spaced and spaced[-1] and not spaced[-1].startswith(("- ", "  "))
        spaced += ["", line] if starts_list else [line]
    return _prose("\n".join(spaced))


def _prose(text: str) -> str:
    """Return text in which Markdown reads no markup but the `code` that docstrings mark."""
    pieces, last = [], 0
    for match in LITERAL.finditer(text):
        pieces += [_bare(text[last : match.start()]), match[0]]
        last = match.end()
    return "".join([*pieces, _bare(text[last:])])


def _bare(text: str) -> str:
    return re.sub(r"([*_|<>\[\]])", r"\\\1", text)


def _option(plugin: type, field: dataclasses.Field, filled: dict[str, str]) -> list[str]:
    hint = typing.get_type_hints(plugin)[field.name]
    default = filled.get(field.name) or _value(field.default)
    return [f"`{field.name}`", escape(_type(hint)), escape(default)]


def _filled(family: Family, plugin: type) -> dict[str, str]:
    """Return what the options that a plug-in leaves open are filled with: one value, or where it comes from."""
    plain = plugin()
    given: dict[tuple[str, str], Any] = {}
    for model, recipe in itertools.product(_models(), typing.get_args(Recipe)):
        with contextlib.suppress(CellError):  # a model without what this defense changes
            made = plain.for_recipe(recipe) if family is ATTACKERS else plain.for_model(model, recipe)
            given[model.name, recipe] = made
    said = {}
    for field in dataclasses.fields(plugin):
        values = {place: getattr(made, field.name) for place, made in given.items()}
        if getattr(plain, field.name) is None and set(values.values()) != {None}:
            said[field.name] = _source(values)
    return said


@functools.cache
def _models() -> tuple[ModelSpec, ...]:
    return tuple(model_spec(name) for name in model_names())


def _source(values: dict[tuple[str, str], Any]) -> str:
    """Return the value of an option if it has one by (model, recipe), else which of both decide it."""
    if len(set(values.values())) == 1:
        return _value(next(iter(values.values())))
    pairs = list(itertools.combinations(values, 2))
    causes = []
    for cause, same in (("the model file", 1), ("the recipe", 0)):
        if any(one[same] == other[same] and values[one] != values[other] for one, other in pairs):
            causes.append(cause)
    return f"from {' and '.join(causes)}"


def _type(hint: Any) -> str:
    """Return a type in words."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(str(value) for value in inside)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("left open" if part is type(None) else _type(part) for part in inside)
    if origin is tuple:
        return f"list of {_type(inside[0])}"
    return {float: "number", int: "whole number", str: "text", bool: "true or false"}.get(hint, str(hint))


def _value(value: Any) -> str:
    if value is None:
        return "left open"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _grids() -> str:
    parts = ["# Grids", MADE]
    parts.append(
        "`python -m bench run --grid NAME` runs one, `python -m bench plan --grid NAME` counts it. Any axis can be "
        "replaced on the command line: `--seeds 0,1,2`. An option that is typed with a new choice, "
        '`--models "minilm-l6(epochs=5)"`, stands above what the grid sets, and `--set model.epochs=5` above both. '
        "A grid of your own is a YAML file with the same keys; paths under `grids:` are relative to it, "
        "and a grid that only unites others holds nothing else but `name` and `about`."
    )
    for name in grid_names():
        grid = load_grid(name)
        parts += [f"## {name}", _prose(grid.about[:1].upper() + grid.about[1:]).rstrip(".") + "."]
        if grid.grids:
            parts.append("Unites: " + ", ".join(_link(other) for other in grid.grids) + ".")
        rows = _axes(grid)
        if rows:
            parts.append(table(["Axis", "Values"], rows, 2))
    return "\n\n".join(parts) + "\n"


def _axes(grid: Grid) -> list[list[str]]:
    rows = []
    for axis in AXES:
        values = getattr(grid, axis)
        if values and (axis not in ("recipes", "precisions") or values != Grid.__dataclass_fields__[axis].default):
            rows.append([axis.replace("_", " "), ", ".join(f"`{_choice(value)}`" for value in values)])
    rows += [[f"`{name}`", f"`{value}`"] for name, value in grid.set.items()]
    rows += [[f"`{name}`", ", ".join(f"`{value}`" for value in values)] for name, values in grid.sweep.items()]
    rows += [["analysis", f"`{_choice(grid.analysis)}`"]] if grid.analysis is not None else []
    return rows if any(getattr(grid, axis) for axis in AXES[:4]) else []


def _choice(value: Any) -> str:
    return str(value) if not isinstance(value, dict) else ", ".join(f"{name}: {item}" for name, item in value.items())
