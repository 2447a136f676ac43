"""Comparing runs and records: by hand on planted predictions, over seeds, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bench import compare
from bench.cli import app
from bench.core.errors import BenchError
from bench.engine.artifacts import write_arrays
from bench.engine.store import Store
from tests.report.fixtures import record

LABELS = [0, 0, 0, 0, 1, 1, 1, 1]
ROWS = [0, 1, 2, 3]  # the poisoned versions of the rows of class 0


class Planted:
    """A run's folder with planted predictions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "store")
        (folder / "records").mkdir(parents=True)

    def add(
        self, clean: list[int], poisoned: list[int], flags: tuple | None = None, trigger: str = "a" * 40, **cell: Any
    ) -> str:
        """Add a cell that predicted these classes; return its key."""
        one = record(cacc=(int(np.sum(np.equal(clean, LABELS))), 8), asr=(sum(poisoned), 4), **cell)
        keys = {kind: start + one["key"].rjust(38, "0") for kind, start in (("evaluate", "e0"), ("detect", "d0"))}
        arrays = {"clean": np.eye(2)[clean], "poisoned": np.eye(2)[poisoned], "labels": LABELS, "rows": ROWS}
        self._stage(keys["evaluate"], "predictions.npz", arrays)
        one["stages"] = [["load", "c" * 40], ["trigger", trigger], ["evaluate", keys["evaluate"]]]
        if flags is not None:
            self._stage(keys["detect"], "flags.npz", dict(zip(("clean", "poisoned"), flags, strict=True)))
            one["stages"].append(["detect", keys["detect"]])
        (self.folder / "records" / f"{one['key']}.json").write_text(json.dumps(one, indent=1), encoding="utf-8")
        return one["key"]

    def _stage(self, key: str, file: str, arrays: dict) -> None:
        with self.store.draft(key) as aside:
            write_arrays(aside / file, arrays)
            self.store.finish(key, aside, {"seconds": 0.0})


@pytest.fixture
def run(tmp_path: Path) -> Planted:
    return Planted(tmp_path / "run")


RIGHT = list(LABELS)


def test_a_pair_by_hand(run: Planted) -> None:
    run.add([1, 1, 1, 0, 1, 1, 1, 1], [1, 1, 1, 1], defense="vanilla")  # wrong on rows 0, 1, 2
    run.add([0, 0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 1], defense="lora")  # wrong on row 7
    found = compare(f"{run.folder}#defense=vanilla", f"{run.folder}#defense=lora")
    (cell,) = found["cells"]
    assert cell["differs"] == {"defense.name": ["vanilla", "lora"]}
    assert cell["metrics"]["cacc"] == {"first": 5 / 8, "second": 7 / 8, "difference": 2 / 8}
    # Discordant: one row only vanilla has right, three only lora: 2 (1 + 4) / 16.
    assert cell["tests"]["cacc"] == {"n": 8, "first_only": 1, "second_only": 3, "p": 10 / 16}
    assert cell["tests"]["asr"] == {"n": 4, "first_only": 3, "second_only": 0, "p": 2 / 8}
    assert found["seeds"] == [] and cell["no_test"] == ""


def test_cells_come_in_the_order_of_names_ratio_and_seed(run: Planted) -> None:
    for seed in (10, 2, 0):
        for defense in ("vanilla", "lora"):
            run.add(RIGHT, [1, 1, 1, 1], defense=defense, seed=seed)
    run.add(RIGHT, [1, 1, 1, 1], defense="lora", seed=1, attack="addsent")
    run.add(RIGHT, [1, 1, 1, 1], defense="vanilla", seed=1, attack="addsent")
    found = compare(f"{run.folder}#defense=vanilla", f"{run.folder}#defense=lora")
    order = [one["title"].split(" / ")[1] + one["title"][-2:] for one in found["cells"]]
    assert order == ["addsent 1", "badnets 0", "badnets 2", "badnets10"]


def test_a_flagged_text_is_wrong_when_clean_and_no_success_when_poisoned(run: Planted) -> None:
    run.add(RIGHT, [1, 1, 1, 1], defense="vanilla")
    run.add(RIGHT, [1, 1, 1, 1], flags=([1, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 0]), defense="strip")
    tests = compare(f"{run.folder}#defense=vanilla", f"{run.folder}#defense=strip")["cells"][0]["tests"]
    assert (tests["cacc"]["first_only"], tests["asr"]["first_only"]) == (1, 3)


def test_two_equal_runs_differ_in_nothing(run: Planted, tmp_path: Path) -> None:
    other = Planted(tmp_path / "other")
    for seed in range(3):
        for one in (run, other):
            one.add(RIGHT, [1, 0, 0, 1], seed=seed)
    other.add(RIGHT, [1, 0, 0, 1], seed=3)
    found = compare(str(run.folder), str(other.folder))
    assert len(found["cells"]) == 3 and found["only_first"] == [] and len(found["only_second"]) == 1
    assert all(cell["differs"] == {} and cell["tests"]["asr"]["p"] == 1.0 for cell in found["cells"])
    assert found["seeds"][0]["asr"] == {"mean_difference": 0.0, "p": 1.0}


