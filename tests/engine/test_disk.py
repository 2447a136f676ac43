"""A disk that fills up or cannot be written: a clear error, nothing half-written, and the run goes on once it can."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from bench.engine.executors import Outcome, Task
from bench.engine.executors.attempt import outcome
from bench.engine.executors.inline import InlineExecutor
from bench.engine.locks import Claim, owner_of
from bench.engine.runner import Runner
from bench.engine.store import Store, UnwritableError
from bench.engine.work import Job, Machine, execute
from tests.engine.cheap import NO_OPS, cheap_plan, drive
from tests.engine.test_faults import records

SEEDS = 1


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of its own with room for some of the stages."""
    folder = tmp_path / "out"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system can only be mounted as root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


@pytest.mark.parametrize("engine", ["inline", "2"])
def test_a_full_disk_stops_the_run_and_spoils_nothing(tmp_path: Path, small: Path, engine: str) -> None:
    drive(str(tmp_path / "alone"), "inline", SEEDS)
    with pytest.raises(UnwritableError, match="No space left on device"):
        drive(str(small), engine, SEEDS)
    store = Store(small / "store", read_only=True)
    stages = [path.parent.name for path in store.root.glob("??/*/manifest.json")]
    assert stages and all(store.open(key) for key in stages)  # each whole, by its sha256
    alone, some = records(tmp_path / "alone"), records(small)
    assert len(some) < len(alone) and some == {key: alone[key] for key in some}
    remount(small, "size=20m")
    assert drive(str(small), engine, SEEDS).done == 10 * SEEDS
    assert records(small) == alone


def test_a_store_that_turns_read_only_stops_the_run(tmp_path: Path, small: Path) -> None:
    remount(small, "size=20m")
    drive(str(small), "inline", SEEDS)
    before = records(small)
    for path in (small / "records").iterdir():
        path.unlink()
    remount(small, "ro")
    with pytest.raises(UnwritableError, match="Read-only file system"):
        drive(str(small), "inline", SEEDS)
    remount(small, "rw")
    assert drive(str(small), "inline", SEEDS).executed == 0
    assert records(small) == before


def test_a_limit_on_the_size_of_files_is_met_with_the_same_error(tmp_path: Path) -> None:
    context = get_context("forkserver")
    process = context.Process(target=_limited, args=(str(tmp_path / "alone"),))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert not list((tmp_path / "alone" / "store" / ".drafts").iterdir())


def _limited(out: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))  # weights have 2000 bytes
    with pytest.raises(UnwritableError, match="File too large"):
        drive(out, "inline", SEEDS)


def _training(train: Callable[[Job], dict]) -> Callable[..., list[Outcome]]:
    """Return what builds cheap stages, but for trainings: those do as they are told."""

    def build(task: Task, root: Path, machine: Machine) -> list[Outcome]:
        workers = {**NO_OPS, "train": train}
        return [outcome(payload, lambda it=payload: execute(it, root, machine, workers)) for payload in task]

    return build


def _raising(number: int, where: str | None) -> Callable[[Job], dict]:
    def train(job: Job) -> dict:
        name = None if where is None else where.format(root=job.store.root, aside=job.aside)
        raise OSError(number, os.strerror(number), name)

    return train


def _read_by_tokenizers(job: Job) -> dict:
    from tokenizers import Tokenizer

    return Tokenizer.from_file("/proc/self/mem")  # may be opened, and not be read: input/output error


def _unreadable_to_tokenizers(job: Job) -> dict:
    raise Exception("Permission denied (os error 13)")  # as its `from_file` says it; root may read everything


def _saved_elsewhere(job: Job) -> dict:
    from safetensors.numpy import save_file

    return save_file({"a": np.zeros(4)}, "/sys/x.safetensors")  # where nobody can make a file


def _limited_to(size: int, where: str) -> Callable[[Job], dict]:
    def train(job: Job) -> dict:
        from safetensors.numpy import save_file

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            return save_file({"a": np.zeros(4 * size)}, where.format(root=job.store.root, aside=job.aside))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return train


