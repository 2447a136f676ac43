"""Every field of every spec and plug-in, when changed, changes the key of the cell and of the stages it decides."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import pytest

import bench.data
import bench.victim.spec
from bench.core.options import Options, option_names
from bench.core.registry import ATTACKERS, DEFENDERS, Family, names
from bench.core.spec import Cell, Part
from bench.data.spec import DatasetSpec
from bench.engine import plugins
from bench.engine.expand import dataset_part, expand, model_part
from bench.engine.grid import Grid
from bench.engine.stages import VERSION
from bench.victim.spec import ModelSpec, model_spec
from tests.engine.keys import identities_of, keys_of, moved
from tests.engine.test_sharing import CLEANSER, FILTER, REPAIR, STRIP
from tests.engine.varying import Varied, other_spec

MODEL = model_spec("bert-base")
TRAINED = ("lora", "vanilla", FILTER, STRIP, REPAIR, CLEANSER)
EARLY = {"load", "poison", "trigger"}

# Per field of a cell: another value, and the stages that it does not decide.
CELL_FIELDS: dict[str, tuple[Any, set[str]]] = {
    "dataset": (Part("other"), set()),
    "attack": (Part("addsent", {"sentence": "so it is"}), {"load"}),
    "model": (Part("other"), EARLY),
    "defense": (Part("ga"), EARLY),
    "poison_ratio": (0.2, {"load", "trigger"}),
    "label_rule": ("dirty", {"load", "trigger"}),
    "target_label": (0, {"load"}),
    "seed": (1, {"load"}),
    "recipe": ("paper", EARLY),  # and no training that no defense takes part in
    "precision": ("bf16", EARLY),
    "limit": (100, set()),
}
RECIPE = {
    "lora": {"train", "evaluate"},
    "vanilla": set(),
    FILTER: {"filter", "evaluate"},
    STRIP: {"detect"},
    REPAIR: {"repair", "evaluate"},
    CLEANSER: {"cleanse", "train", "evaluate"},
}
PATH = "datasets/SentimentAnalysis/SST-2/dev.tsv"
# Values for fields that a rule over several fields constrains.
DATASET_FIELDS = {"files": {"train": PATH, "dev": PATH, "test": PATH}, "indexes": {"train": PATH}}


def cell(defense: str = "vanilla", **axes: Any) -> Cell:
    grid = Grid(datasets=("sst2",), attacks=("badnets",), models=("bert-base",), defenders=(defense,), **axes)
    (found,) = expand([grid]).cells.values()
    return found


def test_every_field_of_a_cell_has_its_case() -> None:
    # What an analysis decides: tests/engine/test_watched_cells.py.
    assert {*CELL_FIELDS, "analysis"} == {field.name for field in dataclasses.fields(Cell)}


@pytest.mark.parametrize("defense", TRAINED)
@pytest.mark.parametrize("name", CELL_FIELDS)
def test_a_field_of_a_cell_changes_what_it_decides(name: str, defense: str) -> None:
    value, untouched = CELL_FIELDS[name]
    base = cell(defense)
    other = dataclasses.replace(base, **{name: value})
    assert other.key != base.key
    if name == "recipe":
        assert moved(base, other) == RECIPE[defense]
    elif name != "defense":
        assert moved(base, other) == set(keys_of(base)) - untouched
    elif defense == "vanilla":
        assert moved(base, other) == {"train", "evaluate"}


@pytest.mark.parametrize("name", option_names(DatasetSpec))
def test_a_field_of_a_data_set_changes_everything(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base, spec = cell("lora"), other_spec(bench.data.dataset_spec("sst2"), name, DATASET_FIELDS)
    monkeypatch.setattr(bench.data, "dataset_spec", lambda *_: spec)
    other = dataclasses.replace(base, dataset=dataset_part("sst2", {})[0])
    assert moved(base, other) == set(keys_of(base))
    # The digests of files decide keys, but no random number: mending a pin keeps the draw.
    assert (other.key == base.key) is (name == "pins")
    assert (identities_of(other) == identities_of(base)) is (name == "pins")


@pytest.mark.parametrize("name", option_names(ModelSpec))
def test_a_field_of_a_model_changes_its_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base, spec = cell("lora"), other_spec(MODEL, name, {})
    monkeypatch.setattr(bench.victim.spec, "model_spec", lambda *_: spec)
    other = dataclasses.replace(base, model=model_part("bert-base", {})[0])
    assert other.key != base.key and moved(base, other) == {"train", "evaluate"}


@pytest.mark.parametrize(
    ("defense", "resting"),
    [("lora", set()), (STRIP, {"detect"}), (REPAIR, {"repair"}), (FILTER, {"filter"}), (CLEANSER, set())],
)
def test_a_new_version_of_a_stage_makes_it_and_what_rests_on_it_anew(
    defense: str, resting: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = cell(defense)
    keys, identities, key = keys_of(base), identities_of(base), base.key
    monkeypatch.setitem(VERSION, "train", VERSION["train"] + 1)
    after = keys_of(base)
    assert {kind for kind in keys if keys[kind] != after[kind]} == {"train", "evaluate", *resting}
    assert all(not keys[kind] & after[kind] for kind in {"train", "evaluate", *resting})
    # No random number hangs on a version, and a cell stays the cell that it was.
    assert identities_of(base) == identities and cell(defense).key == key


def fields_of(family: Family) -> list[tuple[str, str]]:
    classes = {name: type(plugins.construct(family, name, {})) for name in names(family)}
    pairs = [(name, field) for name, cls in classes.items() for field in option_names(cls)]
    # A clean budget says nothing to a defense that uses no clean rows: tests/engine/test_clean_rows.py.
    return [(name, field) for name, field in pairs if field != "clean_budget" or _uses_clean_rows(name)]


def _uses_clean_rows(name: str) -> bool:
    defense = plugins.construct(DEFENDERS, name, {})
    return defense.samples() > 0 or defense.calibrated


@pytest.mark.parametrize(("name", "field"), fields_of(ATTACKERS))
def test_an_option_of_an_attack_changes_its_poison(name: str, field: str) -> None:
    before, after = (
        dataclasses.replace(cell("lora"), attack=part) for part in Varied(ATTACKERS, MODEL).parts(name, field)
    )
    assert before.key != after.key
    assert moved(before, after) == {"poison", "trigger", "train", "evaluate"}
    clean = [dataclasses.replace(one, poison_ratio=0.0) for one in (before, after)]
    assert moved(*clean) == {"trigger", "evaluate"}


@pytest.mark.parametrize(("name", "field"), fields_of(DEFENDERS))
def test_an_option_of_a_defense_changes_the_stages_it_acts_at(name: str, field: str) -> None:
    before, after = (dataclasses.replace(cell(), defense=part) for part in Varied(DEFENDERS, MODEL).parts(name, field))
    assert before.key != after.key
    acting = type(plugins.construct(DEFENDERS, name, {})).stages()
    untouched = set(EARLY)
    if not acting & {"train", "cleanse"}:
        untouched.add("train")
    if acting == {"detect"}:
        untouched.add("evaluate")
    assert acting and moved(before, after) == set(keys_of(before)) - untouched


@pytest.mark.parametrize("family", [ATTACKERS, DEFENDERS], ids=lambda family: family.kind)
@pytest.mark.parametrize("recipe", ["released", "paper"])
def test_spelling_the_defaults_out_is_the_same_cell(family: Family, recipe: str) -> None:
    axis = family.package.replace("attackers", "attacks")
    for name in names(family):
        base = {"datasets": ("sst2",), "attacks": ("badnets",), "models": ("bert-base",), "defenders": ("vanilla",)}
        spelled = {"name": name, **Varied(family, MODEL, recipe).plugin(name, {}).identity()}
        choices = (name, spelled, {"name": name})
        assert len(expand([Grid(**{**base, axis: choices, "recipes": (recipe,)})]).cells) == 1, name


def test_spelling_out_a_model_or_a_data_set_is_the_same_cell() -> None:
    base = {"attacks": ("badnets",), "defenders": ("lora",)}
    options = {name: value for name, value in MODEL.identity().items() if value is not None and name != "name"}
    models = ("bert-base", "bert-base(epochs=10)", {"name": "bert-base", **options})
    datasets = ("sst2", "sst2(disjoint=false, subset=0)", {"name": "sst2", "dev": "file", "dev_seed": 0})
    assert len(expand([Grid(models=models, datasets=datasets, **base)]).cells) == 1


def test_no_two_plugins_are_alike() -> None:
    for family in (ATTACKERS, DEFENDERS):
        plain = {name: Varied(family, MODEL).plugin(name, {}) for name in names(family)}
        assert len({plugins.part_of(family, plugin, name).identity for name, plugin in plain.items()}) == len(plain)


def test_a_field_that_cannot_be_varied_fails_the_test() -> None:
    @dataclasses.dataclass(frozen=True)
    class Rigid(Options):
        number: Literal[3] = 3

    with pytest.raises(LookupError, match="Rigid.number could not be varied"):
        other_spec(Rigid(), "number", {})