def test_seeds_are_tested_together(run: Planted) -> None:
    for seed, hits in enumerate(([1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0])):
        run.add(RIGHT, hits, defense="vanilla", seed=seed)
        run.add(RIGHT, [0, 0, 0, 0], defense="lora", seed=seed)
    (group,) = compare(f"{run.folder}#defense=vanilla", f"{run.folder}#defense=lora")["seeds"]
    assert group["seeds"] == [0, 1, 2]
    assert group["asr"] == {"mean_difference": -(4 + 3 + 2) / 12, "p": 2 / 8}
    assert group["cacc"] == {"mean_difference": 0.0, "p": 1.0}


def test_single_records_are_compared_whatever_differs(run: Planted) -> None:
    first = run.add(RIGHT, [1, 1, 1, 1], attack="addsent")
    second = run.add(RIGHT, [0, 1, 1, 1], attack="hiddenkiller", seed=4, trigger="b" * 40)
    found = compare(f"{run.folder}#{first[:8]}", f"{run.folder}/records/{second}.json")
    (cell,) = found["cells"]
    assert cell["differs"] == {"attack.name": ["addsent", "hiddenkiller"], "seed": [0, 4]}
    assert cell["tests"]["asr"]["first_only"] == 1  # other triggers on the same test rows are paired by row


def test_poisoned_rows_that_nobody_can_place_are_not_paired(run: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.report.test_compare.ROWS", [-1, -1, -1, -1])
    first = run.add(RIGHT, [1, 1, 1, 1], attack="addsent")
    second = run.add(RIGHT, [0, 1, 1, 1], attack="hiddenkiller", trigger="b" * 40)
    (cell,) = compare(f"{run.folder}#{first}", f"{run.folder}#{second}")["cells"]
    assert list(cell["tests"]) == ["cacc"] and "do not come from the same test rows" in cell["no_test"]


def test_what_cannot_be_paired_is_said(run: Planted, tmp_path: Path) -> None:
    one = run.add(RIGHT, [1, 1, 1, 1], target=1)
    other = run.add(RIGHT, [0, 0, 0, 0], target=0)
    (cell,) = compare(f"{run.folder}#{one}", f"{run.folder}#{other}")["cells"]
    assert list(cell["tests"]) == ["cacc"] and "target labels differ" in cell["no_test"]
    lines = [json.dumps(record()), json.dumps(record(seed=1))]
    (tmp_path / "records.jsonl").write_text("\n".join(lines), encoding="utf-8")
    published = f"{tmp_path / 'records.jsonl'}"
    (cell,) = compare(f"{published}#seed=0", f"{published}#seed=1")["cells"]
    assert cell["tests"] == {} and "not beside these records" in cell["no_test"]
    failed = record(seed=2, error=("CellError", "no bank", ""))
    (tmp_path / "failed.json").write_text(json.dumps(failed), encoding="utf-8")
    (cell,) = compare(f"{published}#seed=0", str(tmp_path / "failed.json"))["cells"]
    assert cell["status"] == ["ok", "failed"] and cell["no_test"] == "a cell failed"


def test_a_prediction_that_was_altered_is_not_used(run: Planted) -> None:
    key = run.add(RIGHT, [1, 1, 1, 1])
    file = run.store.folder("e0" + key.rjust(38, "0")) / "predictions.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    (cell,) = compare(str(run.folder), str(run.folder))["cells"]
    assert cell["tests"] == {} and "was altered" in cell["no_test"]
    assert file.is_file()  # comparing sets nothing aside


def test_the_command_prints_it_and_writes_json(run: Planted, tmp_path: Path) -> None:
    run.add([1, 1, 1, 0, 1, 1, 1, 1], [1, 1, 1, 1], defense="vanilla")
    run.add(RIGHT, [0, 0, 0, 1], defense="lora")
    sides = [f"{run.folder}#defense={name}" for name in ("vanilla", "lora")]
    result = CliRunner().invoke(app, ["compare", *sides, "--json", str(tmp_path / "found.json")])
    assert result.exit_code == 0, result.output
    assert 'defense.name: "vanilla" -> "lora"' in result.output
    assert "ASR       100.00 ->  25.00  (-75.00 points)  McNemar exact p = 0.25: 3 of 4 only in A" in result.output
    assert json.loads((tmp_path / "found.json").read_text()) == compare(*sides)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ("nowhere", "no records at nowhere"),
        ("RUN#", "names no records"),
        ("#x", "names no records"),
        ("RUN#zz", "neither a key nor"),
        ("RUN#ffffffffffff", "No record"),
        ("RUN#defence=lora", "no axis named 'defence'"),
        ("RUN#defense=", "says no value"),
        ("RUN#defense=lora,x", "says no value"),
        ("RUN#defense=cube", "No record"),
        ("RUN#seed=[", "is no value"),
        ("RUN#defense=lora", r"two cells that differ only in defense.options.rank: \w{12} and \w{12}\."),
    ],
)
def test_a_wrong_reference_is_refused(run: Planted, first: str, reason: str) -> None:
    run.add(RIGHT, [0, 0, 0, 0], defense="lora", options={"defense": {"rank": 4}})
    run.add(RIGHT, [0, 0, 0, 0], defense="lora", options={"defense": {"rank": 8}})
    run.add(RIGHT, [0, 0, 0, 0], defense="vanilla")
    first = first.replace("RUN", str(run.folder))
    second = str(run.folder)
    with pytest.raises(BenchError, match=reason):
        compare(first, second)
    result = CliRunner().invoke(app, ["compare", first, second])
    assert result.exit_code == 2 and "Remedy: " in result.stderr and "Traceback" not in result.output
