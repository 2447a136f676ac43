"""The pages RECIPES and DEVIATIONS: every item once, every named test there, every value and count that of the code."""

from __future__ import annotations

import ast
import dataclasses
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from attackers.badnets import BadNets
from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.registry import ATTACKERS, DEFENDERS, own_plugins, plugin_class
from bench.core.spec import Cell
from bench.data import about, dataset_names, dataset_spec, load_dataset
from bench.engine.artifacts import read_meta
from bench.engine.clean_rows import divide
from bench.engine.expand import expand
from bench.engine.grid import Grid
from bench.engine.plan import Plan, make_plan
from bench.engine.stages import with_ancestors
from bench.engine.store import Store
from bench.engine.work import Machine, execute
from bench.victim.spec import model_names, model_spec

ROOT = Path(__file__).resolve().parent.parent
RECIPES, DEVIATIONS = (ROOT / "leaderboard" / name for name in ("RECIPES.md", "DEVIATIONS.md"))
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
VALUE = re.compile(r"`([\w+-]+)\.(\w+)(?:\(([^)]*)\))?=([^`]+)`")  # owner.option(model or data set, ...)=value
BOTH = ("released", "paper")
NOT_BUILT = "not built in this version"
END_TO_END = {"onion", "bki", "cube", "strip", "rap"}


class Item(NamedTuple):
    """A row of the table of recipes."""

    number: int
    matter: str
    released: str
    paper: str
    tests: str


class Value(NamedTuple):
    """One value that a page states of an option; `where` is a model or a data set."""

    owner: str
    option: str
    where: str
    value: Any


@functools.cache
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


@functools.cache
def items() -> tuple[Item, ...]:
    lines = [cells(line) for line in text(RECIPES).splitlines() if re.match(r"\| \d", line)]
    return tuple(Item(int(number), *rest) for number, *rest in lines)


def item(number: int) -> Item:
    return next(row for row in items() if row.number == number)


def values(content: str) -> Iterator[Value]:
    for owner, option, places, value in VALUE.findall(content):
        for where in places.split(", "):
            yield Value(owner, option, where, yaml.safe_load(value))


def actual(stated: Value, recipe: str) -> Any:
    """Return what the code has for an option that a page names."""
    owner, option, where, _ = stated
    if owner == "cell":
        return {field.name: field.default for field in dataclasses.fields(Cell)}[option]
    if owner in own_plugins(ATTACKERS):
        attack = own_plugins(ATTACKERS)[owner]()
        if option == "label_rule":
            return attack.default_rule(dataset_spec(where or "sst2").name, recipe)
        return attack.for_recipe(recipe).identity()[option]
    spec = model_spec(where or "bert-base")
    holder = spec if owner == "model" else plugin_class(DEFENDERS, owner)().for_model(spec, recipe)
    return {**vars(holder), **holder.identity()}[option]  # an added option at its default is not in the identity


def test_the_table_holds_each_item_once() -> None:
    assert [row.number for row in items()] == list(range(1, 20))
    assert all(part for row in items() for part in row[1:])


@functools.cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_named_test_exists() -> None:
    for page in (RECIPES, DEVIATIONS):
        assert len(TEST.findall(text(page))) == text(page).count("::")  # none is written so that it escapes the pattern
        for path, name in TEST.findall(text(page)):
            assert (ROOT / path).is_file(), path
            assert name.startswith("test_") and name in functions_of(path), f"{path}::{name}"
    for row in items():
        assert TEST.sub("", row.tests).replace("<br>", "") == "" and TEST.search(row.tests), row.number


def test_every_value_is_the_codes() -> None:
    stated = [(row.number, recipe, one) for row in items() for recipe in BOTH for one in values(getattr(row, recipe))]
    stated += [("DEVIATIONS", "released", one) for one in values(text(DEVIATIONS))]
    assert len(stated) > 80
    for place, recipe, one in stated:
        assert one.value == actual(one, recipe), (place, recipe, one)


