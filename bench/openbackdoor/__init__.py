"""The bridge to the real OpenBackdoor: the only folder that touches that package.

Importing this module imports the package `openbackdoor` where it can be found, beside transformers 5
under the named shims of `shims.py`; where it cannot, nothing happens until `load()` is called. Whether it can
be found is asked without importing anything by `bench.core.packages.installed("openbackdoor")`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from bench.core.errors import RequestError
from bench.core.packages import installed
from bench.core.registry import ATTACKERS, DEFENDERS, base_class, names, plugin_class
from bench.openbackdoor.shims import PACKAGE, optimizer, side_effects_undone, stand_ins

SOURCE = "git+https://github.com/thunlp/OpenBackdoor@1192ba303a7bc198adea10c292c7802c4960b307"
REMEDY = f'Run: pip install --no-deps "{PACKAGE} @ {SOURCE}".'

PUBLIC = {
    "Defender": "openbackdoor.defenders",
    "Poisoner": "openbackdoor.attackers.poisoners",
    "Victim": "openbackdoor.victims",
    "Trainer": "openbackdoor.trainers",
}


class OpenBackdoorMissing(RequestError, ImportError):
    """The package `openbackdoor` is not installed, or does not import."""


def load() -> ModuleType:
    """Import the package, if nobody has yet, make our base classes its subclasses, and return it.

    The root logger's handlers and level and the environment are afterwards as they were before.

    Raises:
        OpenBackdoorMissing: it is not installed, or does not import.
    """
    package = sys.modules.get(PACKAGE) or _imported()
    for name in ("defenders.base", "attackers.base"):
        # Those modules lie to the right of this one, so they are looked up, not imported; one that is
        # imported later looks for the package itself.
        adopt = getattr(sys.modules.get(name), "adopt_openbackdoor", None)
        if adopt is not None:
            adopt()
    return package


def _imported() -> ModuleType:
    if not installed(PACKAGE):
        raise OpenBackdoorMissing(f"The package {PACKAGE} is not installed.", REMEDY)
    before = set(sys.modules)
    try:
        with side_effects_undone():
            for needed in ("torch", "transformers", "sklearn", "pandas"):
                importlib.import_module(needed)  # before the stand-ins, which these are not to see
            # Loading its first model makes transformers replace its own entry in `sys.modules`: a name put
            # there earlier would be lost.
            _ = importlib.import_module("transformers").GPT2LMHeadModel
            with optimizer(), stand_ins():
                return importlib.import_module(PACKAGE)
    except Exception as error:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == PACKAGE:
                del sys.modules[name]  # no half of it stays behind
        remedy = f"Install what it lacks. {REMEDY}"
        raise OpenBackdoorMissing(f"The package {PACKAGE} does not import: {error}.", remedy) from error


@contextmanager
def registered(*plugins: type) -> Iterator[ModuleType]:
    """Make our plug-ins findable by its `load_defender` and `load_poisoner`, and restore its lists on leaving.

    Without arguments all installed plug-ins. While it lasts a plug-in of ours hides one of theirs of the same
    name (`strip`, `badnets` ...), and its `load_trainer` knows `bench`: the trainer of `bench.openbackdoor.trainer`
    that lets a defense of ours act at training. Yields the package.

    Raises:
        OpenBackdoorMissing: it is not installed, or does not import.
        RequestError: a class is neither a defender nor an attacker.
    """
    package = load()
    lists = {
        DEFENDERS: importlib.import_module(f"{PACKAGE}.defenders").DEFENDERS,
        ATTACKERS: importlib.import_module(f"{PACKAGE}.attackers.poisoners").POISONERS,
    }
    trainers = importlib.import_module(f"{PACKAGE}.trainers").TRAINERS
    if not plugins:
        plugins = tuple(plugin_class(family, name) for family in lists for name in names(family))
    additions = [(_family(plugin), plugin) for plugin in plugins]
    before = {family: dict(known) for family, known in lists.items()}
    trainers_before = dict(trainers)
    try:
        trainers["bench"] = importlib.import_module("bench.openbackdoor.trainer").trainer_class()
        for family, plugin in additions:
            lists[family][plugin.name.lower()] = plugin
        yield package
    finally:
        for family, known in lists.items():
            known.clear()
            known.update(before[family])
        trainers.clear()
        trainers.update(trainers_before)


def _family(plugin: type) -> Any:
    for family in (DEFENDERS, ATTACKERS):
        if isinstance(plugin, type) and issubclass(plugin, base_class(family)):
            return family
    raise RequestError(f"{plugin!r} is neither a defender nor an attacker.", "Register classes derived from our bases.")


def __getattr__(name: str) -> Any:
    """Return OpenBackdoor's base class of that name: Defender, Poisoner, Victim or Trainer.

    Raises:
        OpenBackdoorMissing: the package is not installed, or does not import.
    """
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    load()
    return getattr(importlib.import_module(PUBLIC[name]), name)


if installed(PACKAGE):
    load()
