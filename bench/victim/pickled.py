"""Models that were published before safetensors: weights as `pytorch_model.bin`, for paraphrasers only and on demand.

They are read by `torch.load(weights_only=True)`, which restores tensors and runs no code of the file.
"""

from __future__ import annotations

import json
from pathlib import Path

from bench.core.errors import CellError
from bench.core.seeding import digest
from bench.victim.hub import snapshot
from bench.victim.loading import USED, file_sha256, quiet
from bench.victim.spec import ModelSpec

WEIGHTS = "pytorch_model.bin"


def pickled_folder(spec: ModelSpec) -> Path:
    """Return the folder of a model with `pytorch_model.bin`, fetched from the hub where it is named by an id.

    Raises:
        CellError: it is not there, has no such file, or asks to run code of its own.
    """
    folder = Path(spec.path) if spec.path else _fetched(spec)
    if not (folder / "config.json").is_file() or not (folder / WEIGHTS).is_file():
        raise CellError(f"Model {spec.name!r} has no config.json with {WEIGHTS} in {str(folder)!r}.", "Name another.")
    if json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map"):
        raise CellError(f"Model {spec.name!r} asks to run code of its own; that is never done.", "Name another.")
    return folder


def pickled_identity(spec: ModelSpec) -> str:
    """Return the commit of a model of the hub, or the digest of a local folder's files."""
    if not spec.path:
        return str(spec.revision)
    used = sorted(item for item in Path(spec.path).iterdir() if item.suffix in (*USED, ".bin"))
    return "files:" + digest([[item.name, file_sha256(item)] for item in used])


def _fetched(spec: ModelSpec) -> Path:
    wanted = [WEIGHTS, *(f"*{suffix}" for suffix in USED if suffix != ".safetensors")]
    with quiet():
        try:
            return snapshot(str(spec.hub), spec.revision, wanted)
        except OSError as error:
            raise CellError(f"The hub did not give the model {spec.name!r}: {error}.", "Try again.") from error