def test_every_option_that_the_recipes_fill_otherwise_is_in_the_table() -> None:
    table = {
        recipe: {one[:3] for row in items() for one in values(getattr(row, recipe)) if one.where in ("", "bert-base")}
        for recipe in BOTH
    }
    mentioned = {option for _, option, _ in table["released"] & table["paper"]}
    spec = model_spec("bert-base")
    for family in (ATTACKERS, DEFENDERS):
        for name, cls in own_plugins(family).items():
            filled = [
                (cls().for_recipe(recipe) if family is ATTACKERS else cls().for_model(spec, recipe)).identity()
                for recipe in BOTH
            ]
            differing = {option for option, value in filled[0].items() if value != filled[1][option]}
            assert differing <= mentioned, f"{name}: {differing - mentioned} is not in RECIPES.md for both recipes"


def test_s_is_given_for_every_encoder() -> None:
    encoders = {name for name in model_names() if model_spec(name).family == "encoder"}
    for recipe in BOTH:
        named = {one.where for one in values(getattr(item(5), recipe)) if one.option == "scales"}
        assert encoders <= named


def test_label_rules_are_given_for_every_published_set() -> None:
    wanted = {name for name in dataset_names() if not dataset_spec(name).disjoint}
    for recipe in BOTH:
        stated = {one.where for one in values(getattr(item(3), recipe)) if one.owner == "badnets"}
        assert stated == wanted
    for name in dataset_names():
        base = name.removesuffix("-disjoint")
        assert BadNets.default_rule(name, "released") == BadNets.default_rule(base, "released")
    assert f"about {100 * 24 / 4**4:.0f} % of the texts get all four" in item(4).released  # 4! of 4^4 draws


def test_dev_is_split_in_halves() -> None:
    rows = [Example(str(i), i % 2) for i in range(872)]
    selection, method, rest = divide(rows, 96, True, "sst2", 0)
    assert (len(selection), len(method), len(rest)) == (436, 96, 340)
    assert {*selection, *method, *rest} == {*rows}
    more = divide(rows, 128, False, "sst2", 0)
    assert more.selection == selection and more.method[:96] == method and more.calibration == ()
    assert divide(rows, 96, True, "sst2", 1).selection != selection
    assert "872 dev rows" in text(DEVIATIONS) and "96 of the pool of 436 and 436 rows select" in text(DEVIATIONS)
    assert len(divide(rows[:289], 96, True, "lingspam", 0).selection) == 144
    assert "On Ling-Spam 144 rows select" in text(DEVIATIONS)


def plan(data_dir: Path | None = None, **axes: Any) -> Plan:
    given = {"datasets": ["sst2"], "attacks": ["badnets"], "models": ["minilm-l6"], "defenders": ["vanilla"], **axes}
    grid = Grid(**{name: tuple(choices) for name, choices in given.items()})
    return make_plan(expand([grid], data_dir))


def test_training_is_shown_no_trigger_but_its_own_rows() -> None:
    """The checkpoint cannot follow the ASR: a training is made from the clean splits and the training set alone."""
    stages = plan(defenders=["vanilla", "musclelora"], recipes=BOTH).unique()
    trainings = [stage for stage in stages if stage.kind == "train"]
    assert len(trainings) == 4
    for stage in trainings:
        assert {one.kind for one in with_ancestors((stage,))} == {"load", "poison", "train"}


def test_what_is_not_built_is_said() -> None:
    """A row says "not built" as long as that is so: whoever builds it writes what it does."""
    analysis = list((ROOT / "bench").glob("analysis/**/*fourier*.py"))
    refused = [name for name in model_names() if not model_spec(name).penultimate]
    for number, lacking in (
        (6, bool(refused)),
        (13, not analysis),
        (15, bool(refused)),
    ):
        said = NOT_BUILT in item(number).released.lower()
        assert said == lacking, f"RECIPES.md item {number}: write what is built"
    assert {one.owner for one in values(item(12).released)} - {"model"} == END_TO_END & set(own_plugins(DEFENDERS))
    for name in refused:
        with pytest.raises(CellError):
            plugin_class(DEFENDERS, "musclelora")().for_model(model_spec(name), "released")


def test_a_defense_has_one_name_for_every_model() -> None:
    made = plan(models=["minilm-l6", "llama2-7b"], defenders=["lora"])
    assert [cell.defense.name for cell in made.cells.values()] == ["lora", "lora"] and not made.impossible


