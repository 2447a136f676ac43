"""Reading records: from a folder or a line file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import BenchError
from bench.report.records import canonical, distinct, fault, load_records, usable
from tests.report.fixtures import record


def test_a_run_folder_its_records_folder_and_a_line_file_say_the_same(tmp_path: Path) -> None:
    written = sorted((record(seed=seed) for seed in range(3)), key=lambda one: one["key"])
    (tmp_path / "records").mkdir()
    for one in written:
        (tmp_path / "records" / f"{one['key']}.json").write_text(json.dumps(one), encoding="utf-8")
    # U+2028 breaks a line for Python's splitlines, not for JSON lines.
    lines = [json.dumps({**one, "note": "a\u2028b"}, ensure_ascii=False) for one in written]
    (tmp_path / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert load_records(tmp_path) == load_records(tmp_path / "records") == written
    assert [one["key"] for one in load_records(tmp_path / "records.jsonl")] == [one["key"] for one in written]


def test_an_empty_folder_has_no_records(tmp_path: Path) -> None:
    assert load_records(tmp_path) == []


@pytest.mark.parametrize("name", ["requests.json", "store/manifest.json"])
def test_a_run_that_has_finished_no_cell_has_no_records(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"requests": []}', encoding="utf-8")
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    assert load_records(tmp_path) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 2}', '{"schema_version": 1, "x": NaN}', ""])
def test_an_unreadable_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "good.json").write_text(json.dumps(record()), encoding="utf-8")
    (tmp_path / "spoilt.json").write_text(text, encoding="utf-8")
    with pytest.raises(BenchError, match=r"spoilt\.json"):
        load_records(tmp_path)


def test_a_spoilt_line_is_named_with_its_number(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps(record()) + "\nnot json\n", encoding="utf-8")
    with pytest.raises(BenchError, match=r"records\.jsonl, line 2"):
        load_records(file)


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BenchError, match=r"binary\.json"):
        load_records(tmp_path)


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="nowhere"):
        load_records(tmp_path / "nowhere")


def _changed(**changes: Any) -> dict[str, Any]:
    return {**record(), **changes}


@pytest.mark.parametrize(
    ("spoilt", "word"),
    [
        (_changed(schema_version=99), "schema_version"),
        (_changed(status="running"), "status"),
        (_changed(key=None), "key"),
        (_changed(cell=None), "cell"),
        (_changed(cell={**record()["cell"], "attack": {"options": {}}}), "cell.attack"),
        (_changed(cell={name: value for name, value in record()["cell"].items() if name != "limit"}), "limit"),
        (_changed(cell={**record()["cell"], "poison_ratio": "0.1"}), "poison_ratio"),
        (_changed(metrics=None), "metrics"),
        (_changed(metrics={"cacc": {"value": 1.5}}), "metrics.cacc"),
        (_changed(metrics={"asr": {"value": float("nan")}}), "metrics.asr"),
    ],
)
def test_a_fault_is_named(spoilt: dict[str, Any], word: str) -> None:
    assert word in fault(spoilt)
    assert fault(record()) == fault(record(error=("CellError", "no", ""))) == ""


def test_only_whole_successes_are_usable() -> None:
    assert usable(record())
    assert not usable(record(limit=64))
    assert not usable(record(error=("CellError", "no", "")))


def test_of_a_retried_cell_the_success_counts() -> None:
    failed, done = record(error=("CellError", "no", "")), record()
    assert failed["key"] == done["key"]
    assert distinct([failed, done, dict(done)]) == ([done], [failed])
    early = {"another field": "", **failed}  # whichever comes first as text
    assert canonical(early) < canonical(done) < canonical(failed)
    assert distinct([done, early]) == distinct([early, done]) == ([done], [early])


def test_a_file_of_another_kind_is_never_called_a_record_to_delete(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("text,label\n")
    with pytest.raises(BenchError, match=r"own\.csv holds no records") as caught:
        load_records(tmp_path / "own.csv")
    assert "elete" not in caught.value.remedy
