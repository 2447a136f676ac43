"""Processes killed at any moment, bytes flipped in the store: every record is there in the end, and the same."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from bench.engine.locks import owner_of
from bench.engine.record_files import comparable
from tests.engine.cheap import drive

SEEDS = 12  # 120 cells
KILLS = 50
RAY_SEEDS, RAY_KILLS = 6, 10  # 60 cells; a new process of Ray costs more than a second of CPU
PATIENCE = 120.0


def records(out: Path) -> dict[str, Any]:
    found = [json.loads(path.read_text()) for path in (out / "records").glob("*.json")]
    return {record["key"]: comparable(record) for record in found}


def journal(out: Path, what: str) -> Counter[str]:
    return Counter(line["key"] for line in lines(out) if line["what"] == what)


def lines(out: Path) -> list[dict[str, Any]]:
    text = "".join(path.read_text() for path in (out / "store" / ".journal").iterdir())
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all runs: they share what passes for a model."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def undisturbed(base: Path) -> dict[str, Any]:
    """Return the records of a run that nothing befell."""
    report = drive(str(base / "undisturbed"), "inline", SEEDS)
    assert report.done == 10 * SEEDS and not report.failed
    return records(base / "undisturbed")


class Killer:
    """Starts runs and kills them, or the workers in the middle of a stage."""

    def __init__(self, out: Path, seeds: int = SEEDS) -> None:
        self.out, self.seeds, self.kills, self.rng = out, seeds, 0, random.Random(0)
        self.context = get_context("forkserver")
        self.context.set_forkserver_preload(["tests.engine.cheap"])
        self.hit: Counter[str] = Counter()

    def run(self, engine: str) -> Any:
        """Start a run in a process of its own."""
        process = self.context.Process(target=drive, args=(str(self.out), engine, self.seeds))
        process.start()
        return process

    def end(self, process: Any) -> None:
        """Kill a run, and count it unless it had ended."""
        process.kill()
        process.join()
        self.kills += process.exitcode == -signal.SIGKILL

    def runs(self, engine: str, count: int) -> None:
        """Kill whole runs, each at a random moment after it has begun to write."""
        for _ in range(count):
            before, process, deadline = self._stages(), self.run(engine), time.monotonic() + PATIENCE
            while process.is_alive() and self._stages() <= before:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            time.sleep(0.05 * self.rng.random())
            self.end(process)

    def _stages(self) -> int:
        return len(list((self.out / "store").glob("??/*")))

    def workers(self, engine: str, count: int) -> None:
        """Kill workers of one run while they build, none more than twice over one stage; then the run."""
        process, deadline = self.run(engine), time.monotonic() + PATIENCE
        for _ in range(count):
            while process.is_alive() and not self._worker():
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(0.02 * self.rng.random())
        self.end(process)

    def actors(self, count: int) -> None:
        """Kill workers of a run on Ray, each at a random moment of its life after its first stage; then the run."""
        process, deadline, killed = self.run("ray"), time.monotonic() + PATIENCE, {os.getpid()}
        while self.kills < count and process.is_alive():
            assert time.monotonic() < deadline
            built = {line["pid"] for line in lines(self.out)} - {*killed, process.pid} if self._stages() else set()
            time.sleep(0.002 + 0.02 * self.rng.random())
            for pid in self.rng.sample(sorted(built), min(1, len(built))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
                    self.kills += 1
        self.end(process)
        while left := _mentioning(f"bench-ray-{process.pid}-"):  # its cluster notices that it is gone
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        for folder in Path("/tmp").glob(f"bench-ray-{process.pid}-*"):  # nobody was left to delete it
            shutil.rmtree(folder)

    def _worker(self) -> bool:
        folder = self.out / "store" / ".locks"
        locks = [lock for lock in (folder.iterdir() if folder.is_dir() else ()) if self.hit[lock.name] < 2]
        self.rng.shuffle(locks)
        for lock in locks:
            with contextlib.suppress(OSError, KeyError):
                os.kill((owner_of(lock) or {})["pid"], signal.SIGKILL)
                self.hit[lock.name] += 1
                self.kills += 1
                return True
        return False


def _mentioning(text: str) -> list[str]:
    """Return the command lines of all processes that mention a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            found += [command] * (text in command)
    return found


@pytest.mark.slow
def test_after_fifty_kills_every_record_is_there_equal_and_no_stage_was_finished_twice(
    base: Path, undisturbed: dict[str, Any]
) -> None:
    killer, outs = Killer(base), []
    while killer.kills < KILLS:  # a machine that is fast may be done with a grid before so many
        assert len(outs) < 5
        killer.out = base / f"killed {len(outs)}"
        outs.append(killer.out)
        killer.runs("inline", 10)
        killer.workers("3", 14)
        killer.runs("3", 10)
        killer.workers("4", 20)
    for out in outs:
        report = drive(str(out), "inline", SEEDS)
        assert report.done == 10 * SEEDS and not report.failed
        assert records(out) == undisturbed
        assert max(journal(out, "built").values()) == 1 and not journal(out, "discarded")
        assert drive(str(out), "inline", SEEDS).to_execute == 0


@pytest.mark.slow
def test_ray_with_its_workers_and_then_itself_killed_loses_nothing_and_finishes_nothing_twice(
    base: Path, undisturbed: dict[str, Any]
) -> None:
    pytest.importorskip("ray")
    killer = Killer(base / "ray", RAY_SEEDS)
    killer.actors(RAY_KILLS)
    assert killer.kills == RAY_KILLS + 1  # the grid was not finished before
    report = drive(str(killer.out), "inline", RAY_SEEDS)
    assert report.done == 10 * RAY_SEEDS and not report.failed
    found = records(killer.out)
    assert found == {key: undisturbed[key] for key in found} and len(found) == 10 * RAY_SEEDS
    built = journal(killer.out, "built")
    assert max(built.values()) == 1 and not journal(killer.out, "discarded")
    assert len({line["pid"] for line in lines(killer.out)}) > RAY_KILLS
    assert drive(str(killer.out), "inline", RAY_SEEDS).to_execute == 0


def test_two_runs_at_once_share_the_work_and_build_nothing_twice(tmp_path: Path) -> None:
    killer = Killer(tmp_path / "out")
    processes = [killer.run("2"), killer.run("inline"), killer.run("2")]
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0
    assert len(records(killer.out)) == 10 * SEEDS
    assert max(journal(killer.out, "built").values()) == 1 and not journal(killer.out, "discarded")
    assert len({line["pid"] for line in lines(killer.out)}) > 2


def test_flipped_bytes_are_noticed_as_they_are_read_and_what_they_spoilt_is_built_again(
    base: Path, undisturbed: dict[str, Any]
) -> None:
    out, rng = base / "flipped", random.Random(1)
    drive(str(out), "inline", SEEDS)
    for path in (out / "records").iterdir():  # the records have to be made again from the store
        path.unlink()
    files = sorted(path for path in (out / "store").glob("??/*/*") if path.stat().st_size)
    for path in rng.sample(files, 60):
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    report = drive(str(out), "2", SEEDS)
    assert not report.failed and report.executed > 10
    assert records(out) == undisturbed
    assert len(list((out / "store" / ".damaged").iterdir())) > 10


@pytest.mark.parametrize(("engine", "order"), [("1", None), ("4", 1), ("inline", 2)])
def test_workers_and_order_change_no_record(
    base: Path, undisturbed: dict[str, Any], engine: str, order: int | None
) -> None:
    drive(str(base / f"by {engine}"), engine, SEEDS, order)
    assert records(base / f"by {engine}") == undisturbed
