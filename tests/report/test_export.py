"""Exports: flat rows, pandas, datasets, and the form of Every Eval Ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.report.export import columns, flat, to_dataset, to_every_eval_ever, to_pandas
from tests.report.fixtures import board_records, record

FAILED = ("CellError", "no bank", "make one")
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
RESULT = {
    "type": "object",
    "required": ["evaluation_name", "source_data", "metric_config", "score_details"],
    "additionalProperties": False,
    "properties": {
        "evaluation_result_id": {"type": "string"},
        "evaluation_name": {"type": "string"},
        "source_data": {
            "required": ["dataset_name", "source_type"],
            "properties": {"source_type": {"const": "other"}, "additional_details": TEXTS},
        },
        "metric_config": {
            "required": ["lower_is_better", "min_score", "max_score"],
            "properties": {"lower_is_better": {"type": "boolean"}, "score_type": {"const": "continuous"}},
        },
        "score_details": {
            "required": ["score"],
            "properties": {
                "score": {"type": "number", "minimum": 0, "maximum": 1},
                "details": TEXTS,
                "uncertainty": {
                    "properties": {
                        "confidence_interval": {"required": ["lower", "upper"]},
                        "num_samples": {"type": "integer"},
                    }
                },
            },
        },
        "generation_config": {"properties": {"additional_details": TEXTS}},
    },
}
# What the published schema (0.3.0) asks of a log, in as much as a log of this suite uses it.
LOG = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "additionalProperties": False,
    "required": [
        "schema_version",
        "evaluation_id",
        "retrieved_timestamp",
        "source_metadata",
        "model_info",
        "eval_library",
        "evaluation_results",
    ],
    "properties": {
        "schema_version": {"const": "0.3.0"},
        "evaluation_id": {"type": "string"},
        "retrieved_timestamp": {"type": "string", "pattern": "^[0-9]+$"},
        "source_metadata": {
            "required": ["source_type", "source_organization_name", "evaluator_relationship"],
            "properties": {
                "source_type": {"enum": ["documentation", "evaluation_run"]},
                "evaluator_relationship": {"enum": ["first_party", "third_party", "collaborative", "other"]},
            },
        },
        "eval_library": {"required": ["name", "version"], "properties": {"additional_details": TEXTS}},
        "model_info": {
            "required": ["name", "id", "additional_details"],
            "properties": {
                "id": {"type": "string", "pattern": "/"},
                "additional_details": {**TEXTS, "required": ["deployment_type", "model_availability"]},
            },
        },
        "evaluation_results": {"type": "array", "minItems": 1, "items": RESULT},
    },
}


def test_a_row_holds_the_numbers_of_its_record() -> None:
    row = flat(record(defense="strip", flip=((1500, 1821), (300, 912))))
    assert (row["cacc"], row["cacc_hits"], row["cacc_n"]) == (1600 / 1821, 1600, 1821)
    assert (row["dataset"], row["defense"], row["seed"], row["flip_asr"]) == ("sst2", "strip", 0, 300 / 912)
    assert list(row) == list(columns())
    failed = flat(record(error=FAILED))
    assert failed["cacc"] is None and failed["error"] == "no bank" and list(failed) == list(row)


def test_a_watched_cell_is_told_from_the_same_one_unwatched() -> None:
    watched = record()
    watched["cell"]["analysis"] = {"name": "fourier", "options": {"rows": 400}}
    rows = [flat(record()), flat(watched)]
    assert [row["analysis"] for row in rows] == [None, "fourier"]
    assert [row["analysis_options"] for row in rows] == [None, '{"rows": 400}']
    assert to_pandas([record(), watched])["analysis"].notna().tolist() == [False, True]
    (log,) = to_every_eval_ever([watched], 1_800_000_000).values()
    setting = log["evaluation_results"][0]["generation_config"]["additional_details"]
    assert (setting["analysis"], setting["analysis_options"]) == ("fourier", '{"rows": 400}')
    (log,) = to_every_eval_ever([record()], 1_800_000_000).values()
    assert "analysis" not in log["evaluation_results"][0]["generation_config"]["additional_details"]


def test_pandas_and_datasets_say_the_same_and_keep_what_is_missing(tmp_path: Path) -> None:
    records = [*board_records(), record(error=FAILED)]
    frame, dataset = to_pandas(records), to_dataset(records)
    assert len(frame) == len(dataset) == len(records)
    rows = [flat(one) for one in records]
    assert dataset.to_list() == rows
    back = json.loads(frame.to_json(orient="records", double_precision=15))
    assert [one["asr"] is None for one in back] == [row["asr"] is None for row in rows]
    assert frame["cacc_n"].dtype == "Int64" and frame["limit"].isna().any()
    assert len(to_pandas([])) == len(to_dataset([])) == 0 and list(to_pandas([]).columns) == list(columns())


def test_logs_of_every_eval_ever_have_its_form() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    hostile = record(model="../../etc/passwd", defense="a\nb|<b>", error=None)
    records = [*board_records(), hostile, record(defense="x", error=FAILED)]
    logs = to_every_eval_ever(records, 1_800_000_000)
    done = {one["key"] for one in records if one["status"] == "ok"}
    assert len(logs) == len(done)
    for path, log in logs.items():
        jsonschema.validate(log, LOG)
        top, suite, developer, model, name = path.split("/")
        assert (top, suite) == ("data", "openbackdoor-bench") and ".." not in (developer, model)
        assert len(name) == 41 and name.endswith(".json") and name.count("-") == 4
    assert len({log["evaluation_id"] for log in logs.values()}) == len(logs)


def test_a_log_says_what_its_record_says() -> None:
    hub = {"model": {"hub": "google-bert/bert-base-uncased"}}
    ((path, log),) = to_every_eval_ever([record(options=hub)], 1_800_000_000).items()
    assert path.startswith("data/openbackdoor-bench/google-bert/bert-base-uncased/")
    results = {one["metric_config"]["metric_name"]: one for one in log["evaluation_results"]}
    assert results["Attack success rate"]["score_details"]["score"] == 600 / 912
    assert results["Attack success rate"]["metric_config"]["lower_is_better"]
    assert not results["Clean accuracy"]["metric_config"]["lower_is_better"]
    assert log["model_info"]["additional_details"]["intentionally_backdoored"] == "true"
    assert log["eval_library"] == {
        "name": "openbackdoor-bench",
        "version": "0.1.0",
        "additional_details": log["eval_library"]["additional_details"],
    }


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run folder of three records, in an empty working folder."""
    (tmp_path / "run" / "records").mkdir(parents=True)
    for one in (record(), record(seed=1), record(seed=2, error=FAILED)):
        (tmp_path / "run" / "records" / f"{one['key']}.json").write_text(json.dumps(one), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["export", *arguments])


