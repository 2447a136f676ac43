"""Files under generated content: grids, tables, banks, specs and model folders are read or refused, nothing else."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from attackers.badnets import BadNets
from bench.cli import app
from bench.core.errors import BenchError, CellError, DataError, RequestError
from bench.core.options import build
from bench.core.spec import Cell, Part
from bench.core.yaml_text import MOST_VALUES, read_yaml
from bench.data.readers import READERS, read_poison, read_rows
from bench.data.spec import DatasetSpec
from bench.data.tables import SUFFIXES, by_name, class_names, label_of, read_table
from bench.engine.grid import Grid, load_grid
from bench.victim.loading import checked_folder
from bench.victim.spec import ModelSpec, model_spec
from defenders.lora import Lora
from defenders.strip import Strip
from tests.hostile.strategies import examples, hostile, values
from tests.tiny import tiny_model

GRID_KEYS = [field.name for field in dataclasses.fields(Grid)]
SPECS = (Cell, DatasetSpec, ModelSpec, Grid, BadNets, Lora, Strip)
GOOD_TABLE = b"text,label\n" + b"".join(b"a fine film %d,%d\n" % (i, i % 2) for i in range(30))
GOOD_BANK = "".join(f'{i},"a, text",1,1\n' for i in range(5))


def documents() -> st.SearchStrategy[bytes]:
    """Return contents of a YAML file: mappings with some of a grid's keys, any YAML, any bytes."""
    keys = st.sampled_from(GRID_KEYS) | hostile()
    mapping = st.dictionaries(keys, values(), min_size=1, max_size=4)
    dumped = mapping.map(lambda value: yaml.dump(value, allow_unicode=True).encode("utf-8", "surrogatepass"))
    tags = st.sampled_from(["object:os.system", "object/apply:os.system ['true']", "name:os.system", "module:os"])
    tagged = st.tuples(st.sampled_from(GRID_KEYS), tags).map(lambda pair: f"{pair[0]}: !!python/{pair[1]}\n".encode())
    return dumped | tagged | hostile().map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=40)


@given(documents())
@examples("grid files")
def test_a_grid_file_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "g.yaml"
    path.write_bytes(content)
    try:
        grid = load_grid(str(path))
    except RequestError as error:
        assert error.problem and error.remedy
    else:
        assert isinstance(grid, Grid)
        json.dumps(grid.identity())


def test_a_yaml_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(ValueError, match=f"more than {MOST_VALUES:,} values"):
        read_yaml("\n".join(lines))
    with pytest.raises(ValueError, match="nested too deeply"):
        read_yaml("[" * 5000)


def good_choices() -> st.SearchStrategy[Any]:
    """Return values that fit some field of some spec, so that the others are reached."""
    part = st.just(Part("demo", {}))
    return part | st.sampled_from([0, 1, 0.1, "demo", ("a", "b"), {}, None, "encoder", "custom", "mix"])


@pytest.mark.slow
@given(st.sampled_from(SPECS), st.data())
@examples("specs")
def test_a_spec_is_made_or_refused(cls: type, data: st.DataObject) -> None:
    names = st.sampled_from([field.name for field in dataclasses.fields(cls)]) | hostile()
    options = data.draw(st.dictionaries(names, good_choices() | values(), max_size=5))
    try:
        made = build(cls, options, "spec", cls.__name__)
    except (RequestError, CellError) as error:
        assert error.problem and str(error)
    else:
        for name, value in options.items():
            kept = getattr(made, name)
            assert kept == value or isinstance(value, list) or (kept != kept and value != value)


def tables() -> st.SearchStrategy[bytes]:
    """Return contents of a table: a good one with bytes replaced, rows of hostile values, any bytes."""
    places = st.tuples(st.integers(0, len(GOOD_TABLE)), st.integers(0, 20), st.binary(max_size=8))
    spliced = places.map(lambda cut: GOOD_TABLE[: cut[0]] + cut[2] + GOOD_TABLE[cut[0] + cut[1] :])
    row = st.fixed_dictionaries({"text": values(), "label": values()}).map(_json_line)
    rows = st.lists(row | hostile(), max_size=4).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))
    return (
        spliced
        | rows
        | st.binary(max_size=60)
        | st.sampled_from([b'{"text":' + b"[" * 5000, b'{"label": ' + b"9" * 5000])
    )


