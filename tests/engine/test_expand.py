"""From a grid to its cells: what is filled in, what narrows, where settings reach, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.core.errors import RequestError
from bench.core.registry import DEFENDERS, own_plugins
from bench.core.spec import Cell
from bench.engine.expand import Expanded, expand
from bench.engine.grid import Grid, load_grid, narrowed

BASE = Grid(datasets=("demo",), attacks=("addsent",), defenders=("vanilla",), models=("bert-base",))


def cells(**axes: Any) -> list[Cell]:
    return list(expand([replace(BASE, **axes)]).cells.values())


def the_cell(**axes: Any) -> Cell:
    (found,) = cells(**axes)
    return found


def test_every_combination_is_a_cell_in_the_order_of_the_axes() -> None:
    found = cells(
        attacks=("badnets", "addsent"),
        defenders=("vanilla", "lora"),
        poison_ratios=(0, 0.1),
        seeds=(0, 1, 2),
        target_labels=(0, 1),
        recipes=("released", "paper"),
        precisions=("fp32", "bf16"),
        label_rules=("mix", "dirty"),
    )
    assert len(found) == 2 * 2 * 2 * 3 * 2 * 2 * 2 * 2 == len({cell.key for cell in found})
    assert [cell.attack.name for cell in found[:: len(found) // 2]] == ["badnets", "addsent"]
    assert [cell.defense.name for cell in found[:4]] == ["vanilla", "vanilla", "lora", "lora"]  # two rules each


def test_a_cell_named_twice_is_one() -> None:
    assert len(cells(seeds=(0, 0), defenders=("vanilla", "vanilla", {"name": "vanilla"}))) == 1
    assert len(expand([BASE, BASE]).cells) == 1


def test_all_is_every_plugin_of_the_folder_vanilla_first() -> None:
    found = cells(defenders=("all",))
    assert [cell.defense.name for cell in found][0] == "vanilla"
    assert {cell.defense.name for cell in found} == set(own_plugins(DEFENDERS))
    assert {cell.attack.name for cell in cells(attacks=("all",))} >= {"badnets", "addsent", "hiddenkiller", "stylebkd"}


def test_defaults_recipe_and_model_are_filled_in() -> None:
    lora = the_cell(defenders=("lora",), models=("gpt2-xl",)).defense.options
    assert (lora["rank"], lora["alpha"], lora["targets"], lora["train_head"]) == (2, 8.0, ["c_attn"], False)
    paper = the_cell(defenders=("lora",), recipes=("paper",)).defense.options
    assert (paper["rank"], paper["alpha"], paper["train_head"]) == (8, 32.0, True)
    assert the_cell(attacks=("badnets",)).attack.options["draw"] == "replacement"
    assert the_cell(attacks=("badnets",), recipes=("paper",)).attack.options["draw"] == "each"


def test_the_label_rule_is_the_published_one_unless_named() -> None:
    rules = {cell.dataset.name: cell.label_rule for cell in cells(attacks=("badnets",), datasets=("sst2", "lingspam"))}
    assert rules == {"sst2": "clean", "lingspam": "mix"}
    named = cells(attacks=("badnets", "addsent"), label_rules=("dirty", "mix"))
    assert [cell.label_rule for cell in named] == ["dirty", "mix"] * 2


def test_inline_options_reach_their_own_choice_alone() -> None:
    found = cells(defenders=("lora", "lora(rank=4, targets=[query])", {"name": "lora", "rank": 5}, "musclelora"))
    assert [cell.defense.options["rank"] for cell in found] == [8, 4, 5, 8]
    assert found[1].defense.options["targets"] == ["query"]
    assert the_cell(attacks=("addsent(sentence='so, it is')",)).attack.options["sentence"] == "so, it is"
    assert the_cell(models=("bert-base(epochs=2)",)).model.options["epochs"] == 2
    assert the_cell(datasets=("sst2(subset=50)",)).dataset.options["subset"] == 50
    assert the_cell(datasets=({"name": "sst2", "subset": 50},)).dataset.options["subset"] == 50


def test_settings_reach_every_choice_that_has_the_option() -> None:
    settings = {
        "model.epochs": 2,
        "dataset.subset": 30,
        "attack.num_triggers": 1,
        "defense.rank": 3,
        "defense.inner_rank": 2,
    }
    found = cells(
        datasets=("sst2(subset=9)", "hsol"),
        attacks=("badnets", "addsent"),
        models=("bert-base(epochs=7)", "roberta-base"),
        defenders=("vanilla", "lora(rank=9)", "musclelora"),
        set=settings,
    )
    assert len(found) == 24
    assert {cell.model.options["epochs"] for cell in found} == {2}
    assert {cell.dataset.options["subset"] for cell in found} == {30}
    assert {cell.attack.options.get("num_triggers") for cell in found} == {1, None}
    ranks = {cell.defense.name: cell.defense.options.get("rank") for cell in found}
    assert ranks == {"vanilla": None, "lora": 3, "musclelora": 3}  # what is set for a whole axis stands above it
    assert {cell.defense.options.get("inner_rank") for cell in found} == {None, 2}


def options_of(grid: str, part: str, option: str, **changes: Any) -> set[Any]:
    """Return the values that an option has in the cells of a grid after changes from the command line."""
    found = expand(narrowed(load_grid(grid).blocks(), changes)).cells.values()
    return {getattr(cell, part).options.get(option) for cell in found}


def test_options_typed_with_new_choices_stand_above_what_the_grid_sets_and_a_setting_typed_above_both() -> None:
    mine = ("minilm-l6(epochs=5)", "minilm-l6")
    assert options_of("demo", "model", "epochs", models=mine) == {5, 2}
    assert options_of("demo", "model", "evaluations", models=mine) == {2}
    assert options_of("demo", "model", "epochs", models=mine, set={"model.epochs": 7}) == {7}
    assert options_of("demo", "model", "epochs", models=mine, set={"model.max_steps": 7}) == {5, 2}
    strips = ("strip(clean_budget=32)", "strip")
    assert options_of("equal-budget", "defense", "clean_budget", defenders=strips) == {32, 96}
    swept = ("musclelora(clean_samples=8)",)
    assert options_of("figure7", "defense", "clean_samples", defenders=swept) == {8}
    assert options_of("figure7", "defense", "clean_samples", seeds=(1,)) == {16, 32, 64, 96, 128, 256}
    (chain,) = expand(
        narrowed([replace(BASE, set={"defense.clean_budget": 96})], {"defenders": ("strip(clean_budget=32)>rap",)})
    ).cells.values()
    assert [link["options"]["clean_budget"] for link in chain.defense.options["links"]] == [32, 96]


def test_a_setting_may_belong_to_one_of_united_blocks() -> None:
    blocks = narrowed([BASE, replace(BASE, defenders=("lora",))], {"set": {"defense.rank": 3}})
    assert [cell.defense.options.get("rank") for cell in expand(blocks).cells.values()] == [None, 3]


def test_narrowing_keeps_the_keys_of_what_is_left() -> None:
    whole = expand(load_grid("demo").blocks()).cells
    changes = {"defenders": ("lora",), "seeds": (0,), "poison_ratios": (0.1,)}
    part = expand(narrowed(load_grid("demo").blocks(), changes)).cells
    assert len(part) == 4 and set(part) < set(whole)
    assert {cell.defense.name for cell in part.values()} == {"lora"}


@pytest.mark.parametrize(
    ("axes", "reason"),
    [
        ({"datasets": ("dem",)}, "There is no dataset named 'dem'. Did you mean 'demo'?"),
        ({"attacks": ("badnet",)}, "There is no attacker named 'badnet'. Did you mean 'badnets'?"),
        ({"defenders": ("musclelor",)}, "There is no defender named 'musclelor'. Did you mean 'musclelora'?"),
        ({"models": ("bert-bass",)}, "There is no model named 'bert-bass'. Did you mean 'bert-base'?"),
        ({"defenders": ("lora(rnk=3)",)}, "There is no option of defender 'lora' named 'rnk'. Did you mean 'rank'?"),
        ({"defenders": ("vanilla(rank=3)",)}, "There is no option of defender 'vanilla' named 'rank'."),
        (
            {"models": ("bert-base(epoch=3)",)},
            "There is no option of model 'bert-base' named 'epoch'. Did you mean 'epochs'?",
        ),
        (
            {"datasets": ("sst2(subst=3)",)},
            "There is no option of dataset 'sst2' named 'subst'. Did you mean 'subset'?",
        ),
        (
            {"attacks": ("badnets(num_triggers=0)",)},
            "badnets.num_triggers is 0: input should be greater than or equal to 1.",
        ),
        ({"models": ("bert-base(epochs=0)",)}, "bert-base.epochs is 0: input should be greater than or equal to 1."),
        ({"set": {"epochs": 3}}, "'epochs' is no option. Write axis.option=value"),
        ({"set": {"model.": 3}}, "'model.' is no option."),
        ({"set": {".epochs": 3}}, "There is no axis named ''."),
        ({"set": {"modle.epochs": 3}}, "There is no axis named 'modle'. Did you mean 'model'?"),
        ({"set": {"model.epoch": 3}}, "There is no option of model 'bert-base' named 'epoch'. Did you mean 'epochs'?"),
        ({"set": {"defense.rank": 3}}, "There is no option of any chosen defense named 'rank'. There are: clean_"),
        (
            {"set": {"attack.sentense": "x"}},
            "There is no option of any chosen attack named 'sentense'. Did you mean 'sentence'?",
        ),
        ({"set": {"model.epochs": "many"}}, "bert-base.epochs is 'many': input should be a valid integer."),
        ({"target_labels": (1, 2)}, "target_label is 2, but demo has the labels 0 to 1. Name one of them"),
        ({"datasets": ("agnews", "demo"), "target_labels": (3,)}, "target_label is 3, but demo has the labels 0 to 1."),
    ],
    ids=lambda item: str(item)[:32],
)
def test_a_wrong_request_is_named(axes: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestError) as caught:
        cells(**axes)
    assert str(caught.value).startswith(reason) and caught.value.remedy


def test_a_defense_that_a_model_cannot_carry_fails_its_cells_alone() -> None:
    expanded: Expanded = expand(
        [replace(BASE, models=("gpt2-xl(head=plain)", "bert-base"), defenders=("vanilla", "musclelora"))]
    )
    failed = [expanded.cells[key] for key in expanded.impossible]
    assert len(expanded.cells) == 4
    assert [(cell.model.name, cell.defense.name) for cell in failed] == [("gpt2-xl", "musclelora")]
    assert "has no linear before its classifier" in str(*expanded.impossible.values())
