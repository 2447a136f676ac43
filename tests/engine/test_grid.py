"""Grid files: all of ours load; a wrong file is one sentence with a remedy, whatever is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.core.errors import BenchError, RequestError
from bench.core.options import option_names
from bench.engine.expand import expand
from bench.engine.grid import Grid, grid_names, load_grid, narrowed

WHOLE = {"datasets": ["demo"], "attacks": ["addsent"], "defenders": ["vanilla"], "models": ["bert-base"]}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """A function that writes a grid file and returns its path."""

    def put(content: Any, name: str = "mine.yaml") -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
        return str(path)

    return put


def test_the_grids_that_come_along() -> None:
    assert {"demo", "cpu", "table1", "table3", "full"} <= set(grid_names())


@pytest.mark.parametrize("name", grid_names())
def test_every_grid_loads_and_expands(name: str) -> None:
    grid = load_grid(name)
    assert grid.name == name and grid.about
    cells = expand(grid.blocks()).cells
    assert cells and all(cell.key == key for key, cell in cells.items())


@pytest.mark.parametrize("name", ["demo", "cpu", "full"])
def test_the_grids_with_a_clean_control_hold_it(name: str) -> None:
    assert 0.0 in load_grid(name).poison_ratios


def test_a_file_is_read_by_its_path(write: Callable[..., str]) -> None:
    grid = load_grid(write({**WHOLE, "seeds": [0, 1], "about": "mine"}, "my grid.yml"))
    assert (grid.name, grid.about, grid.seeds, grid.datasets) == ("my grid", "mine", (0, 1), ("demo",))
    assert load_grid(write(WHOLE, "no_suffix")).name == "no_suffix"


def test_a_single_value_stands_for_a_list_of_one(write: Callable[..., str]) -> None:
    grid = load_grid(write("datasets: demo\nseeds: 3\npoison_ratios: 5e-2\nlimit: 10\nlabel_rules: mix"))
    assert (grid.datasets, grid.seeds, grid.poison_ratios, grid.limit) == (("demo",), (3,), (0.05,), 10)
    assert grid.label_rules == ("mix",)


def test_defaults() -> None:
    grid = Grid()
    assert (grid.poison_ratios, grid.target_labels, grid.seeds) == ((0.1,), (1,), (0,))
    assert (grid.recipes, grid.precisions, grid.label_rules, grid.limit) == (("released",), ("fp32",), None, None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("datasets: [demo\nattacks: x", "is not valid YAML: .*line 2"),
        ("datasets: [demo]\n\tseeds: 1", "is not valid YAML: .*line 2"),
        ("seeds: [0]\nseeds: [1]", "is not valid YAML: 'seeds' stands twice in line 2"),
        ("1: [0]", "a key is no word"),
        ("a: &x [*x]", "a value holds itself"),
        ("[" * 700, "nested too deeply"),
        ("seeds: " + "9" * 5000, "is not valid YAML"),
        ("seeds: !!timestamp 2024-13-45", "is not valid YAML"),
        ("set: {defense.x: !!set {a}}", "which JSON does not have"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"about: a\x00b", "is not valid YAML"),
        ("", "is no mapping"),
        ("- demo", "is no mapping"),
        ("demo", "is no mapping"),
        ("42", "is no mapping"),
        ("dataset: [demo]", "There is no option of grid .* named 'dataset'. Did you mean 'datasets'?"),
        ("attackers: [badnets]", "named 'attackers'. Did you mean 'attacks'?"),
        ("seed: 1", "Did you mean 'seeds'?"),
        ("poison_ratios: [0.1, 1.5]", r"poison_ratios is \[0.1, 1.5\]: 1.5 should be less than or equal to 1"),
        ("poison_ratios: -0.1", "greater than or equal to 0"),
        ("poison_ratios: .nan", "poison_ratios is"),
        ("poison_ratios: ['0.1']", "valid number"),
        ("poison_ratios: [true]", "valid number"),
        ("poison_ratios: 10%", "valid number"),
        ("seeds: [-1]", "greater than or equal to 0"),
        ("seeds: [1.5]", "valid integer"),
        ("seeds: ['1']", "valid integer"),
        ("seeds: [true]", "valid integer"),
        ("seeds: []", "at least 1 item"),
        ("poison_ratios: []", "at least 1 item"),
        ("target_labels: []", "at least 1 item"),
        ("label_rules: []", "at least 1 item"),
        ("recipes: []", "at least 1 item"),
        ("precisions: []", "at least 1 item"),
        ("seeds:", "seeds is None"),
        ("datasets:", "datasets is None"),
        ("datasets: [5]", "datasets is"),
        ("datasets: ['']", "datasets is"),
        ("datasets: [' ']", "datasets is"),
        ("target_labels: [one]", "valid integer"),
        ("label_rules: [cleanish]", "'clean', 'dirty' or 'mix'"),
        ("recipes: [mine]", "'released' or 'paper'"),
        ("precisions: [fp16]", "'fp32' or 'bf16'"),
        ("limit: 0", "greater than or equal to 1"),
        ("limit: [10]", "valid integer"),
        ("set: [model.epochs]", "valid dictionary"),
        ("set:", "set is None"),
        ("name: ''", "name is ''"),
        ("grids: [5]", "grids is"),
        ("grids: [demo]\nseeds: [0]\nlimit: 9", "no cells of its own for its limit, seeds: it only unites demo"),
        ("grids: [demo]\ndatasets: []\nset: {model.epochs: 1}", "no cells of its own for its set: it only unites demo"),
    ],
    ids=lambda item: str(item)[:28],
)
def test_a_wrong_file_is_one_sentence(write: Callable[..., str], content: Any, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as caught:
        load_grid(write(content))
    assert caught.value.remedy and "\n" not in caught.value.problem


@pytest.mark.parametrize("axis", ["datasets", "attacks", "defenders", "models"])
def test_an_axis_without_an_entry_is_named(write: Callable[..., str], axis: str) -> None:
    for content in ({**WHOLE, axis: []}, {key: value for key, value in WHOLE.items() if key != axis}):
        with pytest.raises(RequestError, match=f"Grid 'mine' names no {axis}. Give {axis} at least one entry."):
            load_grid(write(content)).blocks()


def test_an_unknown_grid_gets_the_nearest() -> None:
    with pytest.raises(RequestError, match="There is no grid named 'demmo'. Did you mean 'demo'?"):
        load_grid("demmo")
    with pytest.raises(RequestError, match="There is no grid file nowhere.yaml. Name a file, or one of: .*cpu, demo"):
        load_grid("nowhere.yaml")


@pytest.mark.parametrize("name", ["", " ", "/", ".", "..", "x" * 5000, "a\0b", "demo/../demo", "démo"])
def test_a_strange_name_is_an_unknown_grid(name: str) -> None:
    with pytest.raises(RequestError, match="There is no grid "):
        load_grid(name)


def test_a_folder_is_no_grid(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="There is no grid"):
        load_grid(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(write: Callable[..., str]) -> None:
    path = write(WHOLE)
    Path(path).chmod(0)
    with pytest.raises(RequestError, match="cannot be read: Permission denied"):
        load_grid(path)


def test_ours_win_over_a_file_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").write_text("seeds: [77]", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_grid("demo").seeds == (0,) and load_grid("./demo").seeds == (77,)


def test_grids_unite_others_with_their_own_cells(write: Callable[..., str]) -> None:
    other = write({**WHOLE, "seeds": [1]}, "other.yaml")
    both = load_grid(write({**WHOLE, "grids": [other, other]}))
    assert [block.seeds for block in both.blocks()] == [(1,), (1,), (0,)]
    assert [cell.seed for cell in expand(both.blocks()).cells.values()] == [1, 0]
    assert [block.seeds for block in load_grid(write({"grids": other})).blocks()] == [(1,)]


def test_grids_in_a_circle_are_refused(write: Callable[..., str], tmp_path: Path) -> None:
    write({"grids": [str(tmp_path / "b.yaml")]}, "a.yaml")
    write({"grids": [str(tmp_path / "a.yaml")]}, "b.yaml")
    with pytest.raises(RequestError, match="Grid 'a' unites itself: a > b > a. Break the circle."):
        load_grid(str(tmp_path / "a.yaml")).blocks()
    with pytest.raises(RequestError, match="unites itself: c > c"):
        load_grid(write({"grids": [str(tmp_path / "c.yaml")]}, "c.yaml")).blocks()
    with pytest.raises(RequestError, match="There is no grid named 'tabel1'. Did you mean 'table1'"):
        load_grid(write({"grids": ["tabel1"]})).blocks()


def test_a_path_under_grids_is_relative_to_the_file_that_names_it(tmp_path: Path, monkeypatch: Any) -> None:
    for name, content in (
        ("one/grid.yaml", {"grids": ["two/grid.yaml", "../beside.yml", "demo"]}),
        ("one/two/grid.yaml", {**WHOLE, "seeds": [2]}),
        ("beside.yml", {**WHOLE, "seeds": [3]}),
        ("two/grid.yaml", {**WHOLE, "seeds": [4]}),  # what the working folder would give
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    blocks = load_grid("one/grid.yaml").blocks()
    assert [block.seeds for block in blocks] == [(2,), (3,), (0,)]
    with pytest.raises(RequestError, match="There is no grid file one/none.yaml"):
        load_grid("one/none.yaml")


def test_what_a_grid_sets_of_a_defense_goes_when_the_defense_is_narrowed_away() -> None:
    grid = Grid(
        **{**WHOLE, "attacks": ["badnets"], "defenders": ["strip", "vanilla"]},
        set={"defense.frr": 0.05, "attack.num_triggers": 2},
    )
    assert len(expand([grid]).cells) == 2
    alone = narrowed([grid], {"defenders": ("vanilla",)})
    assert [block.set for block in alone] == [{"attack.num_triggers": 2}] and len(expand(alone).cells) == 1
    kept = narrowed([grid], {"defenders": ("strip",), "attacks": ("addsent",)})
    assert [block.set for block in kept] == [{"defense.frr": 0.05}]
    # What was asked for on the command line, or is nobody's option, is still refused.
    with pytest.raises(RequestError, match="no option of any chosen defense named 'frr'"):
        expand(narrowed([grid], {"defenders": ("vanilla",), "set": {"defense.frr": 0.1}}))
    wrong = Grid(**{**WHOLE, "defenders": ["strip"]}, set={"defense.frrr": 0.05})
    with pytest.raises(RequestError, match="no option of any chosen defense named 'frrr'"):
        expand(narrowed([wrong], {"defenders": ("vanilla",)}))


def test_narrowing_replaces_axes_and_adds_settings() -> None:
    blocks = [Grid(**WHOLE, set={"model.epochs": 3, "model.batch_size": 8}), Grid(**WHOLE, seeds=(5,))]
    changed = narrowed(blocks, {"seeds": (1, 2), "attacks": ("badnets",), "limit": 9, "set": {"model.epochs": 1}})
    assert [block.seeds for block in changed] == [(1, 2), (1, 2)]
    assert [block.attacks for block in changed] == [("badnets",), ("badnets",)]
    assert [block.set for block in changed] == [{"model.epochs": 1, "model.batch_size": 8}, {"model.epochs": 1}]
    assert [block.limit for block in changed] == [9, 9] and blocks[0].seeds == (0,)
    assert narrowed(blocks, {}) == blocks


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seeds": ()}, "seeds is replaced by nothing"),
        ({"datasets": ()}, "datasets is replaced by nothing"),
        ({"poison_ratios": (1.5,)}, r"poison_ratios is \(1.5,\): 1.5 should be less than or equal to 1"),
        ({"seeds": ("a",)}, "valid integer"),
        ({"limit": 0}, "limit is 0"),
    ],
)
def test_narrowing_to_nonsense_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        narrowed([Grid(**WHOLE)], changes)


WORDS = st.text(max_size=12) | st.sampled_from(
    ["demo", "all", "vanilla", "lora(rank=2)", "badnets", "5e-4", "model.epochs"]
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.integers(0, 3) | st.floats() | st.sampled_from([0, 0.1, 1]) | WORDS
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6
)
KEYS = st.sampled_from(option_names(Grid)) | WORDS


@given(st.dictionaries(KEYS, VALUES, max_size=3))
@settings(
    database=None,
    derandomize=True,
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_values_load_or_are_a_wrong_request(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump({**WHOLE, **content}, allow_unicode=True), encoding="utf-8", errors="replace")
    try:
        blocks = load_grid(str(path)).blocks()
    except RequestError as error:
        assert error.remedy
        return
    try:
        expand(blocks)
    except BenchError as error:  # a path to data of one's own may be named, and be broken
        assert error.remedy


@given(st.sampled_from([name for name in option_names(Grid) if name != "grids"]), VALUES)
@settings(database=None, derandomize=True, deadline=None, max_examples=200)
def test_any_value_of_a_key_builds_or_is_a_wrong_request(name: str, value: Any) -> None:
    try:
        grid = Grid(**{name: value})
    except RequestError as error:
        assert error.problem.startswith(f"{grid_label(name, value)}.{name} is ")
    else:
        assert getattr(grid, name) is not None or value is None


def grid_label(name: str, value: Any) -> str:
    """Return the name under which a grid with this one field set is spoken of."""
    return str(value or "Grid") if name == "name" else "grid"
