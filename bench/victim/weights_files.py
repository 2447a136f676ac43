"""Weights that are on the disk: whole, or refused before anything runs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from bench.core.errors import CellError
from bench.core.paths import is_file, json_object

INDEX = "model.safetensors.index.json"  # which of its parts holds which tensor


def holds_weights(folder: Path) -> bool:
    """Tell whether a folder holds weights in safetensors: one file, or all parts that an index names."""
    if is_file(folder / "model.safetensors"):
        return True
    named = (json_object(folder / INDEX) or {}).get("weight_map")
    parts = named.values() if isinstance(named, dict) else ()
    return all(is_file(folder / str(part)) for part in parts) and any(folder.glob("*.safetensors"))


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


def check_backbone(name: str, folder: Path, prefix: str, missing: Collection[str], reshaped: Collection[str]) -> None:
    """Check that the weights of a model hold its whole backbone; a pooler may be missing, any other head is none of it.

    Args:
        prefix: what the backbone's tensors are named below, as in `bert.encoder...`.
        missing: the tensors of the classifier that the weights lack.
        reshaped: those that they hold in another shape than config.json says.

    Raises:
        CellError: a part of the backbone would be random.
    """
    # Checkpoints of masked language models have no pooler; one of another shape belongs to another config.json.
    lost = {tensor for tensor in missing if not tensor.startswith(f"{prefix}.pooler.")} | set(reshaped)
    lost = sorted(tensor for tensor in lost if tensor.startswith(f"{prefix}."))
    if lost:
        raise CellError(
            f"The weights of model {name!r} in {str(folder)!r} lack a part of its backbone, or hold it in another shape"
            f" than its config.json says, and it would be random: {lost[0]}, the first of {len(lost)}.",
            "Name a folder with all weights of the model, named as transformers names them, and their own config.json.",
        )
