"""From a grid to its cells: constructed, with every default, recipe and model file filled in."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.core import registry
from bench.core.errors import CellError, RequestError, unknown
from bench.core.options import option_names
from bench.core.registry import ATTACKERS, DEFENDERS
from bench.core.spec import Cell, Part
from bench.engine import plugins
from bench.engine.grid import ALL, Grid

AXES = ("dataset", "attack", "model", "defense")


@dataclass
class Expanded:
    """The cells of a grid in order, and those that cannot be, with the reason."""

    cells: dict[str, Cell] = field(default_factory=dict)
    impossible: dict[str, CellError] = field(default_factory=dict)

    def add(self, cell: Cell, error: CellError | None) -> None:
        """Take a cell once; the first mention counts."""
        if cell.key not in self.cells:
            self.cells[cell.key] = cell
            if error is not None:
                self.impossible[cell.key] = error


def expand(blocks: Iterable[Grid]) -> Expanded:
    """Return the cells of the blocks, each once, in the order of the axes.

    Raises:
        RequestError: a name, an option or a value that does not exist or does not fit.
    """
    expanded = Expanded()
    for block in blocks:
        _expand_block(block, expanded)
    return expanded


def _expand_block(grid: Grid, expanded: Expanded) -> None:
    settings = _settings(grid.set)
    datasets = [dataset_part(*_with(settings, "dataset", choice)) for choice in grid.datasets]
    models = [model_part(*_with(settings, "model", choice)) for choice in grid.models]
    attacks = _plugins(ATTACKERS, grid.attacks, settings, "attack")
    defenders = _plugins(DEFENDERS, grid.defenders, settings, "defense")
    _check_targets(datasets, grid.target_labels)
    armed = {
        (position, recipe): plugins.part_of(ATTACKERS, attack.for_recipe(recipe), name)
        for position, (name, attack) in enumerate(attacks)
        for recipe in grid.recipes
    }
    filled = {
        (position, which, recipe): _filled(name, defense, spec, recipe)
        for position, (name, defense) in enumerate(defenders)
        for which, (_, spec) in enumerate(models)
        for recipe in grid.recipes
    }
    order = itertools.product(
        datasets,
        enumerate(models),
        enumerate(attacks),
        grid.recipes,
        grid.poison_ratios,
        grid.target_labels,
        grid.seeds,
        grid.precisions,
        range(len(defenders)),
    )
    for (dataset, _), (which, (model, _)), (position, (_, attack)), recipe, ratio, target, seed, precision, defense in order:
        part, error = filled[defense, which, recipe]
        for rule in grid.label_rules or (attack.default_rule(dataset.name, recipe),):
            cell = Cell(
                dataset=dataset,
                attack=armed[position, recipe],
                model=model,
                defense=part,
                poison_ratio=ratio,
                label_rule=rule,
                target_label=target,
                seed=seed,
                recipe=recipe,
                precision=precision,
                limit=grid.limit,
            )
            expanded.add(cell, error)


def _filled(name: str, defense: Any, spec: Any, recipe: str) -> tuple[Part, CellError | None]:
    """Return the defense with the model's options filled in; one that the model cannot carry keeps its reason."""
    try:
        return plugins.part_of(DEFENDERS, defense.for_model(spec, recipe), name), None
    except CellError as error:
        return plugins.part_of(DEFENDERS, defense, name), error


def dataset_part(name: str, options: Mapping[str, Any]) -> tuple[Part, Any]:
    """Return the part and the spec of a data set."""
    from bench.data import dataset_spec

    spec = dataset_spec(name, options)
    content = spec.identity()
    pins = content.pop("pins", {})
    return Part(spec.name, content, source=name if name != spec.name else "", pins=pins), spec


def model_part(name: str, options: Mapping[str, Any]) -> tuple[Part, Any]:
    """Return the part and the spec of a model."""
    from bench.victim.loading import weights_identity
    from bench.victim.spec import model_spec

    spec = model_spec(name, options)
    try:
        pins = {"weights": weights_identity(spec)}
    except CellError:
        pins = {}  # the cells of this model fail before they run, with the reason
    return Part(spec.name, spec.identity(), source=name if name != spec.name else "", pins=pins), spec


def _plugins(family: registry.Family, choices: tuple, settings: dict, axis: str) -> list[tuple[str, Any]]:
    named = []
    for choice in choices:
        if choice == ALL:
            first = ["vanilla"] if "vanilla" in registry.own_plugins(family) else []
            named += [*first, *(name for name in registry.own_plugins(family) if name not in first)]
        else:
            named.append(choice)
    parsed = [plugins.parse(choice) for choice in named]
    _check_settings(family, [name for name, _ in parsed], settings.get(axis, {}), axis)
    return [(name, plugins.construct(family, name, _relevant(family, name, options, settings.get(axis, {})))) for name, options in parsed]


def _relevant(family: registry.Family, name: str, options: dict, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an axis reach every plug-in of the axis that has the option."""
    valid = option_names(registry.plugin_class(family, name))
    return {**options, **{key: value for key, value in settings.items() if key in valid}}


def _check_settings(family: registry.Family, chosen: list[str], settings: Mapping[str, Any], axis: str) -> None:
    valid = {option for name in chosen for option in option_names(registry.plugin_class(family, name))}
    for option in settings:
        if option not in valid:
            raise unknown(f"option of any chosen {axis}", option, valid)


def _settings(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    settings: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        axis, dot, option = name.partition(".")
        if not dot or not option:
            raise RequestError(f"{name!r} is no option.", "Write axis.option=value, model.learning_rate=5e-4 for example.")
        if axis not in AXES:
            raise unknown("axis", axis, AXES)
        settings.setdefault(axis, {})[option] = value
    return settings


def _with(settings: dict, axis: str, choice: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    # A path may hold brackets, and a hub id colons: only a mapping or NAME(...) carries options.
    name, options = plugins.parse(choice) if not isinstance(choice, str) or choice.endswith(")") else (choice, {})
    return name, {**options, **settings.get(axis, {})}


def _check_targets(datasets: list[tuple[Part, Any]], targets: tuple[int, ...]) -> None:
    for part, spec in datasets:
        for target in targets:
            if target >= len(spec.classes):
                raise RequestError(
                    f"target_label is {target}, but {part.name} has the labels 0 to {len(spec.classes) - 1}.",
                    "Name one of them with target_labels.",
                )
