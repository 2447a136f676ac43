"""Bringing the pinned files into a folder: each is there whole and as pinned, or not there at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.core.errors import DataError
from bench.data.catalog import dataset_names, dataset_spec
from bench.data.check import OK, state_of
from bench.data.http import Mirror, Unreachable
from bench.data.sources import PUBLISHED, NotThere, Source, made_here

PARTS = ".fetch"  # folder of what is under way, beside datasets/ and poison_data/
HERE, FETCHED, ABSENT, FAILED = "here", "fetched", "absent", "failed"


class Wanted(NamedTuple):
    """A pinned file: its path, its sha256, and the git blob id of the published original that may stand there."""

    path: str
    pin: str
    original: str | None


class Outcome(NamedTuple):
    """What became of a file: `here` already, `fetched`, `absent` from the source, or `failed`, with the reason."""

    path: str
    state: str
    reason: str = ""


def wanted_files(names: Iterable[str] = ()) -> list[Wanted]:
    """Return the pinned files of the named data sets, of all published ones by default, sorted by path.

    Raises:
        RequestError: no such data set.
    """
    pins: dict[str, str] = {}
    originals: dict[str, str] = {}
    for name in tuple(names) or dataset_names():
        spec = dataset_spec(name)
        if spec.files:
            pins.update(spec.pins)
            originals.update(spec.originals)
    return [Wanted(path, pins[path], originals.get(path)) for path in sorted(pins)]


def fetch(
    folder: Path, wanted: Iterable[Wanted], source: Source, report: Callable[[Outcome], None] = lambda outcome: None
) -> list[Outcome]:
    """Bring what is missing or altered in `folder` from a source, report each file as it is done, close the source.

    A file appears under its name only when its checksum is right (atomic rename); what broke off stays aside and is
    gone on with. An altered file is replaced only by the right one.

    Raises:
        DataError: the folder cannot be written, its disk is full, another fetch is at work, the server is out of reach.
    """
    outcomes = []
    with closing(source), _writable(folder):
        with _alone(folder):
            for item in wanted:
                outcome = _bring(folder, item, source)
                report(outcome)
                outcomes.append(outcome)
            _tidy(folder / PARTS)
    return outcomes


def _bring(folder: Path, item: Wanted, source: Source) -> Outcome:
    target, part = folder / item.path, folder / PARTS / item.path
    if state_of(target, item.pin, item.original) == OK:
        return Outcome(item.path, HERE)
    if isinstance(source, Mirror) and source.base == PUBLISHED and made_here(item.path):
        return Outcome(item.path, ABSENT, "made for this suite, not published there; take it with --from")
    part.parent.mkdir(parents=True, exist_ok=True)
    # What an earlier run left is gone on with once; if the whole is then wrong, the file is begun anew.
    for resumed in (True, False) if part.exists() else (False,):
        if state_of(part, item.pin, item.original) != OK:
            try:
                source.get(item.path, part)
            except Unreachable:
                raise
            except NotThere as error:
                part.unlink(missing_ok=True)
                return Outcome(item.path, ABSENT, error.problem)
            except DataError as error:
                return Outcome(item.path, FAILED, str(error))
        if state_of(part, item.pin, item.original) == OK:
            _install(part, target)
            return Outcome(item.path, FETCHED)
        size = part.stat().st_size
        part.unlink()
        if not resumed:
            break
    return Outcome(item.path, FAILED, f"what arrived, {size} bytes, is not the pinned file: its checksum differs")


def _install(part: Path, target: Path) -> None:
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, target)


def install_bytes(folder: Path, path: str, content: bytes) -> None:
    """Write a file under its name in a folder of data, whole or not at all.

    Raises:
        DataError: the folder cannot be written, its disk is full, or another fetch is at work.
    """
    with _writable(folder):
        with _alone(folder):
            part = folder / PARTS / path
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            _install(part, folder / path)
            _tidy(folder / PARTS)


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DataError(
            f"The data folder {folder} cannot be written: {error.strerror or error}.",
            ("Free disk space" if full else "Name a folder that can be") + " and run the same command again: "
            "what has arrived is kept.",
        ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second fetch out of the folder; the lock goes with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # not on Windows: two fetches at once then only cost a download
        yield
        return
    with (folder / PARTS / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"Another fetch is at work in {folder}.", "Wait for it.") from None
        yield


def _tidy(parts: Path) -> None:
    """Remove the empty folders of what is done, and the lock."""
    for path in sorted(parts.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    if [path.name for path in parts.iterdir()] == ["lock"]:
        (parts / "lock").unlink()
        parts.rmdir()
