"""Which optional packages are here, asked without importing them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec

from bench.core.errors import RequestError

OPENBACKDOOR_VARIABLE = "BENCH_OPENBACKDOOR"


def installed(package: str) -> bool:
    """Tell whether a top-level package or module of this name can be found; nothing is imported.

    A bare folder of that name, which Python would take for a namespace package, does not count.
    """
    if package in sys.modules:
        return sys.modules[package] is not None
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def openbackdoor_wanted(environment: Mapping[str, str]) -> bool:
    """Tell whether BENCH_OPENBACKDOOR asks for the real package: 1 yes; 0, empty or unset no.

    Raises:
        RequestError: another value.
    """
    value = environment.get(OPENBACKDOOR_VARIABLE, "").strip()
    if value not in ("", "0", "1"):
        raise RequestError(f"{OPENBACKDOOR_VARIABLE} is {value!r}: it is 0 or 1.", "Set it to 1 or unset it.")
    return value == "1"
