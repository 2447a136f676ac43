"""Claims and the store where processes are on several machines: nothing rests on what NFS lacks.

There is no second machine and no NFS here: processes pretend (tests/engine/hosts.py), and what an NFS client does to a
file (a stale handle, a name remembered as missing) is raised where the system would raise it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import random
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from bench.engine import locks, network_files
from bench.engine.locks import Claim, owner_of
from bench.engine.progress import at_work
from bench.engine.store import Store
from tests.engine.cheap import drive
from tests.engine.hosts import drive_on
from tests.engine.test_faults import journal, records
from tests.engine.test_store import KEY, build

SEEDS = 6  # 60 cells
PATIENCE = 60.0
FAR = {"machine": "far", "host": "far", "pid": 1, "token": "t"}


def start(context: Any, machines: dict[str, float], *arguments: Any) -> dict[str, list[Any]]:
    """Start two processes on each machine, whose clock is so many seconds ahead."""
    found: dict[str, list[Any]] = {name: [] for name in machines}
    for name, ahead in 2 * tuple(machines.items()):
        found[name].append(context.Process(target=drive_on, args=(name, ahead, *arguments)))
        found[name][-1].start()
    return found


def building(out: Path, name: str) -> bool:
    """Tell whether somebody of a machine holds a claim."""
    folder, found = out / "store" / ".locks", []
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError, ValueError):
            found.append(json.loads(path.read_text())["host"])
    return name in found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["locks of each machine", "no locks"])
def test_two_machines_share_a_run_and_one_takes_over_what_the_other_was_killed_in(tmp_path: Path, kind: str) -> None:
    drive(str(tmp_path / "alone"), "inline", SEEDS)
    own_locks, out = None if kind == "no locks" else str(tmp_path / "locks"), tmp_path / "out"
    (tmp_path / "locks").mkdir()
    rng, deadline = random.Random(0), time.monotonic() + PATIENCE
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.engine.hosts"])
    all_here = context.Barrier(4)
    near, far = start(context, {"near": 0.0, "far": 3600.0}, own_locks, str(out), SEEDS, all_here).values()
    while not (out / "store" / ".journal" / "far.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    for process in far:
        while process.is_alive() and not building(out, "far"):
            time.sleep(0.001)
        time.sleep(0.01 * rng.random())
        process.kill()
        process.join()
    assert -signal.SIGKILL in [process.exitcode for process in far]
    for process in near:
        process.join(PATIENCE)
        assert process.exitcode == 0
    assert records(out) == records(tmp_path / "alone")
    assert max(journal(out, "built").values()) == 1
    assert {path.name for path in (out / "store" / ".journal").iterdir()} >= {"far.jsonl", "near.jsonl"}
    assert drive(str(out), "inline", SEEDS).to_execute == 0


def test_a_process_that_has_just_come_takes_over_what_has_been_silent_by_the_clock_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each job of Slurm is a new process: it cannot wait to see whether the owner gives a sign.
    path, real = tmp_path / "lock", time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)  # this machine's clock says nothing
    for seconds, silent in ((2 * locks.SILENT - 5, False), (2 * locks.SILENT + 5, True)):
        locks._seen.clear()
        path.write_text(json.dumps(FAR))
        os.utime(path, (real() - seconds, real() - seconds))
        claim = Claim(path)
        assert claim.take() is silent
        claim.drop()
    assert not list(tmp_path.iterdir())


def test_who_is_at_work_far_away_is_seen_whatever_the_clock_here_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    path, real = store.claim(KEY).path, time.time
    path.parent.mkdir()
    path.write_text(json.dumps(FAR))
    for ahead in (-3600, 3600):
        monkeypatch.setattr(time, "time", lambda it=ahead: real() + it)
        assert owner_of(path) == FAR and at_work(store)  # although its lock on the whole run does not reach here
    os.utime(path, (real() - 2 * locks.SILENT, real() - 2 * locks.SILENT))
    assert owner_of(path) is None and not at_work(store)
    assert [entry.name for entry in path.parent.iterdir()] == [KEY]


def test_a_claim_whose_file_goes_stale_is_tried_again_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, flock, before = [3], fcntl.flock, len(os.listdir("/proc/self/fd"))

    def stale(file: int, kind: int) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ESTALE, "Stale file handle")
        flock(file, kind)

    monkeypatch.setattr(fcntl, "flock", stale)
    with Claim(tmp_path / "lock") as free:
        assert free
    left[0] = 1000
    with pytest.raises(OSError, match="Stale file handle"):
        Claim(tmp_path / "lock").take()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_stage_is_found_that_this_machine_remembers_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    build(store)
    remembered, scandir, read = {store.folder(KEY)}, os.scandir, Path.read_bytes

    def reading(path: Path) -> bytes:
        if path.parent in remembered:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return read(path)

    def opening(path: Path) -> Any:
        remembered.discard(store.folder(KEY) if path == store.folder(KEY).parent else None)
        return scandir(path)

    monkeypatch.setattr(Path, "read_bytes", reading)
    monkeypatch.setattr(os, "scandir", opening)
    assert not store.has(KEY)  # a look that may be wrong, and costs nothing
    assert (store.open(KEY) / "data.txt").is_file()
    assert store.has(KEY)


def test_a_file_that_another_machine_replaces_meanwhile_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, left, read = Store(tmp_path), [2], Path.read_bytes
    build(store)

    def stale(path: Path) -> bytes:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", stale)
    assert store.open(KEY) == store.folder(KEY) and left[0] < 0
    left[0] = network_files.TRIES + 1
    with pytest.raises(OSError, match="Stale"):
        store.manifest(KEY)


def test_a_stage_that_has_lost_its_manifest_is_set_aside_and_built_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build(store, "first")
    (store.folder(KEY) / "manifest.json").unlink()
    assert not store.has(KEY)
    build(store, "second")
    assert (store.open(KEY) / "data.txt").read_text() == "second"
    assert [path.name.partition(".")[0] for path in (tmp_path / ".damaged").iterdir()] == [KEY]
