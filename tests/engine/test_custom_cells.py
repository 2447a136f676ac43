"""The user's own data: the same rows in any format are the same cell, and they run."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from bench.engine.record_files import record_path
from tests.engine.conftest import Tiny

ROWS = [(f"the film number {i} is {'good' if i % 2 else 'bad'}", i % 2) for i in range(200)]


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"mine.{suffix}"
    with path.open("w", encoding="utf-8", newline="") as stream:
        if suffix == "jsonl":
            stream.writelines(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)
        else:
            rows = csv.writer(stream, delimiter="\t" if suffix == "tsv" else ",")
            rows.writerows([("text", "label"), *ROWS])
    return path


def test_csv_tsv_and_jsonl_give_the_same_cells_and_stages(tiny: Tiny, tmp_path: Path) -> None:
    plans = [
        tiny.plan(datasets=[str(write(tmp_path, suffix))], defenders=["lora"]) for suffix in ("csv", "tsv", "jsonl")
    ]
    first = plans[0]
    for plan in plans[1:]:
        assert list(plan.cells) == list(first.cells)
        assert [stage.key for stage in plan.unique()] == [stage.key for stage in first.unique()]


def test_a_custom_data_set_runs_and_attacks_without_a_bank_fail_with_their_reason(tiny: Tiny, tmp_path: Path) -> None:
    data = str(write(tmp_path, "csv"))
    plan = tiny.plan(datasets=[data], defenders=["vanilla"], attacks=["badnets", "hiddenkiller"], label_rules=["mix"])
    report = tiny.run(plan)
    assert report.done == 1
    (reason,) = report.failed.values()
    assert "No synbkd bank is published" in reason
    done = next(cell for cell in plan.cells.values() if cell.attack.name == "badnets")
    record = json.loads(record_path(tiny.out, done).read_text())
    assert record["cell"]["dataset"]["name"].startswith("custom-") and record["dataset_info"]["test"] == 20
    assert str(tmp_path) not in json.dumps(record["cell"]["dataset"])
    assert record["read_from"] == "mine.csv"  # the name of a digest says nothing to a reader; the folder is nobody's


def test_a_custom_data_set_that_changes_under_a_run_is_noticed(tiny: Tiny, tmp_path: Path) -> None:
    path = write(tmp_path, "csv")
    plan = tiny.plan(datasets=[str(path)], defenders=["vanilla"])
    path.write_text(path.read_text().replace("number 0", "number zero"))
    report = tiny.run(plan)
    (reason,) = report.failed.values()
    assert "has changed since the run began" in reason


def test_a_model_folder_that_changes_under_a_run_is_noticed(tiny: Tiny, tmp_path: Path) -> None:
    tiny.model = str(shutil.copytree(tiny.model, tmp_path / "model"))
    plan = tiny.plan(defenders=["vanilla"])
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_act": "relu"}))
    (reason,) = tiny.run(plan).failed.values()
    assert reason.startswith(f"The files of model 'model' in '{tmp_path / 'model'}' have changed since the run began")
    again = tiny.plan(defenders=["vanilla"])
    assert not set(again.cells) & set(plan.cells) and tiny.run(again).done == 1


@pytest.mark.parametrize("rule", ["clean", "dirty", "mix"])
def test_every_label_rule_poisons_a_tenth(tiny: Tiny, rule: str) -> None:
    tiny.run(tiny.plan(defenders=["vanilla"], label_rules=[rule]))
    (path,) = (tiny.out / "records").iterdir()
    assert json.loads(path.read_text())["poison"]["rows"] == 4