def _json_line(row: dict[str, Any]) -> str:
    return json.dumps(row, default=str)


@given(tables(), st.sampled_from(SUFFIXES))
@examples("tables")
def test_a_table_is_read_or_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(content)
    limit = csv.field_size_limit()
    try:
        entries = read_table(path, "text", "label")
        names = class_names(entries, ()) if entries else ()
        labels = [label_of(entry, names, by_name(entries, names)) for entry in entries]
    except DataError as error:
        assert str(path) in error.problem and error.remedy
    else:
        assert all(0 <= label < len(names) for label in labels)
        assert all(entry.text.strip() and "\0" not in entry.text for entry in entries)
        "".join(entry.text + entry.label for entry in entries).encode("utf-8")
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_wrong_table_stops_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"mine{suffix}"
    for content in (b"", b"\xff\xfe", b"text,label\n\0,1\n", b'{"text": "\\ud800", "label": 1}', b"[" * 5000):
        path.write_bytes(content)
        for command in (["plan", "--grid", "demo"], ["explain"], ["run", "--grid", "demo"]):
            result = CliRunner().invoke(app, [*command, "--datasets", path.name])
            assert result.exit_code == 2 and isinstance(result.exception, SystemExit), (content, command)
        assert [item.name for item in tmp_path.iterdir()] == [path.name]


def spliced_banks() -> st.SearchStrategy[str]:
    """Return a good poison file with a hostile text put in somewhere, or that text alone."""
    places = st.tuples(st.integers(0, len(GOOD_BANK)), hostile())
    return hostile() | places.map(lambda cut: GOOD_BANK[: cut[0]] + cut[1] + GOOD_BANK[cut[0] :])


@given(spliced_banks(), st.sampled_from([*READERS]))
@examples("banks")
def test_a_published_file_is_read_or_refused(text: str, form: str) -> None:
    for read in (lambda: read_poison(text, "bank.csv"), lambda: read_rows(form, text, "rows.tsv")):
        try:
            read()
        except DataError as error:
            assert error.problem.startswith(("bank.csv", "rows.tsv")) and error.remedy


@given(st.dictionaries(st.sampled_from(["model_type", "auto_map", "x"]), values(), max_size=3) | values() | hostile())
@examples("model folders")
def test_a_model_folder_is_taken_or_refused(tmp_path: Path, config: Any) -> None:
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    text = config if isinstance(config, str) else json.dumps(config, default=str)
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        spec = model_spec(str(folder))
    except BenchError as error:
        assert error.problem and error.remedy
        spec = ModelSpec(name="m", path=str(folder))
    with pytest.raises(CellError):  # no weights in safetensors, or code of its own
        checked_folder(spec)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pkl", "model.pt"])
def test_pickled_weights_and_code_of_its_own_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / name).write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(CellError, match="pickled weights are never loaded"):
        checked_folder(ModelSpec(name="m", path=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "bert", "auto_map": {"AutoModel": "evil.Model"}}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CellError, match="code of its own"):
        checked_folder(ModelSpec(name="m", path=str(tmp_path)))


@pytest.mark.parametrize("left", [0, 7, 100, -1])
def test_weights_whose_download_broke_off_are_refused_before_anything_runs(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, left: int
) -> None:
    model = tiny_model(tmp_path_factory, "bert")
    for path in model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spec = ModelSpec(name="m", path=str(tmp_path))
    assert checked_folder(spec) == tmp_path
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:left])
    with pytest.raises(CellError, match=r"model.safetensors of model 'm' .* is damaged or not whole"):
        checked_folder(spec)
