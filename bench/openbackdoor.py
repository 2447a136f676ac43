"""The bridge to the real OpenBackdoor: the only file that touches that package.

Importing this module imports the package `openbackdoor` where it can be found, beside transformers 5
under the named shims below; where it cannot, nothing happens until `load()` is called. Whether it can
be found is asked without importing anything by `bench.core.packages.installed("openbackdoor")`.

Shims, in place only while the package is being imported:
  `transformers.AdamW`: removed in transformers 5; stands for torch's, with the defaults of the removed one.
  Optional packages that it imports eagerly and that are absent: stand-ins that refuse on use.
  `...poisoners.utils.style`: its installer leaves this folder out for want of an `__init__.py`; likewise.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from bench.core.errors import CellError, RequestError
from bench.core.packages import installed
from bench.core.registry import ATTACKERS, DEFENDERS, base_class, names, plugin_class

PACKAGE = "openbackdoor"
SOURCE = "git+https://github.com/thunlp/OpenBackdoor@1192ba303a7bc198adea10c292c7802c4960b307"
REMEDY = f'Run: pip install --no-deps "{PACKAGE} @ {SOURCE}".'

# What it imports eagerly without needing it to be imported, by the name on the package index.
OPTIONAL = {
    "language-tool-python": ("language_tool_python",),
    "sentence-transformers": ("sentence_transformers",),
    "jsonlines": ("jsonlines",),
    "strsimpy": ("strsimpy", "strsimpy.levenshtein"),
    "OpenAttack": ("OpenAttack",),
    "umap-learn": ("umap",),
    "hdbscan": ("hdbscan",),
    "matplotlib": ("matplotlib", "matplotlib.pyplot"),
}
STYLE = ("attackers", "poisoners", "utils", "style", "inference_utils")
PUBLIC = {
    "Defender": "openbackdoor.defenders",
    "Poisoner": "openbackdoor.attackers.poisoners",
    "Victim": "openbackdoor.victims",
    "Trainer": "openbackdoor.trainers",
}


class OpenBackdoorMissing(RequestError, ImportError):
    """The package `openbackdoor` is not installed, or does not import."""


class Missing:
    """Stands for anything inside an absent package: attributes may be named, nothing may be called."""

    def __init__(self, name: str, remedy: str) -> None:
        self._name = name
        self._remedy = remedy

    def __getattr__(self, name: str) -> Missing:
        if name.startswith("__"):
            raise AttributeError(name)
        return Missing(f"{self._name}.{name}", self._remedy)

    def __call__(self, *arguments: Any, **options: Any) -> NoReturn:
        raise CellError(f"OpenBackdoor uses {self._name} here, and it is not installed.", self._remedy)


class StandIn(ModuleType):
    """A module in the place of an absent one; it has a `__spec__`, since importers look for one."""

    def __init__(self, name: str, remedy: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None, is_package=True)
        self.__path__: list[str] = []
        self._remedy = remedy

    def __getattr__(self, name: str) -> Missing:
        if name.startswith("__"):
            raise AttributeError(name)
        return Missing(f"{self.__name__}.{name}", self._remedy)


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
        with _side_effects_undone():
            for needed in ("torch", "transformers", "sklearn", "pandas"):
                importlib.import_module(needed)  # before the stand-ins, which these are not to see
            # Loading its first model makes transformers replace its own entry in `sys.modules`: a name put
            # there earlier would be lost.
            _ = importlib.import_module("transformers").GPT2LMHeadModel
            with _optimizer(), _stand_ins():
                return importlib.import_module(PACKAGE)
    except Exception as error:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == PACKAGE:
                del sys.modules[name]  # no half of it stays behind
        remedy = f"Install what it lacks. {REMEDY}"
        raise OpenBackdoorMissing(f"The package {PACKAGE} does not import: {error}.", remedy) from error


@contextmanager
def _side_effects_undone() -> Iterator[None]:
    """Give back the root logger's handlers and level, the environment, and the warning filters."""
    root = logging.getLogger()
    handlers, level, environment = root.handlers, root.level, dict(os.environ)
    kept = list(handlers)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its `is "dev"` must not fail a run where warnings are errors
            yield
    finally:
        handlers[:] = kept
        root.handlers = handlers
        root.setLevel(level)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


@contextmanager
def _optimizer() -> Iterator[None]:
    import torch

    transformers = sys.modules["transformers"]

    class AdamW(torch.optim.AdamW):
        """torch's AdamW with the defaults of the removed `transformers.AdamW`: eps 1e-6, no weight decay."""

        def __init__(
            self,
            params: Iterable,
            lr: float = 1e-3,
            betas: tuple[float, float] = (0.9, 0.999),
            eps: float = 1e-6,
            weight_decay: float = 0.0,
        ) -> None:
            super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    absent = not hasattr(transformers, "AdamW")
    if absent:
        transformers.AdamW = AdamW
    try:
        yield
    finally:
        if absent:
            del transformers.AdamW


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Put stand-ins for what is absent into `sys.modules`, and take them out again.

    Left there, they would answer `find_spec` and pass for installed packages.
    """
    added = dict(_needed_stand_ins())
    hidden = {name: sys.modules[name] for name in added if name in sys.modules}
    sys.modules.update(added)
    try:
        yield
    finally:
        for name, module in added.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
        sys.modules.update(hidden)


def _needed_stand_ins() -> Iterator[tuple[str, StandIn]]:
    for requirement, modules in OPTIONAL.items():
        if not installed(modules[0]):
            for name in modules:
                yield name, StandIn(name, f"Run: pip install {requirement}.")
    spec = find_spec(PACKAGE)
    root = Path(spec.origin).parent if spec and spec.origin else Path()
    if not root.joinpath(*STYLE).with_suffix(".py").is_file():
        remedy = "Install a checkout: git clone, then pip install --no-deps -e FOLDER; its installer leaves this out."
        for depth in range(3, len(STYLE) + 1):
            name = ".".join((PACKAGE, *STYLE[:depth]))
            yield name, StandIn(name, remedy)


@contextmanager
def registered(*plugins: type) -> Iterator[ModuleType]:
    """Make our plug-ins findable by its `load_defender` and `load_poisoner`, and restore its lists on leaving.

    Without arguments all installed plug-ins. While it lasts a plug-in of ours hides one of theirs of the same
    name (`strip`, `badnets` ...). Yields the package.

    Raises:
        OpenBackdoorMissing: it is not installed, or does not import.
        RequestError: a class is neither a defender nor an attacker.
    """
    package = load()
    lists = {
        DEFENDERS: importlib.import_module(f"{PACKAGE}.defenders").DEFENDERS,
        ATTACKERS: importlib.import_module(f"{PACKAGE}.attackers.poisoners").POISONERS,
    }
    if not plugins:
        plugins = tuple(plugin_class(family, name) for family in lists for name in names(family))
    additions = [(_family(plugin), plugin) for plugin in plugins]
    before = {family: dict(known) for family, known in lists.items()}
    try:
        for family, plugin in additions:
            lists[family][plugin.name.lower()] = plugin
        yield package
    finally:
        for family, known in lists.items():
            known.clear()
            known.update(before[family])


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
