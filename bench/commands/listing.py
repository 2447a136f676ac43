"""What `bench list` prints: every name with one line about it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from bench.core import registry
from bench.core.options import option_names
from bench.core.registry import ATTACKERS, DEFENDERS, Family


def lines(kind: str) -> Iterator[str]:
    """Yield one line per attacker, defender, dataset, model or grid."""
    listers = {
        "attackers": lambda: _plugins(ATTACKERS),
        "defenders": lambda: _plugins(DEFENDERS),
        "datasets": _datasets,
        "models": _models,
        "grids": _grids,
    }
    yield from listers[kind]()


def _plugins(family: Family) -> Iterator[str]:
    for name in registry.names(family):
        found = registry.plugin_class(family, name)
        options = ", ".join(option_names(found)) or "no options"
        yield f"{name:18} {_first_sentence(found.__doc__)} [{options}]"
    # Their options are those of its constructors: listing them would import that package.
    for name in importlib.import_module(f"{family.package}.openbackdoor").NAMES:
        yield f"{registry.RESERVED}{name} OpenBackdoor's own, where that package is installed (docs/openbackdoor.md)"


def _first_sentence(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def _datasets() -> Iterator[str]:
    from bench.data import about, dataset_names, dataset_spec

    for name in dataset_names():
        leaks = about(name).leaks
        yield f"{name:18} {about(name).title or name}, {len(dataset_spec(name).classes)} classes" + (
            f"; {leaks}" if leaks else ""
        )


def _models() -> Iterator[str]:
    from bench.victim.spec import model_names, model_spec

    for name in model_names():
        spec = model_spec(name)
        yield f"{name:18} {spec.family}, {spec.hub or spec.package or spec.path}, {spec.epochs} epochs"


def _grids() -> Iterator[str]:
    from bench.engine.grid import grid_names, load_grid

    for name in grid_names():
        yield f"{name:10} {load_grid(name).about}"
