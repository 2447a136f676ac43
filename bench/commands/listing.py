"""What `bench list` prints: every name with one line about it."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
from collections.abc import Iterator

from bench.core import registry
from bench.core.errors import RequestError, unknown
from bench.core.registry import ATTACKERS, DEFENDERS, Family

ORDER = ("cleanse", "train", "repair", "filter", "detect")
LONGEST = 48  # characters of an option with its default


def lines(kind: str | None = None) -> Iterator[str]:
    """Yield one line per attacker, defender, dataset, model or grid; without a kind all of them, under headings.

    Raises:
        RequestError: there is no such list (with the nearest name).
    """
    listers = {
        "attackers": lambda: _plugins(ATTACKERS),
        "defenders": lambda: _plugins(DEFENDERS),
        "datasets": _datasets,
        "models": _models,
        "grids": _grids,
    }
    if kind is not None:
        if kind not in listers:
            raise unknown("list", kind, listers)
        yield from listers[kind]()
        return
    for number, (name, lister) in enumerate(listers.items()):
        yield from ([""] if number else [])
        yield f"{name}:"
        yield from (f"  {line}" for line in lister())


def _plugins(family: Family) -> Iterator[str]:
    # Their options are those of its constructors: listing them would import that package.
    bridged = [f"{registry.RESERVED}{name}" for name in importlib.import_module(f"{family.package}.openbackdoor").NAMES]
    width = max(map(len, [*registry.names(family), *bridged]))
    for name in registry.names(family):
        yield f"{name:{width}}  {_about(family, name)}"
    for name in bridged:
        yield f"{name:{width}}  OpenBackdoor's own, where that package is installed (docs/openbackdoor.md)"


def _about(family: Family, name: str) -> str:
    """Return where a defense acts, what a plug-in does and after whose work, and its options with their defaults."""
    try:
        found = registry.plugin_class(family, name)
    except RequestError as error:  # somebody else's package: the others are listed all the same
        return str(error)
    stages = f"[{', '.join(sorted(found.stages(), key=ORDER.index)) or 'no stage'}] " if family is DEFENDERS else ""
    module = sys.modules[found.__module__]
    about = _first_paragraph(module.__doc__) or _first_paragraph(inspect.getdoc(found))
    options = ", ".join(_option(field) for field in dataclasses.fields(found) if field.init) or "no options"
    return f"{stages}{about} ({options})"


def _option(field: dataclasses.Field) -> str:
    """Return an option with its default, by name alone where the recipe or the model fills it in or it is long."""
    value = field.default
    if value is None or value is dataclasses.MISSING:
        return field.name
    shown = f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else value
    text = f"{field.name}={str(shown).lower() if isinstance(value, bool) else shown}"
    return text if len(text) <= LONGEST else field.name


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def _datasets() -> Iterator[str]:
    from bench.data import about, dataset_names, dataset_spec

    for name in dataset_names():
        known = about(name)
        more = [text.rstrip(".") for text in (known.citation, known.leaks) if text]
        yield f"{name:18} {known.title or name}, {len(dataset_spec(name).classes)} classes" + "".join(
            f"; {text}" for text in more
        )


def _models() -> Iterator[str]:
    from bench.victim.spec import model_names, model_spec

    for name in model_names():
        spec = model_spec(name)
        yield f"{name:18} {spec.family}, {spec.hub or spec.package or spec.path}, {spec.epochs} epochs"


def _grids() -> Iterator[str]:
    from bench.engine.grid import grid_names, load_grid

    for name in grid_names():
        yield f"{name:12} {load_grid(name).about}"
