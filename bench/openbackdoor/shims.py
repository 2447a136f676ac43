"""The named shims under which OpenBackdoor imports beside transformers 5, in place only while it is being imported.

`transformers.AdamW`: removed in transformers 5; stands for torch's, with the defaults of the removed one.
Optional packages that it imports eagerly and that are absent: stand-ins that refuse on use.
`...poisoners.utils.style`: its installer leaves this folder out for want of an `__init__.py`; likewise.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from bench.core.errors import CellError
from bench.core.packages import installed

PACKAGE = "openbackdoor"

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


@contextmanager
def side_effects_undone() -> Iterator[None]:
    """Give back the root logger's handlers and level, the environment, Python's random state and warning filters."""
    root = logging.getLogger()
    handlers, level, environment = root.handlers, root.level, dict(os.environ)
    kept, drawn = list(handlers), random.getstate()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its `is "dev"` must not fail a run where warnings are errors
            yield
    finally:
        handlers[:] = kept
        root.handlers = handlers
        root.setLevel(level)
        random.setstate(drawn)  # importing what it needs draws from it
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


@contextmanager
def optimizer() -> Iterator[None]:
    """Put a `transformers.AdamW` where there is none, and take it away again."""
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
def stand_ins() -> Iterator[None]:
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
