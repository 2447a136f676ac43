"""Records under generated damage: every command that reads them refuses them in a sentence, or shows them whole."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bench import compare, load_records, to_dataset, to_every_eval_ever, to_pandas
from bench.cli import app
from bench.core.errors import BenchError
from bench.engine.store import Store
from bench.report.render import render
from tests.hostile.strategies import examples, values
from tests.report.fixtures import board_records, record

PUBLISHED = Path(__file__).resolve().parents[2] / "leaderboard" / "records.jsonl"
GOOD = [*board_records()[::20], record(error=("CellError", "no bank", "make one")), *load_records(PUBLISHED)[:3]]


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path of everything in a record but the record itself."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*path, name)
            yield from places(item, (*path, name))


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """Return a record in which one or two places are gone, or hold something else."""
    spoilt = copy.deepcopy(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 2))):
        *inside, last = draw(st.sampled_from(list(places(spoilt))))
        place = spoilt
        for name in inside:
            place = place[name]
        if draw(st.booleans()):
            del place[last]
        else:
            place[last] = draw(values())
    return spoilt


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(one, default=str)}\n" for one in records), encoding="utf-8")
    return path


@pytest.mark.slow
@given(damaged())
@examples("records")
def test_a_damaged_record_is_refused_or_serves_every_reader(tmp_path: Path, spoilt: dict[str, Any]) -> None:
    path = write(tmp_path / "records.jsonl", [spoilt])
    try:
        (found,) = load_records(path)
    except BenchError as error:
        assert "line 1" in error.problem and error.remedy
        return
    pages = render([found, *GOOD[:3]], every_table=False)
    for page in pages.values():
        page.encode("utf-8")
        assert "<script>" not in page and "\x1b" not in page and "\u202e" not in page
    assert len(to_pandas([found])) == 1 and len(to_dataset([found])) == 1
    json.dumps(to_every_eval_ever([found], 0), allow_nan=False)


@pytest.mark.slow
@given(damaged(), st.sampled_from(["table", "publish", "compare", "explain", "export"]))
@examples("record commands")
def test_a_command_over_a_damaged_record_ends_in_words(
    tmp_path_factory: pytest.TempPathFactory, spoilt: dict[str, Any], command: str
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "records").mkdir()
    (folder / "records" / "a.json").write_text(json.dumps(spoilt, default=str), encoding="utf-8")
    run = str(folder)
    arguments = {
        "table": ["--out", run],
        "publish": ["--out", run, "--to", f"{run}/board"],
        "compare": [run, run],
        "explain": [run],
        "export": [run, "--to", "every-eval-ever", "--into", f"{run}/logs"],
    }[command]
    result = CliRunner().invoke(app, [command, *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), spoilt
    assert result.exit_code in (0, 2)
    if result.exit_code == 2:
        assert "Error: " in result.stderr and not (folder / "board").exists() and not (folder / "logs").exists()


@pytest.mark.parametrize(
    "text",
    ['{"a": ' * 5000, "9" * 5000, '{"schema_version": 1, "x": "\\ud800"}', "\ufeff{}", "\0", "[]", '"x"', "\x80\x04"],
)
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    for name in ("records.jsonl", "one.json"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(BenchError, match=name):
            load_records(tmp_path / name)


@pytest.mark.parametrize("key", ["../../x", "a/b", "", "ABC", "x" * 40, "0" * 65, "<b>", "a\0b"])
def test_a_key_that_could_name_another_file_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(BenchError, match="key"):
        load_records(write(tmp_path / "r.jsonl", [{**record(), "key": key}]))


def test_hostile_names_are_shown_as_they_are(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "a|b", "**bold**", "[x](javascript:1)", "\u202egnol", "\x1b[31m", "../../x"]
    records = [record(defense=name, cacc=(1600 - place, 1821)) for place, name in enumerate(names)]
    records += [record(defense="vanilla"), record(dataset="<img src=x>"), record(model="a|b|c")]
    (tmp_path / "records").mkdir()
    for one in records:
        (tmp_path / "records" / f"{one['key']}.json").write_text(json.dumps(one), encoding="utf-8")
    for command in (["table", "--out", str(tmp_path)], ["compare", str(tmp_path), str(tmp_path)]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0 and "\x1b" not in result.output and "\u202e" not in result.output
    board = (tmp_path / "tables" / "README.md").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in board and "<script>" not in board and "<img" not in board
    rows = [line for line in board.splitlines() if line.startswith("|")]
    bars = {line.replace("\\|", "").count("|") for line in rows if "bold" in line or "&lt;script" in line}
    assert len(bars) == 1 and "\\*\\*bold\\*\\*" in board


def test_pickled_predictions_are_never_loaded(tmp_path: Path) -> None:
    class Marker:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "executed",))

    one = record()
    one["stages"] = [["load", "c" * 40], ["trigger", "a" * 40], ["evaluate", "e" * 40]]
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / f"{one['key']}.json").write_text(json.dumps(one), encoding="utf-8")
    store = Store(tmp_path / "store")
    with store.draft("e" * 40) as aside:
        np.savez(aside / "predictions.npz", clean=np.array([Marker()], dtype=object))
        store.finish("e" * 40, aside, {"seconds": 0.0})
    (cell,) = compare(str(tmp_path), str(tmp_path))["cells"]
    assert cell["tests"] == {} and "cannot be read" in cell["no_test"]
    assert not (tmp_path / "executed").exists()
