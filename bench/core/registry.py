"""Finding plug-ins by name: a file in the folder, an entry point, or `module:Class`.

Nothing is registered at import and no list is kept: the folder is the list.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pkgutil
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import PurePath

from bench.core.errors import RequestError, unknown

RESERVED = "openbackdoor:"  # prefix of the plug-ins of that package


@dataclass(frozen=True)
class Family:
    """One kind of plug-in: the package that holds it, its base class, and its entry-point group."""

    kind: str
    package: str
    base: str

    @property
    def group(self) -> str:
        """Return the entry-point group through which third parties register."""
        return f"openbackdoor_bench.{self.package.rpartition('.')[2]}"


ATTACKERS = Family("attacker", "attackers", "Attacker")
DEFENDERS = Family("defender", "defenders", "Defender")
ANALYSES = Family("analysis", "bench.analysis.watchers", "Analysis")


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


@functools.cache
def _entry_points(family: Family) -> dict[str, set[str]]:
    """Return the `module:Class` strings that installed packages give to each name."""
    found: dict[str, set[str]] = {}
    for point in entry_points(group=family.group):
        found.setdefault(point.name, set()).add(f"{point.module}:{point.attr}")
    return found


def names(family: Family) -> list[str]:
    """Return the names of all plug-ins that are installed, sorted."""
    return sorted({*own_plugins(family), *_entry_points(family)})


def plugin_class(family: Family, name: str) -> type:
    """Return the class of a plug-in by name, by `openbackdoor:NAME` (that package is then imported) or `module:Class`.

    Raises:
        RequestError: no such name (with the nearest one) or two of it, no such module or class, not of this family, or
            with the name of another class.
    """
    if name.startswith(RESERVED):
        return importlib.import_module(f"{family.package}.openbackdoor").bridged(name.removeprefix(RESERVED))
    own = own_plugins(family)
    targets = set(_entry_points(family).get(name, ()))
    if name in own:
        targets.add(f"{own[name].__module__}:{own[name].__qualname__}")
    if len(targets) > 1:
        free = "Give that of the package another name, in its class and its entry point."
        raise RequestError(
            f"Two {family.package} are named {name!r}: {' and '.join(sorted(targets))}.",
            free if name in own else "Write module:Class instead.",
        )
    target = targets.pop() if targets else name
    if ":" not in target:
        error = unknown(family.kind, name, names(family))
        if os.path.isfile(f"{name.removesuffix('.py')}.py"):
            remedy = f"Write {name.removesuffix('.py')}:Class for a class of the file here."
            raise RequestError(error.problem, remedy)
        raise error
    return _loaded(family, name, target)


def _loaded(family: Family, name: str, target: str) -> type:
    module_name, _, class_name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # the module is somebody else's: anything can go wrong in it
        remedy = _remedy(family, module_name, class_name, error)
        raise RequestError(f"{family.kind} {name!r} cannot be loaded: {error}.", remedy) from error
    base = base_class(family)
    if not (isinstance(found, type) and issubclass(found, base) and _decorated(found)):
        raise RequestError(
            f"{target} is no {family.kind}: it is not a dataclass derived from {family.package}.base.{family.base}.",
            "Derive from it and decorate the class with @dataclass(frozen=True).",
        )
    if found.name == base.name:
        raise RequestError(f"{target} has no name.", 'Write name = "..." in the class.')
    taken = _taken(family, found)
    if taken:  # the two would have one row in every table
        raise RequestError(
            f"{target} is named {found.name!r}, which is the name of {taken}.",
            f'Give it another name: name = "my-{found.name}" in the class.',
        )
    return found


def _taken(family: Family, cls: type) -> str:
    """Return the `module:Class` that has the name of a class by right, nothing where that is the class or nobody."""
    own = own_plugins(family).get(cls.name)
    if own is not None:
        return "" if own is cls else f"{own.__module__}:{own.__qualname__}"
    targets = sorted(_entry_points(family).get(cls.name, ()))
    return "" if any(_at(target) is cls for target in targets) else " and ".join(targets)


def _at(target: str) -> object:
    """Return what a package has registered, None where that cannot be imported."""
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name, None)
    except Exception:  # somebody else's module; whoever asks for it by its name is told
        return None


def _remedy(family: Family, module_name: str, class_name: str, error: Exception) -> str:
    """Return what to do about a `module:Class` that cannot be loaded."""
    path = PurePath(module_name)
    if module_name.endswith(".py") or len(path.parts) > 1:
        inside = not path.is_absolute() and ".." not in path.parts
        dotted = ".".join(path.with_suffix("").parts) if inside else path.stem
        where = "" if inside else f", and put the folder {path.parent} on PYTHONPATH"
        return f"Write {dotted}:{class_name or 'Class'}, a module and not a file{where}."
    if isinstance(error, ModuleNotFoundError) and (error.name or module_name) in (module_name, path.stem):
        return (
            f"Run it from the folder that holds {module_name.partition('.')[0]}.py, or put that folder on PYTHONPATH."
        )
    if isinstance(error, ImportError):
        return "Install what it imports, or mend the import."
    module, base = sys.modules.get(module_name), base_class(family)
    if isinstance(error, AttributeError) and module is not None and not hasattr(module, class_name):
        own = [name for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, base)]
        return unknown("class", class_name, (name for name in own if name != base.__name__)).remedy
    return "Write module:Class of something importable; --debug shows where it fails."


def _decorated(cls: type) -> bool:
    """Tell whether every annotated name of a class became a field: without the decorator its options would be none."""
    if "__dataclass_fields__" in vars(cls):
        return True
    return not inspect.get_annotations(cls) and "__init__" not in vars(cls)
