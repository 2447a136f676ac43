"""What numba compiles for UMAP, kept in the user's cache: a process would compile for longer than it clusters."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from bench.core.paths import cache_folder

PACKAGES = ("umap", "pynndescent")  # whose functions are kept


def keep_compiled() -> None:
    """Let the functions of PACKAGES that numba has not compiled yet look in the cache first, and write to it.

    The code is the same wherever it comes from. numba keeps it by source file, processor and types; the folder is one
    for each version of numba. Where it cannot be written, functions are compiled as ever.
    """
    import numba

    before = numba.config.CACHE_DIR
    try:
        if not before:
            numba.config.CACHE_DIR = str(cache_folder() / f"numba-{numba.__version__}")
        for function in _uncached():
            function.enable_caching()
    except (OSError, RuntimeError):  # there is no home, or numba finds no folder that it could write to
        return
    except (ImportError, AttributeError):  # a numba whose insides are named otherwise: it compiles as ever
        return
    finally:
        numba.config.CACHE_DIR = before


def _uncached() -> Iterator[Any]:
    """Yield the compiled functions of PACKAGES that are not kept, from the modules that have been imported."""
    from numba.core.caching import NullCache
    from numba.core.dispatcher import Dispatcher

    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in PACKAGES]
    for module in modules:
        for value in list(vars(module).values()):
            if isinstance(value, Dispatcher) and isinstance(value._cache, NullCache) and not value.signatures:
                yield value
