"""Finding plug-ins by name: a file in the folder, an entry point, or `module:Class`.

Nothing is registered at import and no list is kept: the folder is the list.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from dataclasses import dataclass
from importlib.metadata import entry_points

from bench.core.errors import RequestError, unknown


@dataclass(frozen=True)
class Family:
    """One kind of plug-in: the package that holds it, its base class, and its entry-point group."""

    kind: str
    package: str
    base: str

    @property
    def group(self) -> str:
        """Return the entry-point group through which third parties register."""
        return f"openbackdoor_bench.{self.package}"


ATTACKERS = Family("attacker", "attackers", "Attacker")
DEFENDERS = Family("defender", "defenders", "Defender")


def base_class(family: Family) -> type:
    """Return the base class of a family."""
    return getattr(importlib.import_module(f"{family.package}.base"), family.base)


@functools.cache
def own_plugins(family: Family) -> dict[str, type]:
    """Return the plug-ins of the family's own folder by name; a file that does not import raises."""
    base, found = base_class(family), {}
    package = importlib.import_module(family.package)
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
        module = importlib.import_module(f"{family.package}.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__:
                if "name" in value.__dict__ and value is not base:
                    if value.name in found:
                        raise RequestError(f"Two {family.package} are named {value.name!r}.", "Rename one of them.")
                    found[value.name] = value
    return found


def _entry_points(family: Family) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=family.group)}


def names(family: Family) -> list[str]:
    """Return the names of all plug-ins that are installed, sorted."""
    return sorted({*own_plugins(family), *_entry_points(family)})


def plugin_class(family: Family, name: str) -> type:
    """Return the class of a plug-in by name or by `module:Class`.

    Raises:
        RequestError: no such name (with the nearest one), no such module or class, or not of this family.
    """
    own = own_plugins(family)
    if name in own:
        return own[name]
    target = _entry_points(family).get(name, name)
    if ":" not in target:
        raise unknown(family.kind, name, names(family))
    module_name, _, class_name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RequestError(
            f"{family.kind} {name!r} cannot be loaded: {error}.", "Write module:Class of something importable."
        ) from error
    if not (isinstance(found, type) and issubclass(found, base_class(family)) and dataclasses.is_dataclass(found)):
        raise RequestError(
            f"{target} is no {family.kind}: it is not a dataclass derived from {family.package}.base.{family.base}.",
            "Derive from it and decorate the class with @dataclass(frozen=True).",
        )
    return found