def test_each_form_is_written_once_and_read_back(run: Path) -> None:
    import datasets
    import pandas

    for form, count in (("pandas", 3), ("datasets", 3), ("every-eval-ever", 2)):
        result = export("run", "--to", form)
        assert result.exit_code == 0 and f"{count} records" in result.output, result.output
        again = export("run", "--to", form)
        assert again.exit_code == 2 and "already there" in again.stderr
    assert list(pandas.read_parquet(run / "records.parquet")["seed"].sort_values()) == [0, 1, 2]
    assert len(datasets.load_from_disk(str(run / "records-dataset"))) == 3
    assert len(list((run / "every-eval-ever").glob("data/openbackdoor-bench/local/bert-base/*.json"))) == 2
    chosen = export("run#seed=1", "--to", "pandas", "--into", "one.parquet")
    assert chosen.exit_code == 0 and list(pandas.read_parquet("one.parquet")["seed"]) == [1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("nowhere", "--to", "pandas"),
        ("run#seed=9", "--to", "pandas"),
        ("run#sed=1", "--to", "pandas"),
        ("run#", "--to", "datasets"),
        ("run", "--to", "pandas", "--into", "x.csv"),
        ("run", "--to", "excel"),
        ("run", "--to", "pandas", "--into", "run/records"),
    ],
)
def test_a_wrong_export_writes_nothing(run: Path, arguments: tuple[str, ...]) -> None:
    before = sorted(run.rglob("*"))
    result = export(*arguments)
    assert result.exit_code == 2 and "Error" in result.stderr and "Traceback" not in result.output
    assert sorted(run.rglob("*")) == before