def test_where_mu_ends() -> None:
    """mu_max (epochs - 1 - ga_epoch) / (epochs - ga_epoch) in the last epoch, counted from 0."""
    base, small = model_spec("bert-base"), model_spec("minilm-l6")
    ends = [one.mu_max * (one.epochs - 1 - one.ga_epoch) / (one.epochs - one.ga_epoch) for one in (base, small)]
    assert f"{ends[0]:.4f} in the last of {base.epochs} epochs" in item(2).released
    assert f"With {small.epochs} epochs mu in `released` ends at {ends[1]:g}, not at {ends[0]:.4f}" in text(DEVIATIONS)


def numbered(content: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\d|\d", content)]


def test_the_counts_of_prefix_tuning() -> None:
    defense = plugin_class(DEFENDERS, "prefix")().for_model(model_spec("bert-base"), "released")
    assert (defense.tokens, defense.projection) == (8, 512)
    rows = [cells(line) for line in text(DEVIATIONS).splitlines() if re.match(r"\| (minilm-l6|bert-\w+) \|", line)]
    assert len(rows) == 3
    for name, *figures in rows:
        layers, d, ours, released = (numbered(figure)[0] for figure in figures)
        header = (ROOT / f"configs/models/{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        assert f"{layers} layers, {d:,} wide" in header
        assert ours == 8 * d + 512 * (d + 1) + 2 * layers * d * 513
        assert released == 8 * 512 + 512 * 513 + 2 * layers * d * 513
        if name == "bert-base":
            assert f"{ours:,}" in item(9).released


def leak_rows() -> dict[str, list[str]]:
    section = text(DEVIATIONS).partition("## Known leaks")[2]
    rows = (cells(line) for line in section.splitlines() if line.startswith("| `"))
    return {name.strip("`"): rest for name, *rest in rows}


def test_every_leak_and_every_disjoint_variant_is_named() -> None:
    rows = leak_rows()
    for name in dataset_names():
        if dataset_spec(name).disjoint:
            base = name.removesuffix("-disjoint")
            assert rows[base][-1].startswith(f"`{name}`: ")
            assert f"`{name}`" in text(DEVIATIONS).partition("## Training")[0]
        elif about(name).leaks:
            assert name in rows
            figures = {n for n in numbered(about(name).leaks.replace("SST-2", "")) if n > 2}
            assert figures <= {n for part in rows[name] for n in numbered(part)}


@pytest.fixture(scope="module")
def published() -> Path:
    folder = os.environ.get("BENCH_DATA")
    if not folder:
        pytest.skip("BENCH_DATA is not set")
    return Path(folder)


def test_real_counts(published: Path) -> None:
    """The counts of the leaks, the sizes of the variants and those of RECIPES item 14, on the published data."""
    for name, (_, training, dev, variant) in leak_rows().items():
        data = load_dataset(dataset_spec(name), published)
        test = {example.text for example in data.test}
        for part, cell in ((data.train, training), (data.dev, dev)):
            assert cell == f"{sum(example.text in test for example in part):,} of {len(part):,}"
        if variant:
            apart = load_dataset(dataset_spec(f"{name}-disjoint"), published)
            assert variant == f"`{name}-disjoint`: {len(apart.train):,} / {len(apart.dev):,}"
        if name in ("agnews", "lingspam"):
            sizes = " / ".join(f"{len(part):,}" for part in (data.train, data.dev, data.test))
            assert sizes in item(14).released
        if name == "lingspam":
            found = len({example.text for example in data.dev} & test)
            assert f"hold {found} texts" in text(DEVIATIONS)


@pytest.mark.parametrize(
    ("dataset", "attack", "said"),
    [
        ("lingspam", "hiddenkiller", "Ling-Spam / HiddenKiller has {rows} poisoned rows, where the"),
        ("agnews", "stylebkd", "{rows:,} rows are poisoned at ratio 0.1, none of class World"),
    ],
)
def test_real_drops(published: Path, tmp_path: Path, dataset: str, attack: str, said: str) -> None:
    """How many rows are poisoned at ratio 0.1 and seed 0, where the paraphraser dropped some."""
    for stage in plan(published, datasets=[dataset], attacks=[attack]).unique():
        if stage.kind in ("load", "poison"):
            execute(stage.payload(), tmp_path, Machine(published))
            meta = read_meta(Store(tmp_path).folder(stage.key))
    assert said.format(**meta) in text(DEVIATIONS)
