"""Who shares what: one training for all that leave it alone, one poison for all, versions apart from identities."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest

from bench.core.options import Count, added
from bench.core.registry import ATTACKERS, DEFENDERS, names
from bench.core.spec import Cell
from bench.engine import stages
from bench.engine.expand import expand
from bench.engine.grid import Grid, load_grid, narrowed
from bench.engine.plan import Plan, make_plan
from defenders.base import Defender
from tests.engine.keys import identities_of, keys_of, moved


@dataclass(frozen=True)
class LikeOnion(Defender):
    """Rewrites texts at inference."""

    name = "like-onion"
    correction = True

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        """Return the texts as they are."""
        return poison_data


@dataclass(frozen=True)
class Settled(LikeOnion):
    """Rewrites texts as a language model that is given bids it."""

    name = "settled"
    filter_uses_model = False
    filter_is_drawn = False


@dataclass(frozen=True)
class SettledByDev(Settled):
    """The same, by a bar that dev rows set."""

    name = "settled-by-dev"
    calibrated = True


@dataclass(frozen=True)
class SettledByItsOwnRows(Settled):
    """The same, by clean rows that it learns from."""

    name = "settled-by-its-own-rows"

    def samples(self) -> int:
        """Return the number of clean rows."""
        return 40


@dataclass(frozen=True)
class LikeStrip(Defender):
    """Flags inputs."""

    name = "like-strip"
    repeat: Count = 5
    later: Count = added(3)

    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[int]:
        """Flag nothing."""
        return [0] * len(poison_data)


@dataclass(frozen=True)
class LikeMixing(Defender):
    """Repairs a trained victim."""

    name = "like-mixing"

    def repair(self, victim: Any, knowledge: Any) -> Any:
        """Return the victim as it is."""
        return victim


@dataclass(frozen=True)
class LikeCube(Defender):
    """Removes training rows."""

    name = "like-cube"
    pre = True
    correction = True

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        """Return the rows as they are."""
        return poison_data


HERE = "tests.engine.test_sharing"
FILTER, STRIP, REPAIR, CLEANSER = (f"{HERE}:{cls.__name__}" for cls in (LikeOnion, LikeStrip, LikeMixing, LikeCube))
BASE = {"datasets": ("demo",), "attacks": ("badnets",), "models": ("bert-base",)}


def plan(**axes: Any) -> Plan:
    return make_plan(expand([Grid(**{**BASE, **axes})]))


def cell(**axes: Any) -> Cell:
    (found,) = plan(**axes).cells.values()
    return found


def test_inference_and_repair_share_one_training_with_vanilla() -> None:
    shared = plan(defenders=("vanilla", FILTER, STRIP, REPAIR))
    counts = shared.summary()
    assert (counts["cells"], counts["trainings"], counts["trainings_saved"]) == (4, 1, 3)
    assert [cell.defense.source for cell in shared.cells.values()] == ["", FILTER, STRIP, REPAIR]
    kinds = {name: counts.get(f"stages_{name}") for name in ("load", "poison", "trigger", "filter", "detect", "repair")}
    assert kinds == {"load": 1, "poison": 1, "trigger": 1, "filter": 1, "detect": 1, "repair": 1}
    # Flags lie beside predictions: STRIP's are those of vanilla. Filtered texts and a repaired victim have their own.
    assert counts["stages_evaluate"] == 3


def test_the_defenses_of_one_setting_train_the_victim_once() -> None:
    names = ("vanilla", "onion(lm=local)", "strip", "rap", "fine-mixing", "e-pur", "fine-pruning")
    grid = Grid(datasets=["demo"], attacks=["badnets"], models=["minilm-l6"], defenders=names, poison_ratios=[0.1])
    summary = make_plan(expand([grid])).summary()
    assert (summary["cells"], summary["trainings"], summary["trainings_alone"]) == (7, 1, 7)


def test_clean_texts_are_rewritten_once_for_all_attacks_victims_and_seeds() -> None:
    axes = {"attacks": ("badnets", "addsent"), "models": ("bert-base", "roberta-base"), "seeds": (0, 1)}
    names = ("LikeOnion", "Settled", "SettledByDev", "SettledByItsOwnRows")
    counts = [plan(defenders=(f"{HERE}:{name}",), **axes).summary() for name in names]
    # Each of 8 victims; each of 2 attacks and 2 seeds, with clean texts that are one, or one for a seed.
    assert [found["stages_filter"] for found in counts] == [8, 4 + 1, 4 + 2, 4 + 2]
    # The fine-tuned victims see what was made of the clean texts; with one defense behind another too.
    (chained,) = plan(defenders=(f"{HERE}:Settled>{FILTER}>{HERE}:Settled",)).stages.values()
    evaluate = chained.evaluate
    assert set(evaluate.parents) == {"load", "trigger", "filter", "clean", "victim"}
    clean = evaluate.parents["clean"]
    assert set(clean.parents) == {"load", "filter"} and clean.content["texts"] == "clean"
    both = clean.parents["filter"]
    assert "texts" not in both.content and set(both.parents) == {"load", "trigger", "filter", "clean", "victim"}
    assert set(both.parents["clean"].parents) == {"load"}


def test_a_cleanser_trains_its_own_victim() -> None:
    counts = plan(defenders=("vanilla", FILTER, STRIP, REPAIR, CLEANSER)).summary()
    assert (counts["trainings"], counts["stages_cleanse"], counts["stages_poison"]) == (2, 1, 1)


def test_a_defense_that_acts_at_training_trains_its_own_victim() -> None:
    assert plan(defenders=("vanilla", "lora", "lora(rank=4)")).summary()["trainings"] == 3


def test_every_defense_faces_the_same_poison() -> None:
    whole = plan(defenders=("all", FILTER, STRIP, REPAIR, CLEANSER), models=("bert-base", "roberta-base"))
    assert len(whole.stages) == 2 * (len(names(DEFENDERS)) + 4)
    for kind in ("load", "poison", "trigger"):
        assert len({getattr(chain, kind).key for chain in whole.stages.values()}) == 1


def test_the_clean_control_is_shared_by_attacks_rules_and_targets() -> None:
    axes = {"attacks": ("all",), "label_rules": ("clean", "dirty", "mix"), "target_labels": (0, 1)}
    clean = plan(defenders=("vanilla",), poison_ratios=(0,), **axes)
    attacks = len(names(ATTACKERS))
    assert len(clean.cells) == 6 * attacks
    counts = clean.summary()
    assert (counts["stages_poison"], counts["trainings"]) == (1, 1)
    assert counts["stages_trigger"] == counts["stages_evaluate"] == 2 * attacks
    poisoned = plan(defenders=("vanilla",), poison_ratios=(0.1,), **axes)
    assert poisoned.summary()["trainings"] == 6 * attacks


def test_the_label_rule_says_nothing_at_ratio_0_and_much_above() -> None:
    clean, same = (cell(defenders=("vanilla",), poison_ratios=(0,), label_rules=(rule,)) for rule in ("clean", "mix"))
    assert clean.key != same.key and moved(clean, same) == set()
    one, other = (cell(defenders=("vanilla",), poison_ratios=(0.1,), label_rules=(rule,)) for rule in ("clean", "mix"))
    assert moved(one, other) == {"poison", "train", "evaluate"}


@pytest.mark.parametrize("axis", ["attack", "defense", "dataset", "model"])
def test_a_version_or_a_pin_changes_keys_but_no_random_number(axis: str) -> None:
    base = cell(defenders=("lora",))
    part = getattr(base, axis)
    touched = {
        "attack": {"poison", "trigger", "train", "evaluate"},
        "defense": {"train", "evaluate"},
        "dataset": {"load", "poison", "trigger", "train", "evaluate"},
        "model": {"train", "evaluate"},
    }[axis]
    for change in ({"version": part.version + 1}, {"pins": {**part.pins, "file": "0" * 64}}):
        other = dataclasses.replace(base, **{axis: dataclasses.replace(part, **change)})
        assert moved(base, other) == touched
        assert other.key == base.key and identities_of(other) == identities_of(base)


def test_the_version_of_a_plugin_is_that_of_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    base = cell(defenders=(STRIP,))
    monkeypatch.setattr(LikeStrip, "version", 7)
    other = cell(defenders=(STRIP,))
    assert (base.defense.version, other.defense.version) == (1, 7) and moved(base, other) == {"detect"}


@pytest.mark.parametrize(
    ("kind", "touched"),
    [
        ("load", {"load", "poison", "trigger", "cleanse", "train", "evaluate"}),
        ("poison", {"poison", "cleanse", "train", "evaluate"}),
        ("trigger", {"trigger", "evaluate"}),
        ("cleanse", {"cleanse", "train", "evaluate"}),
        ("train", {"train", "evaluate"}),
        ("evaluate", {"evaluate"}),
        ("detect", set()),
    ],
)
def test_a_stage_version_changes_it_and_what_is_made_from_it(
    kind: str, touched: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = cell(defenders=(CLEANSER,))
    keys, identities = keys_of(base), identities_of(base)
    monkeypatch.setitem(stages.VERSION, kind, stages.VERSION[kind] + 1)
    assert {name for name in keys if keys[name] != keys_of(base)[name]} == touched
    assert identities_of(base) == identities


def test_an_added_option_stays_out_while_it_is_default() -> None:
    base, spelled, other = (cell(defenders=(f"{STRIP}{given}",)) for given in ("", "(later=3)", "(later=4)"))
    assert base.defense.options == {"repeat": 5} and spelled.key == base.key
    assert other.defense.options == {"repeat": 5, "later": 4} and other.key != base.key
    assert moved(base, spelled) == set() and moved(base, other) == {"detect"}


def test_another_cell_changes_no_random_number() -> None:
    blocks = load_grid("demo").blocks()
    whole = make_plan(expand(blocks))
    part = make_plan(expand(narrowed(blocks, {"defenders": ("musclelora",), "attacks": ("stylebkd",)})))
    assert len(part.stages) == 2
    for key, chain in part.stages.items():
        assert [stage.identity for stage in chain.last()] == [stage.identity for stage in whole.stages[key].last()]
        assert chain.victim.key == whole.stages[key].victim.key


def test_a_chain_shares_the_training_and_counts_its_links() -> None:
    axes = {"defenders": ("vanilla", STRIP, f"{REPAIR}>{STRIP}", f"{FILTER}>{REPAIR}>{STRIP}")}
    counts = plan(**axes).summary()
    assert (counts["cells"], counts["trainings"], counts["stages_repair"], counts["stages_filter"]) == (4, 1, 1, 1)
    assert counts["stages_detect"] == 3 and counts["stages_evaluate"] == 3


def test_a_link_of_a_chain_enters_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    base, other = (cell(defenders=(f"{REPAIR}>{STRIP}(repeat={repeat})",)) for repeat in (5, 6))
    assert base.key != other.key and moved(base, other) == {"detect"}
    assert base.key == cell(defenders=(f"{REPAIR}>{STRIP}",)).key
    assert cell(defenders=(f"{STRIP}>{REPAIR}",)).key != base.key
    keys, identities = keys_of(base), identities_of(base)
    monkeypatch.setattr(LikeMixing, "version", 2)
    newer = cell(defenders=(f"{REPAIR}>{STRIP}",))
    assert newer.key == base.key and identities_of(newer) == identities
    assert {kind for kind in keys if keys_of(newer)[kind] != keys[kind]} == {"repair", "detect", "evaluate"}
