"""The model that a worker process loaded last, kept so that the next stage of the same model need not load it again."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Hashable
from typing import Any

SHARE = 0.25  # of the machine's memory, above which a model is not kept
TABLE = 100  # entries: a longer table of a tokenizer holds words and numbers, which nobody can change in place

_on = False
_last: tuple[Hashable, Any] | None = None


def keep_models() -> None:
    """Keep models in this process from now on: for workers, which build one stage of a model after the other."""
    global _on
    _on = True


def forget() -> None:
    """Keep nothing, and let go of what is kept."""
    global _on, _last
    _on, _last = False, None


def loaded(key: Hashable, load: Callable[[], tuple[Any, Any, set[str]]]) -> tuple[Any, Any, set[str]]:
    """Return tokenizer, model and the names of the parameters that were drawn, as `load` returns them.

    A copy of what was kept if `key`, which names the files, is the same; the caller draws over what was drawn.
    """
    global _last
    if not _on:
        return load()
    if _last is not None and _last[0] == key:
        return _copied(_last[1])
    _last = None  # before the next one takes its memory
    found = load()
    if _may_be_kept(found[1], found[2]):
        _last = (key, _copied(found))
    return found


def _copied(found: tuple[Any, Any, set[str]]) -> tuple[Any, Any, set[str]]:
    """Return a copy; the tokenizer's long tables are copied at once, not entry by entry.

    One of 30,000 words takes longer otherwise than the weights of MiniLM.
    """
    tables = [value for value in vars(found[0]).values() if isinstance(value, dict) and len(value) > TABLE]
    return copy.deepcopy(found, {id(table): table.copy() for table in tables})


def _may_be_kept(model: Any, drawn: set[str]) -> bool:
    """Tell whether a model is small enough, and all that was drawn in it are linear layers: those are drawn anew."""
    import torch

    modules = dict(model.named_modules())
    linear = all(isinstance(modules.get(name.rpartition(".")[0]), torch.nn.Linear) for name in drawn)
    size = sum(value.numel() * value.element_size() for value in model.parameters())
    return linear and size < SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