@pytest.mark.parametrize(
    ("train", "stops"),
    [
        (_raising(errno.EACCES, "{aside}/x"), "Permission denied"),
        (_raising(errno.EACCES, "{root}/../cache/x"), ""),
        (_raising(errno.EACCES, "/no/where"), ""),
        (_raising(errno.EACCES, None), ""),
        (_raising(errno.EIO, None), ""),
        (_raising(errno.EDQUOT, None), "quota exceeded"),
        (_raising(errno.ENOSPC, None), "No space left on device"),
        (_read_by_tokenizers, ""),
        (_unreadable_to_tokenizers, ""),
        (_saved_elsewhere, ""),
        (_limited_to(1000, "{aside}/weights.safetensors"), "File too large"),
    ],
)
def test_what_may_be_of_a_file_elsewhere_fails_its_cell_and_what_is_of_the_store_the_run(
    tmp_path: Path, train: Callable[[Job], dict], stops: str
) -> None:
    out = tmp_path / "out"
    runner = Runner(cheap_plan(tmp_path / "model", SEEDS), out, {})
    executor = InlineExecutor(out / "store", Machine(None), _training(train))
    if stops:
        with pytest.raises(UnwritableError, match=f"store cannot be written: .*{stops}"):
            runner.run(executor, runner.todo())
        assert not (out / "records").exists()
        return
    report = runner.run(executor, runner.todo())
    assert len(report.failed) == 10 * SEEDS and not report.done
    errors = [json.loads(path.read_text())["error"] for path in (out / "records").iterdir()]
    assert {error["stage"] for error in errors} == {"train"}
    assert all("cannot be written" not in error["message"] for error in errors)


def test_a_disk_that_is_full_as_weights_are_released_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(claim: Claim) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device", str(claim.path))

    release = Store.release

    def released(store: Store, key: str) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(Claim, "take", full)
            return release(store, key)

    monkeypatch.setattr(Store, "release", released)
    with pytest.raises(UnwritableError, match="No space left on device"):
        drive(str(tmp_path / "out"), "inline", SEEDS)


def test_a_claim_is_free_the_moment_its_owner_is_dead_and_names_its_owner_before(tmp_path: Path) -> None:
    context = get_context("forkserver")
    there, here = context.Pipe()
    process = context.Process(target=_hold, args=(str(tmp_path / "lock"), there))
    process.start()
    assert here.recv() is True
    claim = Claim(tmp_path / "lock")
    assert not claim.take()
    assert owner_of(tmp_path / "lock")["pid"] == process.pid
    process.kill()
    process.join()
    assert claim.take() and owner_of(tmp_path / "lock")["pid"] == os.getpid()
    claim.drop()
    assert owner_of(tmp_path / "lock") is None and not (tmp_path / "lock").exists()
    there.close()
    here.close()


def _hold(path: str, connection: object) -> None:
    claim = Claim(Path(path))
    connection.send(claim.take())
    connection.recv()


def test_a_claim_of_another_machine_holds_while_it_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bench.engine.locks as locks

    path, now = tmp_path / "lock", [1000.0]
    path.write_text('{"machine": "another", "host": "far", "pid": 1, "token": "t"}')
    monkeypatch.setattr(locks.time, "monotonic", lambda: now[0])
    assert not Claim(path).take()  # seen for the first time: it may be alive
    now[0] += locks.SILENT - 1
    os.utime(path, (time.time() - 1, time.time() - 1))  # a sign of life
    assert not Claim(path).take()
    now[0] += locks.SILENT - 1
    assert not Claim(path).take()
    now[0] += 2
    claim = Claim(path)
    assert claim.take()  # nothing for SILENT seconds: taken over
    claim.drop()


def test_weights_that_are_being_read_are_not_released(tmp_path: Path) -> None:
    store, key = Store(tmp_path), "ab" * 20
    with store.draft(key) as aside:
        (aside / "weights.safetensors").write_bytes(b"w" * 100)
        store.finish(key, aside, {"kind": "train", "seconds": 1.0})
    with store.claim(key, shared=True) as reading:
        assert reading and store.release(key) == 0 and store.has(key, weights=True)
    assert store.release(key) == 100
