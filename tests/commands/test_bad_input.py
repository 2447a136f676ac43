"""A wrong request: one sentence and a remedy, exit code 2, nothing written and never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from tests.tiny import tiny_model

RUN = ["run", "--grid", "demo"]
TINY_STEPS = ["--dataset", "demo", "--steps", "1"]

WRONG = {
    "unknown grid": (["run", "--grid", "dmo"], "no grid named 'dmo'", "'demo'"),
    "unknown dataset": ([*RUN, "--datasets", "sst"], "no dataset named 'sst'", "'sst2'"),
    "unknown attack": ([*RUN, "--attacks", "badnet"], "no attacker named 'badnet'", "'badnets'"),
    "unknown defender": ([*RUN, "--defenders", "musclelra"], "no defender named 'musclelra'", "'musclelora'"),
    "openbackdoor's unknown": (
        [*RUN, "--defenders", "openbackdoor:stripp"],
        "openbackdoor:stripp",
        "openbackdoor:strip",
    ),
    "openbackdoor's trainer": ([*RUN, "--attacks", "openbackdoor:neuba"], "poisons no labelled rows", "own pipeline"),
    "openbackdoor's lws": ([*RUN, "--attacks", "openbackdoor:lws"], "on a GPU", "or take this suite's lws"),
    "unknown model": ([*RUN, "--models", "minilm"], "no model named 'minilm'", "'minilm-l6'"),
    "unknown option": ([*RUN, "--defenders", "lora(rnk=4)"], "option of defender 'lora' named 'rnk'", "'rank'"),
    "unknown set axis": ([*RUN, "--set", "modl.epochs=2"], "no axis named 'modl'", "'model'"),
    "unknown set option": ([*RUN, "--set", "model.epoch=2"], "named 'epoch'", "'epochs'"),
    "set without value": ([*RUN, "--set", "model.epochs"], "has no value", "axis.option=value"),
    "option of no defender": ([*RUN, "--set", "defense.frequency=2"], "option of any chosen defense", "There are"),
    "wrong type": ([*RUN, "--defenders", "lora(rank=two)"], "lora.rank is 'two'", "whole number"),
    "ratio above 1": ([*RUN, "--poison-ratios", "1.5"], "poison_ratios", "1.5"),
    "ratio below 0": ([*RUN, "--poison-ratios", "-0.1"], "poison_ratios", "-0.1"),
    "ratio no number": ([*RUN, "--poison-ratios", "0.1,10%"], "'10%' should be a valid number", "such as 0.1"),
    "negative seed": ([*RUN, "--seeds", "-1"], "seeds", "-1"),
    "target label": ([*RUN, "--target-labels", "2"], "target_label is 2", "0 to 1"),
    "label rule": ([*RUN, "--label-rules", "dirtyy"], ": 'dirtyy' should be", "Did you mean 'dirty'?"),
    "recipe": ([*RUN, "--recipes", "mine"], ": 'mine' should be", "one of these"),
    "precision": ([*RUN, "--precisions", "fp8"], "precisions", "fp8"),
    "limit": ([*RUN, "--limit", "0"], "limit is 0", "range"),
    "engine": ([*RUN, "--engine", "rey"], "no engine named 'rey'", "Did you mean 'ray'?"),
    "workers": ([*RUN, "--workers", "0"], "--workers is 0", "default"),
    "device": ([*RUN, "--device", "cuda:7"], "no device 'cuda:7'", "This machine has: cpu"),
    "missing data folder": ([*RUN, "--data", "nowhere"], "data folder nowhere does not exist", "datasets/"),
    "no data folder": (["run", "--grid", "cpu"], "data folder", "BENCH_DATA"),
    "missing grid file": (["run", "--grid", "none.yaml"], "no grid file none.yaml", "one of"),
    "nothing on the hub": ([*RUN, "--datasets", "hub:"], "names no data set of the hub", "hub:ID"),
    "a folder without a model": ([*RUN, "--models", "./no/model"], "no model folder './no/model'", "config.json"),
    "missing custom data": ([*RUN, "--datasets", "rows.csv"], "rows.csv", "file"),
    "speed defense": (["speed", "--defenses", "strip", *TINY_STEPS], "to measure named 'strip'", "There are"),
    "speed precision": (["speed", "--precision", "fp8", *TINY_STEPS], "no precision named 'fp8'", "'fp32'"),
    "speed steps": (["speed", "--dataset", "demo", "--steps", "0"], "--steps is 0", "default"),
    "speed too many steps": (["speed", "--dataset", "demo", "--steps", "9999"], "steps of 32", "fewer --steps"),
    "speed gangs": (["speed", "--gangs", "two", *TINY_STEPS], "'two', which is no whole number", "2,4,8,16"),
    "speed gang of one": (["speed", "--gangs", "1", *TINY_STEPS], "gang of 1 is none", "from 2 on"),
    "speed file": (["speed", "--json", "no/where.json", *TINY_STEPS], "lies in no folder", "exists"),
    "speed sides": (["speed", "--end-to-end", "--sides", "alien", *TINY_STEPS], "alien", "Did you mean 'alone'"),
    "speed of nothing": (["speed", "--no-training"], "Nothing is to be measured", "--inference"),
    "stealth of no attack": (["stealth", "--attacks", ""], "--attacks names none", "at least one"),
    "plan workers": (["plan", "--grid", "demo", "--workers", "0"], "--workers is 0", "default"),
    "no records": (["table", "--out", "nowhere"], "no records under nowhere", "Run a grid first"),
    "no folder": (["table"], "Neither --out nor --grid", "--out"),
}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder without a data folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_DATA", raising=False)
    return tmp_path


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_refused_with_value_and_remedy(case: str, empty_folder: Path) -> None:
    arguments, problem, remedy = WRONG[case]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert "Error: " in result.stderr and "Remedy: " in result.stderr
    assert problem in result.stderr and remedy in result.stderr
    assert "Traceback" not in result.output
    assert list(empty_folder.iterdir()) == []


GRIDS = {
    "not yaml": ("datasets: [demo\n", "not valid YAML"),
    "tag": ("datasets: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    "list": ("- demo\n", "no mapping"),
    "unknown key": ("dataset: [demo]\n", "Did you mean 'datasets'?"),
    "empty axis": ("datasets: [demo]\nattacks: [badnets]\nmodels: [minilm-l6]\n", "names no defenders"),
    "wrong value": ("seeds: [one]\n", "seeds"),
    "circle": ("grids: [wrong.yaml]\n", "unites itself"),
    "options not a name": ("datasets: [3]\n", "datasets"),
}


@pytest.mark.parametrize("case", GRIDS)
def test_a_wrong_grid_file_is_refused(case: str, empty_folder: Path) -> None:
    content, problem = GRIDS[case]
    (empty_folder / "wrong.yaml").write_text(content)
    result = CliRunner().invoke(app, ["run", "--grid", "wrong.yaml"])
    assert result.exit_code == 2, result.output
    assert problem in result.stderr
    assert [path.name for path in empty_folder.iterdir()] == ["wrong.yaml"]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("text,label\n" + "".join(f"text {i},0\n" for i in range(40)), "class"),
        ("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(40)) + ",1\n", "row 41"),
        ("text,lable\n" + "".join(f"text {i},{i % 2}\n" for i in range(40)), "label"),
    ],
    ids=["one class", "empty text", "missing column"],
)
def test_a_wrong_custom_data_set_is_refused_before_anything_runs(rows: str, problem: str, empty_folder: Path) -> None:
    (empty_folder / "mine.csv").write_text(rows)
    result = CliRunner().invoke(app, [*RUN, "--datasets", "mine.csv"])
    assert result.exit_code == 2, result.output
    assert problem in result.stderr and "mine.csv" in result.stderr


def test_a_file_of_another_format_is_told_which_are_read(empty_folder: Path) -> None:
    (empty_folder / "mine.parquet").write_text("PAR1")
    result = CliRunner().invoke(app, [*RUN, "--datasets", "mine.parquet"])
    assert result.exit_code == 2 and "mine.parquet is no data set" in result.stderr and ".jsonl" in result.stderr


def test_a_plan_for_no_device_prints_no_half_of_it() -> None:
    result = CliRunner().invoke(app, ["plan", "--grid", "demo", "--device", "cuda:7"])
    assert result.exit_code == 2 and result.stdout == "" and "no device 'cuda:7'" in result.stderr


@pytest.mark.parametrize("command", ["run", "status", "clean", "table", "publish"])
def test_a_folder_without_a_name_is_refused(command: str, empty_folder: Path) -> None:
    # `--out "$OUT"` with the variable unset: Path("") is the working folder.
    more = {"run": ["--grid", "demo"], "publish": ["--to", "there"]}.get(command, [])
    result = CliRunner().invoke(app, [command, "--out", "", *more])
    assert result.exit_code == 2 and "no folder is named" in result.stderr
    assert list(empty_folder.iterdir()) == []


SLURM = {
    "no Slurm": ((), "There is no sbatch"),
    "wrong type": (("cluster=local", "timeout_min=soon"), "timeout_min"),
    "unknown parameter": (("cluster=local", "gpus=1"), "'gpus'"),
    "no number of stages": (("cluster=local", "stages_per_job=0"), "stages_per_job=0"),
}


@pytest.mark.parametrize("case", SLURM)
def test_an_engine_that_refuses_leaves_no_folder(
    case: str, empty_folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(empty_folder))
    settings, problem = SLURM[case]
    given = [word for setting in settings for word in ("--slurm", setting)]
    model = str(tiny_model(tmp_path_factory, "bert"))
    result = CliRunner().invoke(app, [*RUN, "--models", model, "--engine", "slurm", *given])
    assert result.exit_code == 2, result.output
    assert problem in result.stderr and "Remedy: " in result.stderr and "\\n" not in result.stderr
    assert list(empty_folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_refused(empty_folder: Path) -> None:
    locked = empty_folder / "locked"
    locked.mkdir(mode=0o500)
    result = CliRunner().invoke(app, [*RUN, "--out", str(locked / "out")])
    assert result.exit_code == 2 and "cannot be written" in result.stderr


def test_a_folder_under_a_file_is_refused(empty_folder: Path) -> None:
    (empty_folder / "file").write_text("in the way")
    result = CliRunner().invoke(app, [*RUN, "--out", "file/out"])
    assert result.exit_code == 2 and "cannot be written" in result.stderr


def test_a_full_disk_is_refused(empty_folder: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    from bench.engine.store import StoreError, write_json

    (empty_folder / "out").mkdir()
    target = empty_folder / "out" / "record.json"
    # The draft is written through a link to a device that is always full.
    from unittest import mock

    with mock.patch("bench.engine.store.uuid.uuid4") as name:
        name.return_value.hex = "draft"
        (empty_folder / "out" / ".record.json.draft").symlink_to("/dev/full")
        with pytest.raises(StoreError, match="No space left on device"):
            write_json(target, {"text": "x" * 100_000})
    assert list((empty_folder / "out").iterdir()) == []
