"""The store: a folder per stage, drafted aside, manifest last, renamed into place.

What is there is complete. Several processes may share one store: of two that build the same stage,
the first rename wins and the other draft is thrown away.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError

MANIFEST = "manifest.json"
WEIGHTS_FILE = "weights.safetensors"


class StoreError(BenchError):
    """The store cannot be written or holds something altered."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON so that the file is there whole or not at all."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StoreError(
            f"{path.name} cannot be written: {error.strerror}.", "Free disk space or name another --out."
        ) from error


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Store:
    """The finished stages under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Return where the stage of this key is or will be."""
        return self.root / key[:2] / key

    def manifest(self, key: str) -> dict[str, Any] | None:
        """Return the manifest of a finished stage, None where it is not finished."""
        try:
            return json.loads((self.folder(key) / MANIFEST).read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise StoreError(f"The manifest of stage {key} is damaged.", "Delete that folder and run again.") from error

    def has(self, key: str, weights: bool = False) -> bool:
        """Tell whether a stage is finished, and still holds its weights if they are asked for."""
        manifest = self.manifest(key)
        return manifest is not None and not (weights and manifest.get("released"))

    def open(self, key: str) -> Path:
        """Return the folder of a finished stage after checking every file against its sha256.

        Raises:
            StoreError: not finished, weights released, or a file is missing or altered.
        """
        manifest, folder = self.manifest(key), self.folder(key)
        if manifest is None:
            raise StoreError(f"Stage {key} is not in the store.", "Run the same command again.")
        for name, expected in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                raise StoreError(f"{name} of stage {key} is missing.", "Delete that folder and run again.")
            if file_sha256(path) != expected:
                raise StoreError(f"{name} of stage {key} was altered.", "Delete that folder and run again.")
        return folder

    @contextlib.contextmanager
    def draft(self, key: str) -> Iterator[Path]:
        """Give an empty folder beside the store; it is thrown away if the block raises or never calls `finish`."""
        aside = self.root / ".drafts" / f"{key}.{uuid.uuid4().hex}"
        try:
            aside.mkdir(parents=True)
        except OSError as error:
            raise StoreError(
                f"The store {self.root} cannot be written: {error.strerror}.", "Name another --out."
            ) from error
        try:
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def finish(self, key: str, aside: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Seal a draft with its manifest and move it into place; an equal stage already there is kept."""
        sealed = {**manifest, "files": {path.name: file_sha256(path) for path in sorted(aside.iterdir())}}
        write_json(aside / MANIFEST, sealed)
        folder = self.folder(key)
        old = self.manifest(key)
        if old is not None and not old.get("released"):
            return old
        folder.parent.mkdir(parents=True, exist_ok=True)
        if old is not None:  # its weights were released: the rebuilt stage takes its place
            folder.rename(aside.with_name(f"{aside.name}.old"))
            shutil.rmtree(aside.with_name(f"{aside.name}.old"), ignore_errors=True)
        try:
            aside.rename(folder)
        except OSError as error:
            if self.manifest(key) is None:  # not another process that was first
                reason = f"Stage {key} could not be moved into the store: {error.strerror}."
                raise StoreError(reason, "Check that --out is writable.") from error
        return sealed

    def release(self, key: str) -> int:
        """Delete the weights of a stage, keep the rest; return the bytes freed."""
        manifest, path = self.manifest(key), self.folder(key) / WEIGHTS_FILE
        if manifest is None or WEIGHTS_FILE not in manifest["files"]:
            return 0
        size = path.stat().st_size if path.exists() else 0
        files = {name: digest for name, digest in manifest["files"].items() if name != WEIGHTS_FILE}
        write_json(self.folder(key) / MANIFEST, {**manifest, "files": files, "released": [WEIGHTS_FILE]})
        path.unlink(missing_ok=True)
        return size
