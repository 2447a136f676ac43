"""Weights that are on the disk: whole, or refused before anything runs."""

from __future__ import annotations

from pathlib import Path

from bench.core.errors import CellError


def check_whole(name: str, folder: Path) -> None:
    """Check that each safetensors file of a model is as long as its header says: a download may have broken off.

    Raises:
        CellError: one is cut off, damaged or cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "np"):
                pass
        except (SafetensorError, OSError) as error:
            raise CellError(
                f"{path.name} of model {name!r} in {str(folder)!r} is damaged or not whole: {str(error).rstrip('.')}.",
                "Get it again from where it is published.",
            ) from error
