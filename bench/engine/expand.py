"""From a grid to its cells: constructed, with every default, recipe and model file filled in."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.core import registry
from bench.core.errors import CellError, RequestError
from bench.core.options import option_names
from bench.core.paths import absolute
from bench.core.registry import ANALYSES, ATTACKERS, DEFENDERS
from bench.core.spec import Cell, Part
from bench.engine import plugins
from bench.engine.chain import Chain
from bench.engine.grid import Grid
from bench.engine.settings import Settings, chains, check_settings, named, settings_of


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


def expand(blocks: Iterable[Grid], data_dir: Path | None = None) -> Expanded:
    """Return the cells of the blocks, each once, in the order of the axes.

    `data_dir` is only looked at for files that may stand in for others, and for their digests.

    Raises:
        RequestError: a name, an option or a value that does not exist or does not fit.
    """
    blocks, expanded = list(blocks), Expanded()
    check_settings(blocks)
    for block in blocks:
        _expand_block(block, expanded, data_dir)
    return expanded


def _expand_block(grid: Grid, expanded: Expanded, data_dir: Path | None) -> None:
    settings = settings_of(grid)
    datasets = [dataset_part(*_with(settings, "dataset", choice), data_dir) for choice in grid.datasets]
    models = [model_part(*_with(settings, "model", choice)) for choice in grid.models]
    attacks = [_plugin(ATTACKERS, *choice, settings) for choice in named(ATTACKERS, grid.attacks)]
    defenders = [
        Chain(tuple(_plugin(DEFENDERS, *link, settings) for link in chain)) for chain in chains(grid.defenders)
    ]
    _check_targets(datasets, grid.target_labels)
    analysis = _analysis(grid, settings)
    armed = {
        (position, recipe): plugins.part_of(ATTACKERS, attack.for_recipe(recipe), name)
        for position, (name, attack) in enumerate(attacks)
        for recipe in grid.recipes
    }
    filled = {
        (position, which, recipe, precision): _filled(chain, spec, recipe, precision)
        for position, chain in enumerate(defenders)
        for which, (_, spec) in enumerate(models)
        for recipe in grid.recipes
        for precision in grid.precisions
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
    for (dataset, _), (which, (model, _)), (
        position,
        (_, attack),
    ), recipe, ratio, target, seed, precision, defense in order:
        part, error = filled[defense, which, recipe, precision]
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
                analysis=analysis,
            )
            expanded.add(cell, error)


def _filled(chain: Chain, spec: Any, recipe: str, precision: str) -> tuple[Part, CellError | None]:
    """Return the defense with the model's options filled in; one that the model cannot carry keeps its reason."""
    from bench.victim.loading import check_weights

    try:
        part = chain.for_model(spec, recipe).part()
    except CellError as error:
        return chain.part(), error
    try:
        check_weights(spec, precision)
        chain.check_weights(spec)
        chain.check_shards(spec)
    except CellError as error:
        return part, error
    return part, None


def dataset_part(name: str, options: Mapping[str, Any], data_dir: Path | None = None) -> tuple[Part, Any]:
    """Return the part and the spec of a data set; its pins are those of the files that stand in `data_dir`."""
    from bench.data import dataset_spec
    from bench.data.check import pins_in_force

    spec = dataset_spec(name, options)
    content = spec.identity()
    if "content" in content:
        return Part(spec.name, content, place={"source": spec.source, "options": dict(options)}), spec
    content.pop("pins", None)
    return Part(spec.name, content, pins=pins_in_force(spec, data_dir)), spec


def model_part(name: str, options: Mapping[str, Any]) -> tuple[Part, Any]:
    """Return the part and the spec of a model."""
    from bench.victim.loading import weights_identity
    from bench.victim.spec import model_spec

    spec = model_spec(name, options)
    content = spec.identity()
    try:
        weights = weights_identity(spec)
    except CellError:
        return Part(spec.name, content), spec  # its cells fail before they run, with the reason
    if spec.path is None:
        return Part(spec.name, content, pins={"weights": weights}), spec
    # What the folder holds is the identity, wherever it lies.
    place = {"path": absolute(spec.path)}
    return Part(spec.name, {**content, "path": weights}, pins={"weights": weights}, place=place), spec


def _analysis(grid: Grid, settings: Settings) -> Part | None:
    """Return the part of what looks on at the trainings of a grid, None where nothing does."""
    if grid.analysis is None:
        wanted = settings.on("analysis", {})
        if wanted:
            raise RequestError(
                f"Grid {grid.name!r} has no analysis to set {', '.join(wanted)} of.",
                "Name one with analysis.",
            )
        return None
    name, options = _with(settings, "analysis", grid.analysis)
    return plugins.part_of(ANALYSES, plugins.chosen(ANALYSES, name, options), name)


def _plugin(family: registry.Family, name: str, options: dict[str, Any], settings: Settings) -> tuple[str, Any]:
    """Settings of an axis reach every plug-in of the axis that has the option."""
    valid = option_names(registry.plugin_class(family, name))
    axis = "attack" if family is ATTACKERS else "defense"
    return name, plugins.chosen(family, name, settings.on(axis, options, valid))


def _with(settings: Settings, axis: str, choice: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    # A path may hold brackets, and a hub id colons: only a mapping or NAME(...) carries options.
    name, options = plugins.parse(choice) if not isinstance(choice, str) or choice.endswith(")") else (choice, {})
    return name, settings.on(axis, options)


def _check_targets(datasets: list[tuple[Part, Any]], targets: tuple[int, ...]) -> None:
    for part, spec in datasets:
        for target in targets:
            if target >= len(spec.classes):
                raise RequestError(
                    f"target_label is {target}, but {part.name} has the labels 0 to {len(spec.classes) - 1}.",
                    "Name one of them with target_labels.",
                )
