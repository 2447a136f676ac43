"""The store: a folder per stage, drafted aside, manifest last, renamed into place.

What is there is complete. Several processes may share one store: who builds a stage holds its claim, and where two
build one all the same, the first rename wins and the other draft is thrown away. What is read is checked against its
sha256; what is found altered is set aside, and can be built again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError
from bench.core.seeding import digest
from bench.engine.locks import Claim
from bench.engine.network_files import ask_again, steadily

MANIFEST = "manifest.json"
WEIGHTS_FILE = "weights.safetensors"
LOCKS, DRAFTS, DAMAGED, JOURNAL = ".locks", ".drafts", ".damaged", ".journal"
RUN = "run"  # the lock that every run holds, shared
KEY = re.compile(r"[0-9a-f]{40}")
# Full, over quota, past the limit on file sizes, read-only, not ours, broken.
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class StoreError(BenchError):
    """The store holds something that it should not."""


class UnwritableError(StoreError):
    """The disk is full or read-only: nothing can go on, and nothing is wrong with what is there."""


class LostError(StoreError):
    """A stage that was finished is not there any more, or not whole: `key` has to be built again."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem, "Run the same command again.")
        self.key = key

    def __reduce__(self) -> tuple:
        return LostError, (self.key, self.problem)


class BusyError(StoreError):
    """Another worker is building this stage."""


def unwritable(what: str, error: OSError) -> UnwritableError:
    """Return the error for something that cannot be written."""
    reason = error.strerror or str(error)
    return UnwritableError(f"{what} cannot be written: {reason}.", "Free disk space or name another --out.")


