"""The file that a plug-in from elsewhere is written in: another content of it makes other stages."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Mapping

from bench.core.errors import CellError, RequestError

PIN = "module file"  # its name among the pins of a part


def pinned_code(cls: type) -> dict[str, str]:
    """Return the pin of the file that a class was imported from; nothing for one that no file holds."""
    found = _imported(cls)
    return {} if found is None else {PIN: found}


def check_on_disk(cls: type, source: str) -> None:
    """Raise RequestError where the file of a class no longer says what this process has imported."""
    if _imported(cls) != _on_disk(cls):
        raise RequestError(
            f"The file of {source!r} has changed since this process imported it.",
            "Start Python again, or reload the module with importlib.reload.",
        )


def check_planned(cls: type, source: str, pins: Mapping[str, str]) -> None:
    """Raise CellError where a worker has imported another content of a class's file than was planned with."""
    if PIN in pins and pins[PIN] != _imported(cls):
        raise CellError(f"The file of {source!r} has changed since the run began.", "Run the same command again.")


@functools.cache
def _imported(cls: type) -> str | None:
    # Read once per class, at its first use: a later content of the file is not what runs.
    return _on_disk(cls)


def _on_disk(cls: type) -> str | None:
    try:
        with open(sys.modules[cls.__module__].__file__, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (KeyError, AttributeError, TypeError, OSError):  # a class of a notebook, or of an archive
        return None
