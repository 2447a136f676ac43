"""Claims and clean-up where two runs or a look from outside come between: nothing is lost, nothing stays behind."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from bench.core.errors import RequestError
from bench.engine import locks, preflight, progress
from bench.engine.executors.inline import InlineExecutor
from bench.engine.executors.local import LocalExecutor
from bench.engine.locks import Claim
from bench.engine.runner import Runner
from bench.engine.stages import with_ancestors
from bench.engine.store import WEIGHTS_FILE, BusyError, Store, UnwritableError
from bench.engine.work import Machine, execute
from tests.engine.cheap import WORKERS, build, cheap_plan, executor_of
from tests.engine.test_faults import journal


def test_a_stage_whose_parents_weights_are_in_other_hands_waits(tmp_path: Path) -> None:
    # They could be released between the look at their manifest and the reading of the file.
    plan, root = cheap_plan(tmp_path / "model", 1, ("badnets",)), tmp_path / "store"
    evaluate = next(stage for stage in plan.unique() if stage.kind == "evaluate")
    for stage in with_ancestors([evaluate])[:-1]:
        execute(stage.payload(), root, Machine(None), WORKERS)
    with Store(root).claim(evaluate.parents["victim"].key) as free:
        assert free
        with pytest.raises(BusyError, match="in other hands"):
            execute(evaluate.payload(), root, Machine(None), WORKERS)
    assert execute(evaluate.payload(), root, Machine(None), WORKERS).now
    assert not list((root / ".locks").iterdir())


def test_weights_that_another_run_has_released_meanwhile_are_not_made_again_unasked(tmp_path: Path) -> None:
    # A worker may begin long after its run has asked: by then another run has built all that wanted the weights.
    plan, root = cheap_plan(tmp_path / "model", 1, ("badnets",)), tmp_path / "store"
    train = next(stage for stage in plan.unique() if stage.kind == "train")
    for stage in with_ancestors([train]):
        execute(stage.payload(), root, Machine(None), WORKERS)
    assert Store(root).release(train.key)
    with pytest.raises(BusyError, match="released meanwhile"):
        execute({**train.payload(), "again": False}, root, Machine(None), WORKERS)
    assert execute({**train.payload(), "again": True}, root, Machine(None), WORKERS).now


def test_a_claim_outlasts_a_glance_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "GLANCE", 0.3)
    glance, path = Claim(tmp_path / "claim"), tmp_path / "claim"
    assert glance.take()  # as `bench status` does, for an instant
    threading.Timer(0.1, glance.drop).start()
    with Claim(path, shared=True) as free:
        assert free
    with Claim(path) as free, Claim(path) as again:
        assert free and not again


def test_a_claim_that_was_not_free_leaves_the_holders_signs_of_life_alone(tmp_path: Path) -> None:
    held, other = Claim(tmp_path / "claim"), Claim(tmp_path / "claim")
    assert held.take() and not other.take()
    other.drop()
    assert held.path in locks._beating
    held.drop()
    assert held.path not in locks._beating


def test_a_claim_that_cannot_be_signed_keeps_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(5):
        with pytest.raises(OSError, match="No space left"):
            Claim(tmp_path / "claim").take()
    assert len(os.listdir("/proc/self/fd")) == before


def test_weights_that_a_release_left_behind_as_it_died_go_with_the_next(tmp_path: Path) -> None:
    store, key = Store(tmp_path), "ab" * 20
    with store.draft(key) as aside:
        (aside / WEIGHTS_FILE).write_bytes(b"w" * 100)
        store.finish(key, aside, {"kind": "train", "seconds": 1.0})
    assert store.release(key) == 100
    (store.folder(key) / WEIGHTS_FILE).write_bytes(b"w" * 100)  # killed between the manifest and the deletion
    assert store.release(key) == 100 and not (store.folder(key) / WEIGHTS_FILE).exists()
    assert store.release(key) == 0


def test_runs_that_start_at_once_all_note_what_they_were_asked_for(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=progress.write_request, args=(tmp_path, "demo", {"seeds": [seed]}))
        for seed in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    noted = sorted(request["changes"]["seeds"][0] for request in progress.read_requests(tmp_path))
    assert noted == list(range(12))


def _limited(out: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    with pytest.raises(RequestError, match="cannot be written"):
        preflight.check_folder(Path(out))


def test_a_folder_without_room_keeps_no_probe(tmp_path: Path) -> None:
    process = get_context("forkserver").Process(target=_limited, args=(str(tmp_path / "out"),))
    process.start()
    process.join(60)
    assert process.exitcode == 0 and not list((tmp_path / "out").iterdir())


def test_what_is_running_ends_before_a_run_stops_over_a_record_that_cannot_be_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "records").write_text("in the way")
    runner = Runner(cheap_plan(tmp_path / "model", 2), out, {})
    executor = executor_of("3", out / "store")
    started: list[str] = []
    runner.listen = lambda event, value: started.append(value.key) if event == "start" else None
    try:
        with pytest.raises(UnwritableError, match="records cannot be written"):
            runner.run(executor, runner.todo())
        assert sorted(journal(out, "built")) == sorted(started)
        assert not list((out / "store" / ".drafts").iterdir()) and not list((out / "store" / ".locks").iterdir())
    finally:
        executor.close()


class _DiesAsItIsRead:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple:
        return os._exit, (7,)

    def __call__(self, *arguments: object) -> list:
        """Never called."""
        return []


def test_a_worker_that_dies_as_it_starts_is_a_failed_record_that_says_how(tmp_path: Path) -> None:
    executor = LocalExecutor(tmp_path / "store", Machine(None), 1, build=_DiesAsItIsRead())
    try:
        executor.submit(({"key": "a" * 40, "kind": "train"},))
        outcomes, until = [], time.monotonic() + 60
        while not outcomes and time.monotonic() < until:
            outcomes = list(executor.finished(1.0))
        assert [outcome.error["type"] for outcome in outcomes] == ["WorkerDied"]
        assert "3 times: exit code 7." in outcomes[0].error["message"]
    finally:
        executor.close()


def test_a_run_alone_leaves_no_claim_and_no_draft(tmp_path: Path) -> None:
    out = tmp_path / "out"
    runner = Runner(cheap_plan(tmp_path / "model", 1), out, {})
    runner.run(InlineExecutor(out / "store", Machine(None), build), runner.todo())
    assert not list((out / "store" / ".drafts").iterdir()) and not list((out / "store" / ".locks").iterdir())