def write_json(path: Path, content: Mapping[str, Any], indent: int | None = 1) -> None:
    """Write JSON so that the file is there whole or not at all, whenever a process dies.

    After a power cut it may be empty: that is noticed when it is read. Waiting for the disk costs 10 to 50 ms a file.

    Raises:
        UnwritableError: the disk is full or read-only.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        # Half a character, as in the name of a folder that is no UTF-8, becomes what JSON writes for it: its escape.
        with draft.open("w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(json.dumps(content, indent=indent, sort_keys=True, ensure_ascii=False, allow_nan=False))
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise unwritable(path.name, error) from error


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Store:
    """The finished stages under one folder."""

    def __init__(self, root: Path, read_only: bool = False) -> None:
        self.root, self.read_only = root, read_only

    def folder(self, key: str) -> Path:
        """Return where the stage of this key is or will be.

        Raises:
            StoreError: the key is not one: it would name a folder elsewhere.
        """
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise StoreError(f"{key!r} is no key of a stage: 40 hexadecimal digits are.", "Delete the file with it.")
        return self.root / key[:2] / key

    def claim(self, key: str, shared: bool = False) -> Claim:
        """Return the claim on a stage: exclusive to build it, shared to read weights that must not go meanwhile."""
        self.folder(key)
        return Claim(self.root / LOCKS / key, shared)

    def manifest(self, key: str) -> dict[str, Any] | None:
        """Return the manifest of a finished stage, None where it is not finished; a damaged stage is set aside."""
        path = self.folder(key) / MANIFEST
        try:
            content = steadily(path.read_bytes)
        except (FileNotFoundError, NotADirectoryError):
            return None
        manifest = _unsealed(content)
        if manifest is None:
            self.set_aside(key)
        return manifest

    def look(self, key: str) -> dict[str, Any] | None:
        """Return what `manifest` does, after asking the server again where the stage seems not to be there."""
        manifest = self.manifest(key)
        if manifest is None:
            folder = self.folder(key)
            ask_again(self.root, folder.parent, folder)
            manifest = self.manifest(key)
        return manifest

    def has(self, key: str, weights: bool = False) -> bool:
        """Tell whether a stage is finished, and still holds its weights if they are asked for."""
        manifest = self.manifest(key)
        return manifest is not None and not (weights and manifest.get("released"))

    def open(self, key: str, weights: bool = False) -> Path:
        """Return the folder of a finished stage after checking every file against its sha256.

        Raises:
            LostError: not finished, weights asked for and released, or a file missing or altered: it is set aside.
        """
        manifest = self.look(key)
        if manifest is None:
            raise LostError(key, f"Stage {key} is not in the store.")
        if weights and manifest.get("released"):
            raise LostError(key, f"The weights of stage {key} were released.")
        for name in manifest["files"]:
            if not self._whole(key, name, manifest):
                return self._gone(key, name, manifest, weights)
        return self.folder(key)

    def file(self, key: str, name: str) -> Path:
        """Return one file of a finished stage after checking it against its sha256.

        Raises:
            LostError: the stage is not finished or holds no such file, or the file is missing or altered.
        """
        manifest = self.look(key)
        if manifest is None or name not in manifest["files"]:
            raise LostError(key, f"{name} of stage {key} is not in the store.")
        if not self._whole(key, name, manifest):
            self._gone(key, name, manifest, False)
        return self.folder(key) / name

    def _whole(self, key: str, name: str, manifest: Mapping[str, Any]) -> bool:
        try:
            return steadily(lambda: file_sha256(self.folder(key) / name)) == manifest["files"][name]
        except OSError:
            return False

    def _gone(self, key: str, name: str, manifest: Mapping[str, Any], weights: bool) -> Path:
        if self.manifest(key) != manifest:  # somebody released or rebuilt it meanwhile
            return self.open(key, weights)
        self.set_aside(key)
        raise LostError(key, f"{name} of stage {key} is missing or was altered.")

    def set_aside(self, key: str) -> None:
        """Move a damaged stage out of the way; `bench clean` frees it."""
        if self.read_only:
            return
        aside = self.root / DAMAGED / f"{key}.{uuid.uuid4().hex}"
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            self.folder(key).rename(aside)
        except FileNotFoundError:
            return  # another process did it
        except OSError as error:
            raise unwritable(f"The store {self.root}", error) from error
        self._note(key, "?", "damaged", 0.0)

    @contextlib.contextmanager
    def draft(self, key: str) -> Iterator[Path]:
        """Give an empty folder beside the store; it is thrown away if the block raises or never calls `finish`."""
        aside = self.root / DRAFTS / f"{key}.{uuid.uuid4().hex}"
        try:
            aside.mkdir(parents=True)
        except OSError as error:
            raise unwritable(f"The store {self.root}", error) from error
        try:
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def forget_drafts(self, key: str) -> None:
        """Delete what dead workers drafted of a stage; only its claimant may."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.root / DRAFTS) as drafts:
            for draft in drafts:
                if draft.name.startswith(f"{key}."):
                    shutil.rmtree(draft.path, ignore_errors=True)

    def finish(self, key: str, aside: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Seal a draft with its manifest and move it into place; an equal stage already there is kept."""
        # NFS keeps a file that is deleted while it is open under a name with a dot.
        paths = sorted(path for path in aside.iterdir() if not path.name.startswith("."))
        sealed = {**manifest, "files": {path.name: file_sha256(path) for path in paths}}
        _write_sealed(aside / MANIFEST, sealed)
        kind, seconds = manifest.get("kind", "?"), manifest.get("seconds", 0.0)
        old = self.look(key)
        if old is not None and not old.get("released"):
            self._note(key, kind, "discarded", seconds)
            return old
        kept = None if old is None else self._give_back_weights(key, aside, old, sealed)
        first = kept is None and self._move(key, aside)
        self._note(key, kind, "discarded" if first else "built", seconds)
        return first or kept or sealed

    def _give_back_weights(self, key: str, aside: Path, old: dict, new: dict) -> dict[str, Any] | None:
        """Put the weights back into a stage that had released them, None where the rest of it is not whole."""
        whole = all(self._whole(key, name, old) for name in old["files"])
        if not whole or {*old["files"], WEIGHTS_FILE} != set(new["files"]):
            self.set_aside(key)
            return None
        files = {**old["files"], WEIGHTS_FILE: new["files"][WEIGHTS_FILE]}
        full = {name: value for name, value in old.items() if name != "released"} | {"files": files}
        (aside / WEIGHTS_FILE).replace(self.folder(key) / WEIGHTS_FILE)
        _write_sealed(self.folder(key) / MANIFEST, full)
        return full

    def _move(self, key: str, aside: Path, again: bool = True) -> dict[str, Any] | None:
        """Move a draft into place; return the manifest of another process that was first, None where none was."""
        folder = self.folder(key)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside.rename(folder)
            return None
        except OSError as error:
            first = self.look(key)
            if first is not None:
                return first
            if not again or not folder.is_dir():
                raise unwritable(f"Stage {key}", error) from error
        self.set_aside(key)  # it has lost its manifest: nothing that anybody could go on from
        return self._move(key, aside, again=False)

    def release(self, key: str) -> int:
        """Delete the weights of a stage, keep the rest; return the bytes freed, 0 while another process uses it."""
        with self.claim(key) as free:  # so that nobody who reads them loses them
            manifest, path = self.manifest(key), self.folder(key) / WEIGHTS_FILE
            if not free or manifest is None:
                return 0
            size = path.stat().st_size if path.exists() else 0
            if WEIGHTS_FILE in manifest["files"]:
                files = {name: sha256 for name, sha256 in manifest["files"].items() if name != WEIGHTS_FILE}
                _write_sealed(self.folder(key) / MANIFEST, {**manifest, "files": files, "released": [WEIGHTS_FILE]})
            path.unlink(missing_ok=True)  # also what one that died between the two left behind
            return size

    def _note(self, key: str, kind: str, what: str, seconds: float) -> None:
        """Append a line to this machine's journal: what became of a stage. Nothing but estimates rests on it."""
        line = {"key": key, "kind": kind, "what": what, "seconds": seconds, "at": time.time(), "pid": os.getpid()}
        name = re.sub(r"[^\w.-]", "_", socket.gethostname()) or "machine"
        with contextlib.suppress(OSError):
            (self.root / JOURNAL).mkdir(exist_ok=True)
            file = os.open(self.root / JOURNAL / f"{name}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(file, (json.dumps(line) + "\n").encode())
            finally:
                os.close(file)


def _write_sealed(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest with the digest of its own content."""
    plain = {name: value for name, value in manifest.items() if name != "seal"}
    write_json(path, {**plain, "seal": digest("manifest", plain)}, indent=None)


def _unsealed(content: bytes) -> dict[str, Any] | None:
    """Return the manifest that was written, None where it is not as it was written, or names files elsewhere."""
    try:
        manifest = json.loads(content)
        seal = manifest.pop("seal")
        if seal != digest("manifest", manifest) or any(Path(name).name != name for name in manifest["files"]):
            return None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest
