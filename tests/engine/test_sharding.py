"""Sharded trainings in the engine: which they are, who has the devices, real ranks in a run, and ranks that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import CellError
from bench.engine.expand import expand
from bench.engine.grid import Grid, load_grid
from bench.engine.plan import make_plan
from bench.engine.preflight import default_workers, unreachable
from bench.engine.ranks import Order, _outcome
from bench.engine.sharding import groups_of, most_shards, shards_of, too_few
from bench.engine.todo import Todo
from bench.engine.work import Machine
from bench.report.explain import cell_of
from bench.report.render import render
from tests.engine.conftest import Tiny
from tests.engine.keys import identities_of, keys_of, moved
from tests.tiny import tiny_model

PUBLISHED = Path(__file__).resolve().parents[2] / "leaderboard" / "records.jsonl"
PATIENCE = 300.0


def shards_by_defense(**settings: Any) -> dict[str, int]:
    """Return over how many devices the training behind each defense of a grid is spread."""
    plan = make_plan(expand([Grid(**{**GRID, "set": {f"model.{name}": value for name, value in settings.items()}})]))
    assert not plan.impossible
    return {plan.cells[key].defense.name: shards_of(chain.victim.content) for key, chain in plan.stages.items()}


GRID: dict[str, Any] = {
    "datasets": ("demo",),
    "attacks": ("addsent",),
    "models": ("llama2-7b",),
    "defenders": ("vanilla", "strip", "lora", "musclelora"),
}


def test_what_trains_whole_is_sharded_and_nothing_else() -> None:
    assert shards_by_defense(shards=4) == {"vanilla": 4, "strip": 4, "lora": 1, "musclelora": 1}
    assert set(shards_by_defense(shards=4, stand_in_rank=1024).values()) == {1}
    assert set(shards_by_defense().values()) == {1}


def test_the_number_of_shards_is_another_cell_that_draws_the_same_numbers() -> None:
    """Seeds, and with them head, batches and dropout, are those of the unsharded training."""
    one, four = (
        next(iter(expand([Grid(**{**GRID, "defenders": ("vanilla",), "set": {"model.shards": count}})]).cells.values()))
        for count in (1, 4)
    )
    assert "shards" not in one.model.options
    assert one.key != four.key and moved(one, four) == {"train", "evaluate"}
    assert identities_of(one) == identities_of(four) and keys_of(one)["load"] == keys_of(four)["load"]


def test_published_cells_keep_their_names() -> None:
    for line in PUBLISHED.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        assert cell_of(record).key == record["key"]
        assert "shards" not in record["cell"]["model"]["options"]


def test_gradient_alignment_of_a_sharded_model_is_refused() -> None:
    grid = Grid(**{**GRID, "defenders": ("ga", "vanilla"), "set": {"model.shards": 2}})
    found = expand([grid])
    (key,) = found.impossible
    assert found.cells[key].defense.name == "ga"
    assert "'ga' acts on whole gradients" in found.impossible[key].problem


def test_devices_in_groups() -> None:
    five = [f"cuda:{number}" for number in range(5)]
    assert groups_of(five, 2) == [("cuda:0", "cuda:1"), ("cuda:2", "cuda:3")]
    assert groups_of(five, 1) == [(device,) for device in five]
    assert groups_of(five[:1], 2) == [("cuda:0",)]
    assert groups_of(["cpu"], 3) == [("cpu",) * 3]
    assert (default_workers(five, 2), default_workers(five)) == (2, 5)


def test_too_few_devices_are_a_failed_cell_before_anything_runs() -> None:
    plan = make_plan(expand([Grid(**{**GRID, "set": {"model.shards": 4}})]))
    trainings = [stage for stage in plan.unique() if stage.kind == "train"]
    assert most_shards(trainings) == 4
    todo = Todo({stage.key: stage for stage in trainings}, dict(plan.stages))
    away = unreachable(todo, None, ["cuda:0", "cuda:1"])
    reasons = {plan.cells[key].defense.name: error.problem for key, error in away.items()}
    assert reasons["strip"].startswith("The weights of model 'llama2-7b'") or "sharded over 4" in reasons["strip"]
    assert too_few(4, ["cuda:0"] * 4, "llama2-7b") is None and too_few(4, ["cpu"], "llama2-7b") is None
    error = too_few(4, ["cuda:0", "cuda:1"], "llama2-7b")
    assert error is not None and "over 4 devices, and there are 2" in error.problem


def test_table_4_with_full_fine_tuning() -> None:
    """The cells of table4, none with a stand-in."""
    plan = make_plan(expand(load_grid("table4-full").blocks()))
    names = {(cell.attack.name, cell.defense.name) for cell in plan.cells.values()}
    stood_in = {(cell.attack.name, cell.defense.name) for cell in expand(load_grid("table4").blocks()).cells.values()}
    assert names == stood_in and not plan.impossible
    whole = {plan.cells[key].defense.name for key, chain in plan.stages.items() if shards_of(chain.victim.content) > 1}
    assert whole == {"vanilla", "onion", "strip"}
    assert all("stand_in_rank" not in cell.model.options for cell in plan.cells.values())


@pytest.fixture
def llama(tmp_path: Path, tmp_path_factory: Any) -> Tiny:
    """Return a tiny run of a tiny Llama with the plain head, which has no dropout."""
    return Tiny(tmp_path / "out", str(tiny_model(tmp_path_factory, "llama")), [])


def sharded(tiny: Tiny, count: int, **settings: Any) -> Any:
    """Return the plan of one cell whose training is sharded."""
    options = {"model.shards": count, "model.head": "plain", **settings}
    return tiny.plan(defenders=["vanilla"], set=options)


def records(tiny: Tiny) -> dict[int, Any]:
    """Return the records by the number of shards that was asked for."""
    found = [json.loads(path.read_text()) for path in (tiny.out / "records").glob("*.json")]
    return {record["cell"]["model"]["options"].get("shards", 1): record for record in found}


def ranks_of(parent: int) -> list[int]:
    """Return the processes that one started as ranks."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status, command = (folder / "stat").read_text(), (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if int(status.rpartition(")")[2].split()[1]) == parent and b"bench.engine.rank" in command:
                found.append(int(folder.name))
    return sorted(found)


