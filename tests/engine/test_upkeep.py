"""How far a run is and what it can spare: read off a folder that a run was killed in."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.commands.clean import clean_folder
from bench.commands.status import _print, plan_into, show_status
from bench.core.errors import RequestError
from bench.data import dataset_spec
from bench.data.files import git_blob
from bench.engine.progress import Progress, _remaining, claims, look, read_requests, write_request
from bench.engine.runner import Runner
from bench.engine.stages import Stage
from bench.engine.store import Store, StoreError
from bench.engine.upkeep import LEFTOVERS, OLD, SPOILT, UNFINISHED, WEIGHT, free, freeable, run_claim
from bench.engine.work import Machine, manifest_of
from tests.engine.cheap import build, cheap_plan, drive
from tests.engine.conftest import grid_file, tiny  # noqa: F401  (fixtures)
from tests.engine.test_faults import records

ROOT = Path(__file__).resolve().parents[2]
OLD_KEY = "0" * 40


def interrupted(out: Path, stages: int) -> Runner:
    """Run the cheap plan until so many stages are built."""
    from bench.engine.executors.inline import InlineExecutor

    runner = Runner(cheap_plan(out.parent / "model", 1), out, {}, listener=lambda event, value: stop(event))

    def stop(event: str) -> None:
        if event == "done" and runner.report.executed == stages:
            runner.stop()

    runner.run(InlineExecutor(out / "store", Machine(None), build), runner.todo())
    return runner


def test_progress_counts_what_is_done_failed_and_left(tmp_path: Path) -> None:
    runner = interrupted(tmp_path / "out", 12)
    assert runner.report.stopped and 0 < runner.report.done < 10 and runner.report.left == 10 - runner.report.done
    progress = look(runner.plan, tmp_path / "out")
    assert (progress.cells, progress.done, progress.failed) == (10, runner.report.done, {})
    assert not progress.at_work and progress.seconds is None
    built = {path.parent.name for path in (tmp_path / "out" / "store").glob("??/*/manifest.json")}
    assert {stage.key for stage in progress.left} == {stage.key for stage in runner.plan.unique()} - built
    with run_claim(tmp_path / "out", shared=True), Store(tmp_path / "out" / "store").claim(progress.left[0].key):
        progress = look(runner.plan, tmp_path / "out")
    assert progress.at_work and progress.seconds is not None and progress.seconds >= 0
    ((stage, owner),) = progress.running
    assert stage is not None and owner["pid"] == os.getpid()


def test_the_members_of_a_gang_are_the_work_of_one_worker() -> None:
    stages = [Stage("train", {"seed": seed}, {}) for seed in range(32)]
    here = {"host": "one", "pid": 7, "since": time.time() - 80}
    progress = Progress(at_work=True, running=[(stage, here) for stage in stages[:16]], left=stages)
    # Of 32 shares of 10 s one worker has had 80 s.
    assert _remaining(progress, {"train": 10.0}) == pytest.approx(32 * 10 - 80, abs=1)
    progress.running += [(stage, {**here, "pid": 8}) for stage in stages[16:]]
    assert _remaining(progress, {"train": 10.0}) == pytest.approx((32 * 10 - 2 * 80) / 2, abs=1)


def test_who_reads_a_stage_does_not_build_it_and_workers_are_counted_not_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, said = tmp_path / "out", io.StringIO()
    plan = interrupted(out, 12).plan
    store = Store(out / "store")
    read, *built = look(plan, out).left[:3]
    with store.claim(read.key, shared=True), store.claim(built[0].key), store.claim(built[1].key):
        progress = look(plan, out)
    assert [stage for stage, _ in progress.running] == built and progress.workers == 1
    _print(replace(progress, seconds=60.0), Console(file=said, width=200))
    assert said.getvalue().count("running: ") == 2 and said.getvalue().endswith("with one worker at work now\n")

    def finished(of: Store) -> Iterator[tuple[str, dict]]:
        """Yield the claims as they are once a stage was finished and is read, with the name of a builder who died."""
        with store.draft(read.key) as aside:
            store.finish(read.key, aside, {"kind": read.kind})
        (store.root / ".locks" / read.key).write_text('{"machine": "one", "token": "t", "pid": 7}')
        with store.claim(read.key, shared=True):
            yield from claims(of)

    monkeypatch.setattr("bench.engine.progress.claims", finished)
    assert look(plan, out).running == []


def test_clean_frees_what_nothing_needs_and_no_more(tmp_path: Path) -> None:
    out = tmp_path / "out"
    runner = interrupted(out, 12)
    store = Store(out / "store")
    (out / "store" / ".drafts" / f"{OLD_KEY}.dead").mkdir()
    (out / "store" / ".drafts" / f"{OLD_KEY}.dead" / "half").write_bytes(b"x" * 700)
    with store.draft(OLD_KEY) as aside:
        (aside / "data").write_bytes(b"x" * 500)
        store.finish(OLD_KEY, aside, {"kind": "load"})
    (out / "records" / f".{OLD_KEY}.json.dead").write_text("half")
    before = records(out)
    found = freeable(out, runner.plan)
    why = Counter(item.why for item in found)
    assert why[LEFTOVERS] == 2 and why[OLD] == 1 and why[UNFINISHED] > 0 and not why[SPOILT]
    assert next(item.size for item in found if item.path.name.endswith(".dead") and item.path.is_dir()) == 700
    for item in found:
        if item.why != UNFINISHED:
            free(out, item)
    assert {item.why for item in freeable(out, runner.plan)} == {UNFINISHED}
    assert not store.has(OLD_KEY) and records(out) == before
    # What an unfinished run goes on from is still there: nothing is built twice.
    report = drive(str(out), "inline", 1)
    assert report.done == 10 and report.executed == len(runner.plan.unique()) - 12


@pytest.mark.parametrize("away", ["model", "bank", "lm"])
def test_what_is_made_from_files_that_are_away_is_kept(tmp_path: Path, away: str) -> None:
    names = {"model": tmp_path / "model", "bank": tmp_path / "bank", "lm": tmp_path / "lm"}
    for name in ("model", "lm"):
        names[name].mkdir()
        (names[name] / "config.json").write_text('{"model_type": "bert"}')
    names["bank"].write_text("a bank")
    chosen = {"attacks": [f"stylebkd(bank_file={names['bank']})"], "defenders": ["vanilla", f"onion(lm={names['lm']})"]}
    out, said = tmp_path / "out", io.StringIO()
    own = {"model.path": str(names["model"]), "model.sha256": None}
    write_request(out, "demo", {**chosen, "models": ["minilm-l6"], "poison_ratios": [0.1], "set": own})
    plan, store = plan_into(out, None), Store(out / "store")
    for stage in plan.unique():
        with store.draft(stage.key) as aside:
            store.finish(stage.key, aside, {"kind": stage.kind})
    names[away].rename(tmp_path / "gone")
    clean_folder(out, True, False, Console(file=said, width=1000))
    assert str(names[away]) in said.getvalue() and "Nothing to free." in said.getvalue()
    (tmp_path / "gone").rename(names[away])
    assert all(store.has(stage.key) for stage in plan.unique())


def test_what_is_made_from_a_published_original_that_is_away_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, said = "datasets/Spam/lingspam/train.tsv", (io.StringIO(), io.StringIO())
    original = tmp_path / "data" / name
    original.parent.mkdir(parents=True)
    original.write_text("as published")
    spec = replace(dataset_spec("lingspam"), originals={name: git_blob(original.read_bytes())})
    monkeypatch.setattr("bench.data.dataset_spec", lambda name, options: spec)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}')
    axes = {"datasets": ["lingspam"], "attacks": ["badnets"], "defenders": ["vanilla"], "poison_ratios": [0.1]}
    out, store = tmp_path / "out", Store(tmp_path / "out" / "store")
    write_request(out, "demo", {**axes, "models": [str(tmp_path / "model")]}, tmp_path / "data")
    plan = plan_into(out, None)
    for stage in plan.unique():
        with store.draft(stage.key) as aside:
            store.finish(stage.key, aside, manifest_of(stage.payload(), Machine(None), 1.0))
    with store.draft(OLD_KEY) as aside:
        store.finish(OLD_KEY, aside, {"kind": "load"})
    original.rename(tmp_path / "gone")
    assert not {stage.key for stage in plan.unique()} & {stage.key for stage in plan_into(out, None).unique()}
    clean_folder(out, True, False, Console(file=said[0], width=1000))
    assert f"Stages made from another {name} than" in said[0].getvalue() and not store.has(OLD_KEY)
    (tmp_path / "gone").rename(original)
    assert all(store.has(stage.key) for stage in plan.unique())
    clean_folder(out, True, False, Console(file=said[1], width=1000))
    assert name not in said[1].getvalue() and "Nothing to free." in said[1].getvalue()


def test_after_all_is_freed_the_records_of_a_finished_run_can_be_made_again(tmp_path: Path) -> None:
    from bench.engine.executors.inline import InlineExecutor

    out, plan = tmp_path / "out", cheap_plan(tmp_path / "model", 1)
    runner = Runner(plan, out, {}, keep_weights=True)
    runner.run(InlineExecutor(out / "store", Machine(None), build), runner.todo())
    before = records(out)
    found = freeable(out, plan)
    assert {item.why for item in found} == {WEIGHT} and len(found) == 2 * 3  # vanilla, cleansed, repaired; 2 attacks
    assert sum(free(out, item) for item in found) == 6 * 2000 and not freeable(out, plan)
    for path in (out / "records").iterdir():
        path.unlink()
    assert drive(str(out), "inline", 1).executed == 0 and records(out) == before


def test_clean_waits_for_a_run_and_status_needs_one(tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    with pytest.raises(RequestError, match="Nothing has been run into"):
        show_status(tmp_path / "nowhere", None, None, console)
    write_request(tmp_path, "demo", {"seeds": (0,)})
    write_request(tmp_path, "demo", {"seeds": (0,)})
    place = {"folder": os.getcwd(), "data": None}
    assert read_requests(tmp_path) == [{"grid": "demo", "changes": {"seeds": [0]}, **place}]
    with run_claim(tmp_path, shared=True), pytest.raises(RequestError, match="A run is at work in"):
        clean_folder(tmp_path, True, False, console)


def test_relative_paths_of_a_run_are_meant_from_where_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, elsewhere, said = tmp_path / "there", tmp_path / "elsewhere", io.StringIO()
    for folder in (there, elsewhere, there / "model", there / "data"):
        folder.mkdir()
    (there / "mine.csv").write_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(40)))
    (there / "model" / "config.json").write_text('{"model_type": "bert"}')
    axes = {"datasets": ["mine.csv"], "models": ["./model"], "defenders": ["vanilla"], "attacks": ["badnets"]}
    monkeypatch.chdir(there)
    write_request(Path("out"), "demo", {**axes, "poison_ratios": [0.1]}, Path("data"))
    monkeypatch.chdir(elsewhere)
    show_status(there / "out", None, None, Console(file=said))
    assert "0 of 1 cells done" in said.getvalue() and Path.cwd() == elsewhere
    assert read_requests(there / "out")[0]["data"] == str(there / "data")
    clean_folder(there / "out", True, False, Console(file=said))
    (there / "mine.csv").unlink()
    with pytest.raises(RequestError, match="mine.csv") as caught:
        show_status(there / "out", None, None, Console(file=said))
    assert f"The run was started in {there}." in caught.value.remedy and Path.cwd() == elsewhere


def test_a_request_of_before_folders_were_noted_is_still_read(tmp_path: Path) -> None:
    (tmp_path / "requests.json").write_text('{"requests": [{"grid": "demo", "changes": {"seeds": [0]}}]}')
    said = io.StringIO()
    show_status(tmp_path, None, None, Console(file=said))
    assert "0 of 40 cells done" in said.getvalue()


@pytest.mark.parametrize("key", ["../../etc", "a" * 39, "A" * 40, "a" * 40 + "\n", "", "..", None])
def test_a_key_that_would_leave_the_store_is_refused(tmp_path: Path, key: str) -> None:
    store = Store(tmp_path)
    for act in (store.folder, store.manifest, store.open, store.release, store.set_aside, store.claim):
        with pytest.raises(StoreError, match="is no key of a stage"):
            act(key)


def test_a_manifest_that_names_files_elsewhere_is_not_believed(tmp_path: Path) -> None:
    from bench.core.seeding import digest

    store, key = Store(tmp_path / "store"), "ab" * 20
    (tmp_path / "secret").write_text("secret")
    manifest = {"files": {"../../../secret": "0" * 64}, "kind": "load"}
    store.folder(key).mkdir(parents=True)
    sealed = {**manifest, "seal": digest("manifest", manifest)}
    (store.folder(key) / "manifest.json").write_text(json.dumps(sealed))
    assert store.manifest(key) is None and (tmp_path / "secret").read_text() == "secret"


@pytest.mark.slow
def test_an_interrupt_finishes_the_running_stage_and_says_how_to_go_on(
    tmp_path: Path,
    grid_file: Callable[..., Path],  # noqa: F811
) -> None:
    grid = str(grid_file(seeds=list(range(8))))
    command = [sys.executable, "-m", "bench", "run", "--grid", grid, "--out", "out", "--engine", "inline"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **streams) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "out" / "records").glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 130
    assert "Go on with: python -m bench run --grid" in said and "Traceback" not in said
    assert not any((tmp_path / "out" / "store" / ".drafts").iterdir())
    status = [sys.executable, "-m", "bench", "status", "--out", "out"]
    told = subprocess.run(status, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0 and "of 8 cells done, 0 failed" in told.stdout and "Nobody is at work" in told.stdout
