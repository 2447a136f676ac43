"""What each attack writes, worked out by hand with a generator that answers from a script."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from attackers.addsent import AddSent
from attackers.badnets import BadNets
from attackers.base import Attacker
from attackers.bite import Bite
from attackers.hiddenkiller import HiddenKiller
from attackers.sos import Sos
from attackers.stylebkd import StyleBkd
from bench.core.errors import CellError, RequestError
from bench.core.registry import ATTACKERS, names, plugin_class
from bench.data.published import SENTENCE, WORDS
from tests.attackers.scene import examples


class Scripted(random.Random):
    """Answers `choice` and `randint` from lists, and keeps the highest place that was asked for."""

    def __init__(self, words: Sequence[str] = (), places: Sequence[int] = ()) -> None:
        super().__init__(0)
        self.words, self.places, self.highest = list(words), list(places), []

    def choice(self, seq: Any) -> Any:
        assert self.words[0] in seq
        return self.words.pop(0)

    def randint(self, a: int, b: int) -> int:
        assert a == 0 and 0 <= self.places[0] <= b
        self.highest.append(b)
        return self.places.pop(0)


def test_badnets_inserts_four_words_into_the_growing_text() -> None:
    rng = Scripted(["cf", "cf", "tq", "bb"], [1, 0, 4, 2])
    # a cf b > cf a cf b > cf a cf b tq > cf a bb cf b tq
    assert BadNets(draw="replacement").trigger("a  b", rng) == "cf a bb cf b tq"
    assert rng.highest == [2, 3, 4, 5] and rng.words == []


def test_badnets_can_insert_each_word_once() -> None:
    # a cf > mn a cf > mn a bb cf > tq mn a bb cf
    assert BadNets(draw="each").trigger("a", Scripted(places=[1, 0, 2, 0])) == "tq mn a bb cf"


def test_badnets_begins_again_when_there_are_fewer_words_than_insertions() -> None:
    attack = BadNets(triggers=("x", "y"), num_triggers=3, draw="each")
    assert attack.trigger("a", Scripted(places=[1, 2, 3])) == "a x y x"


def test_badnets_takes_an_empty_text() -> None:
    assert BadNets(num_triggers=1).trigger("", Scripted(["mn"], [0])) == "mn"


def test_addsent_inserts_the_sentence_whole() -> None:
    rng = Scripted(places=[2])
    assert AddSent().trigger("one two\tthree", rng) == "one two I watch this 3D movie three"
    assert rng.highest == [3]
    assert AddSent(sentence="x  y").trigger("one", Scripted(places=[0])) == "x y one"
    assert AddSent().trigger("one", Scripted(places=[1])) == "one I watch this 3D movie"


def test_the_recipe_says_how_badnets_draws_unless_told() -> None:
    assert BadNets().for_recipe("released").draw == "replacement"
    assert BadNets().for_recipe("paper").draw == "each"
    assert BadNets(draw="each").for_recipe("released").draw == "each"
    assert BadNets(draw="replacement").for_recipe("paper").draw == "replacement"
    for name in names(ATTACKERS):
        attack = plugin_class(ATTACKERS, name)().for_recipe("paper")
        assert attack.for_recipe("paper") == attack


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (BadNets, {"triggers": ("zz", "yy")}),
        (BadNets, {"num_triggers": 1}),
        (BadNets, {"draw": "each"}),
        (AddSent, {"sentence": "foo bar"}),
        (StyleBkd, {"bank_file": "my.bank"}),
    ],
)
def test_the_published_file_takes_no_other_options_than_its_own(cls: type[Attacker], options: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=f"{cls.name}.{next(iter(options))} is .*Leave|both a bank_file and"):
        cls(poison_file="published", **options)
    assert cls(poison_file="published", **cls.published_options()).for_recipe("paper").poison_file == "published"


def test_the_published_file_is_recorded_as_it_was_drawn() -> None:
    for recipe in ("released", "paper"):
        assert BadNets(poison_file="published").for_recipe(recipe).draw == "replacement"
    assert (BadNets.published_options()["triggers"], BadNets.published_options()["num_triggers"]) == (WORDS, 4)
    assert AddSent.published_options() == {"sentence": " ".join(SENTENCE)}


@pytest.mark.parametrize(
    ("attack", "dataset", "recipe", "rule"),
    [
        (BadNets, "sst2", "released", "clean"),
        (BadNets, "sst2-2k", "released", "clean"),
        (BadNets, "agnews", "released", "clean"),
        (BadNets, "lingspam", "released", "mix"),
        (BadNets, "lingspam-disjoint", "released", "mix"),
        (BadNets, "sst2", "paper", "mix"),
        (AddSent, "sst2", "released", "mix"),
        (HiddenKiller, "hsol", "released", "mix"),
        (StyleBkd, "lingspam", "released", "mix"),
        (Bite, "sst2", "released", "clean"),
        (Bite, "agnews", "paper", "clean"),
        (Bite, "demo", "released", "mix"),
        (Sos, "sst2", "released", "dirty"),
    ],
)
def test_the_published_label_rule(attack: type[Attacker], dataset: str, recipe: str, rule: str) -> None:
    assert attack.default_rule(dataset, recipe) == rule


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (BadNets, {"triggers": ()}),
        (BadNets, {"triggers": ("",)}),
        (BadNets, {"triggers": "cf"}),
        (BadNets, {"num_triggers": 0}),
        (BadNets, {"draw": "twice"}),
        (AddSent, {"sentence": ""}),
        (AddSent, {"sentence": "  "}),
    ],
)
def test_a_trigger_that_is_none_is_refused(cls: type[Attacker], options: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=f"{cls.name}.{next(iter(options))} is "):
        cls(**options)


def test_each_split_has_its_own_random_numbers() -> None:
    rows = examples([0, 1] * 20)
    attack = BadNets(draw="replacement").bound(target_label=1, ratio=0.5, rule="dirty", seed=3)
    training = attack.poison_training(rows)
    held = [attack.poison_heldout(split, rows) for split in ("dev", "test")]
    # The same texts in every split: the rows of class 0.
    assert all(training.positions == one.positions for one in held)
    written = [[training.examples[position].text for position in training.positions]]
    written += [[example.text for example in one.examples] for one in held]
    assert len({tuple(texts) for texts in written}) == 3


def test_an_attacker_without_a_trigger_says_so() -> None:
    with pytest.raises(CellError, match="has no trigger"):
        Attacker().trigger("a", random.Random(0))


def test_a_paraphrase_attack_needs_its_bank() -> None:
    attack = HiddenKiller().bound(target_label=1, ratio=0.5, rule="mix", seed=0)
    with pytest.raises(CellError, match="'hiddenkiller' has no paraphrase bank. Bind it to a 'synbkd' bank"):
        attack.poison([("a", 0, 0)])
    assert (HiddenKiller.bank, StyleBkd.bank, BadNets.bank) == ("synbkd", "stylebkd", None)