def alive(processes: list[int]) -> list[int]:
    """Return those of the processes that still run."""
    return [number for number in processes if Path(f"/proc/{number}/cmdline").is_file() and _runs(number)]


def _runs(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_run_with_a_sharded_training(llama: Tiny) -> None:
    """The cell of 2 ranks is that of one process: the same weights up to rounding, the same rates, evaluated alike."""
    import numpy as np

    probabilities = {}
    for count in (1, 2):
        report = llama.run(sharded(llama, count))
        assert not report.failed
        (file,) = (
            path for path in (llama.out / "store").rglob("predictions.npz") if path not in probabilities.values()
        )
        probabilities[count] = file
    arrays = {count: np.load(file) for count, file in probabilities.items()}
    for name in ("clean", "poisoned"):
        np.testing.assert_allclose(arrays[2][name], arrays[1][name], atol=1e-4)
    found = records(llama)
    assert found[2]["shards"] == 2 and "shards" not in found[1]
    assert found[2]["metrics"] == found[1]["metrics"] and found[2]["cost"]["steps"] == found[1]["cost"]["steps"]
    assert llama.run(sharded(llama, 2)).executed == 0
    shown = {**found[2], "cell": {**found[2]["cell"], "limit": None}}
    said = [line for line in render([shown])["README.md"].splitlines() if "Full fine-tuning" in line]
    assert said == ["- Full fine-tuning: the whole of llama trained, sharded over 2 devices, under Vanilla."]


@pytest.mark.slow
def test_a_killed_rank_is_a_failed_record_and_leaves_no_process(llama: Tiny) -> None:
    """Rank 1 is killed while both train for hours; rank 0 is gone with it."""
    seen: list[int] = []

    def kill() -> None:
        until = time.monotonic() + PATIENCE
        while len(ranks_of(os.getpid())) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        seen.extend(ranks_of(os.getpid()))
        while time.monotonic() < until and not all(_connected(number) for number in seen):
            time.sleep(0.05)
        os.kill(seen[1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    report = llama.run(sharded(llama, 2, **{"model.max_steps": 100_000, "model.epochs": 100_000}))
    killer.join()
    assert len(report.failed) == 1 and len(seen) == 2 and not alive(seen)
    error = records(llama)[2]["error"]
    assert error["message"] == "Rank 1 of 2 of a sharded training was killed by signal 9."
    assert not list((llama.out / "store").rglob("weights.safetensors"))


def _connected(number: int) -> bool:
    """Tell whether a rank has met the other: it holds sockets."""
    try:
        return sum(os.readlink(file).startswith("socket:") for file in Path(f"/proc/{number}/fd").iterdir()) > 1
    except OSError:
        return False


DRIVER = """
import sys
from pathlib import Path
from tests.engine.conftest import Tiny
from tests.engine.test_sharding import sharded
tiny = Tiny(Path(sys.argv[1]), sys.argv[2], [])
tiny.run(sharded(tiny, 2, **{"model.max_steps": 100_000, "model.epochs": 100_000}))
"""


@pytest.mark.slow
def test_ranks_end_with_the_process_that_started_them(llama: Tiny) -> None:
    run = subprocess.Popen([sys.executable, "-c", DRIVER, str(llama.out), llama.model])
    until = time.monotonic() + PATIENCE
    while len(ranks := ranks_of(run.pid)) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    run.kill()
    run.wait()
    while alive(ranks) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(ranks) == 2 and not alive(ranks)


def order(scratch: Path, rank: int) -> Order:
    return Order({}, scratch, scratch, Machine(None), rank, "cpu", 2, 1, scratch, PATIENCE)


def test_memory_that_runs_out_on_one_rank_is_why_the_other_failed(tmp_path: Path) -> None:
    """So that the training is tried again with smaller batches, as one that runs out on one device."""
    import pickle

    orders = [order(tmp_path, rank) for rank in range(2)]
    orders[0].answer.write_bytes(pickle.dumps(RuntimeError("connection closed by peer")))
    orders[1].answer.write_bytes(pickle.dumps(MemoryError("rank 1: out of memory")))
    with pytest.raises(MemoryError, match="rank 1"):
        _outcome(orders, {0: 1, 1: 1})
    orders[1].answer.write_bytes(pickle.dumps(CellError("There are no training rows.", "Give at least one.")))
    with pytest.raises(CellError, match="no training rows"):
        _outcome(orders, {1: 1})


def test_a_rank_that_dies_is_named_with_what_it_said(tmp_path: Path) -> None:
    orders = [order(tmp_path, rank) for rank in range(2)]
    orders[0].errors.write_text("")
    orders[1].errors.write_text("loading\nImportError: no such thing\n")
    with pytest.raises(CellError, match="Rank 1 of 2 .* ended with exit code 1: ImportError: no such thing"):
        _outcome(orders, {1: 1, 0: -6})  # the other was aborted because of it
