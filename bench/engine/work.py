"""A stage that is built in a worker: it reads its parents' folders and writes its own."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from bench.core import memory
from bench.core.errors import BenchError
from bench.core.seeding import derived_seed
from bench.engine.artifacts import Numbered, read_examples, read_meta
from bench.engine.stages import VERSION, WEIGHTS
from bench.engine.store import UNWRITABLE, BusyError, Store, unwritable, write_json

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # of what cannot be written, what no reader meets


@dataclass(frozen=True)
class Machine:
    """Where a stage runs, where the data lie, and by which loop it trains: ours but where `bench speed` compares."""

    data_dir: Path | None
    device: str = "cpu"
    deterministic: bool = False
    memory: float | None = None  # bytes of a GPU that one worker may take; None: all of it
    loop: Literal["ours", "reference", "published"] = "ours"
    devices: tuple[str, ...] = ()  # of this worker, `device` first: a sharded training spreads over them


class Built(NamedTuple):
    """A finished stage: its manifest, and whether it was built now or found in the store."""

    manifest: dict[str, Any]
    now: bool


class Job:
    """One stage being built: its content, its parents' folders, and an empty folder to fill."""

    def __init__(self, payload: Mapping[str, Any], store: Store, aside: Path, machine: Machine) -> None:
        self.payload = payload
        self.kind: str = payload["kind"]
        self.content: Mapping[str, Any] = payload["content"]
        self.identity: str = payload["identity"]
        self.parent_payloads = payload["parent_payloads"]
        self.parents = {
            role: store.open(key, weights=self.parent_payloads[role]["kind"] in WEIGHTS)
            for role, key in payload["parents"].items()
        }
        self.store, self.aside, self.machine = store, aside, machine

    def seed(self, name: str) -> int:
        """Return the seed of one named use in this stage."""
        return derived_seed(self.identity, name)

    def examples(self, role: str, file: str) -> Numbered:
        """Return examples that a parent wrote."""
        return read_examples(self.parents[role] / f"{file}.jsonl")

    def meta(self, role: str) -> dict[str, Any]:
        """Return what a parent says of itself."""
        return read_meta(self.parents[role])


Worker = Callable[[Job], dict[str, Any]]
Workers = Mapping[str, Worker]
NONE: Workers = MappingProxyType({})


def execute(payload: Mapping[str, Any], root: Path, machine: Machine, workers: Workers = NONE) -> Built:
    """Build one stage unless it is in the store; `workers` stand in for what does a kind of stage.

    Raises:
        BusyError: another worker is building it.
        LostError: a parent is not in the store, or damaged.
        UnwritableError: the disk is full or read-only.
        BenchError: what the stage itself reports, with its remedy.
    """
    store, key, kind = Store(root), payload["key"], payload["kind"]
    with claimed(store, payload), writing(store):
        manifest = standing(store, payload)
        if manifest is not None:
            return Built(manifest, False)
        store.forget_drafts(key)
        started = time.perf_counter()
        with store.draft(key) as aside:
            work = workers.get(kind) or _worker(kind)
            job = Job(payload, store, aside, machine)
            meta, cut = memory.with_smaller_batches(lambda: work(job), lambda: _emptied(aside))
            write_json(aside / "meta.json", meta if cut == 1 else {**meta, "batches_cut": cut})
            return Built(store.finish(key, aside, manifest_of(payload, machine, time.perf_counter() - started)), True)


def standing(store: Store, payload: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of a stage that is in the store with all that is needed of it, else None.

    Raises:
        BusyError: another run has built the stage and released its weights since this one asked for it (`again` false
            in the payload), so that who asked has to look again whether anything still needs them.
    """
    manifest = store.look(payload["key"])
    if manifest is None or payload["kind"] not in WEIGHTS or not manifest.get("released"):
        return manifest
    if not payload.get("again", True):
        raise BusyError(f"Stage {payload['key']} was built and its weights were released meanwhile.", "Look again.")
    return None


def manifest_of(payload: Mapping[str, Any], machine: Machine, seconds: float) -> dict[str, Any]:
    """Return what a stage's manifest says besides the digests of its files."""
    return {
        "kind": payload["kind"],
        "version": VERSION[payload["kind"]],
        "content": payload["content"],
        "parents": dict(payload["parents"]),
        "seconds": seconds,
        "device": machine.device,
    }


@contextlib.contextmanager
def claimed(store: Store, payload: Mapping[str, Any]) -> Iterator[None]:
    """Hold the claim on a stage, and keep the weights of its parents from being released meanwhile."""
    with contextlib.ExitStack() as held:
        with writing(store):
            free = held.enter_context(store.claim(payload["key"]))
            for role, key in payload["parents"].items():
                if payload["parent_payloads"][role]["kind"] in WEIGHTS:
                    # Not free: another run is building or releasing them. Without the claim they could go meanwhile.
                    free = held.enter_context(store.claim(key, shared=True)) and free
        if not free:
            raise BusyError(f"Stage {payload['key']}, or what it is made from, is in other hands.", "Wait for it.")
        yield


@contextlib.contextmanager
def writing(store: Store) -> Iterator[None]:
    """Turn what a full or read-only disk raises, from whichever library, into an error that says so.

    What is not known to be of the store, a model or a cache elsewhere say, is left as it is: it fails its stage alone.
    """
    try:
        yield
    except BenchError:
        raise
    except Exception as error:
        found = error if isinstance(error, OSError) else _of_the_system(error)
        if found is None or not _is_of(store, found):
            raise
        raise unwritable(f"The store {store.root}", found) from error


def _of_the_system(error: Exception) -> OSError | None:
    """Return the system's error that a library in Rust, safetensors or tokenizers, tells of, None where it does not."""
    found = re.search(r'\(os error (\d+)\)(?: at path "(.*)")?', str(error))
    return found and OSError(int(found[1]), os.strerror(int(found[1])), found[2])


def _is_of(store: Store, error: OSError) -> bool:
    """Tell whether an error of the system is of the store: it names a file in it, or none and only writing raises it.

    Of an error without a name that reading raises too, the file may be a model's that this user may not read.
    """
    names = [name for name in (error.filename, error.filename2) if isinstance(name, (str, bytes, os.PathLike))]
    if not names:
        return error.errno in FULL
    inside = any(Path(os.fsdecode(name)).resolve().is_relative_to(store.root.resolve()) for name in names)
    return inside and error.errno in UNWRITABLE


def _emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _worker(kind: str) -> Worker:
    from bench.engine import work_data

    if kind in work_data.WORKERS:
        return work_data.WORKERS[kind]
    from bench.engine import work_victim
    from bench.engine.bounded import bounded
    from bench.engine.repeatable import repeatable

    def work(job: Job) -> dict[str, Any]:
        machine = job.machine
        with repeatable(machine.device, machine.deterministic), bounded(machine.device, machine.memory):
            return work_victim.WORKERS[kind](job)

    return work
