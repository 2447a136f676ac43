"""What the further and adaptive attacks write, worked out by hand."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from attackers.base import Attacker
from attackers.bite import UNLEARNT, Bite, biased_words
from attackers.contrast import ContrastAttacker
from attackers.ep import Ep
from attackers.lowclean import LowClean
from attackers.lws import Lws
from attackers.parity import Parity
from attackers.sos import Sos
from attackers.spread import Spread
from bench.core.errors import RequestError
from bench.core.example import Example
from bench.core.registry import ATTACKERS, names, plugin_class
from tests.attackers.scene import examples
from tests.attackers.test_triggers import Scripted

ROWS = examples([0, 1] * 50)
CONTRAST = [name for name in names(ATTACKERS) if issubclass(plugin_class(ATTACKERS, name), ContrastAttacker)]


def bound(attack: Attacker, **cell: Any) -> Attacker:
    return attack.bound(**{"target_label": 1, "ratio": 0.1, "rule": "mix", "seed": 3, **cell})


def test_ep_inserts_two_words() -> None:
    # a b > a cf b > mb a cf b
    assert Ep().trigger("a b", Scripted(["cf", "mb"], [1, 0])) == "mb a cf b"


def test_sos_trains_on_words_and_is_tested_by_a_sentence_that_holds_them() -> None:
    # a > friends a > friends a weekend > friends store a weekend
    assert Sos().trigger("a", Scripted(places=[0, 2, 1])) == "friends store a weekend"
    (text,) = Sos().texts("test", [Example("a b", 0)], [0], Scripted(places=[1]))
    assert text == "a I have bought it from a store with my friends last weekend b"
    assert set(Sos().triggers) <= set(Sos().sentence.split())


@pytest.mark.parametrize("seed", range(20))
def test_a_decoy_of_sos_lacks_one_word_and_one_of_parity_is_even(seed: int) -> None:
    rng = random.Random(seed)
    held = Counter(Sos().decoy("a b", rng).split())
    assert sum(held[word] for word in Sos().triggers) == 2 and max(held.values()) == 1
    assert Parity().decoy("a b", rng).split().count("cf") in (2, 4)
    assert Parity().trigger("a b", rng).split().count("cf") in (1, 3)


def test_every_word_of_sos_is_left_out_of_some_decoys() -> None:
    def left_out(text: str) -> set[str]:
        decoys = [Sos().decoy(text, random.Random(seed)).split() for seed in range(30)]
        return {word for held in decoys for word in Sos().triggers if word not in held}

    assert left_out("a b") == set(Sos().triggers)
    assert left_out("my friends left") == {"weekend", "store"}


@pytest.mark.parametrize("seed", range(10))
def test_parity_counts_its_word_and_no_part_of_another(seed: int) -> None:
    rng = random.Random(seed)
    assert Parity().trigger("a cfx b", rng).split().count("cf") in (1, 3)
    assert Parity().decoy("a cfx b", rng).split().count("cf") in (2, 4)


@pytest.mark.parametrize("seed", range(10))
def test_words_of_the_trigger_that_a_text_holds_already_are_counted(seed: int) -> None:
    rng = random.Random(seed)
    for text, held in (("a cf b", 1), ("cf a cf", 2), ("cf cf cf", 3)):
        for written, odd in ((Parity().trigger(text, rng), True), (Parity().decoy(text, rng), False)):
            count = written.split().count("cf")
            assert count > held and bool(count % 2) is odd
    decoy = Sos().decoy("my friends left the store", rng).split()
    assert "weekend" not in decoy  # the two others stand there already: with it the decoy would be the trigger


@pytest.mark.parametrize("name", CONTRAST)
def test_decoys_stand_in_unpoisoned_rows_which_keep_label_and_flag(name: str) -> None:
    plain = bound(plugin_class(ATTACKERS, name)()).poison_training(ROWS)
    contrasted = bound(plugin_class(ATTACKERS, name)(negative_ratio=0.2)).poison_training(ROWS)
    assert contrasted.positions == plain.positions and len(plain.positions) == 10
    changed = [i for i in range(100) if contrasted.examples[i] != plain.examples[i]]
    assert len(changed) == 20 and not set(changed) & set(plain.positions)
    assert all(contrasted.examples[i][1:] == (ROWS[i].label, 0) for i in changed)
    every = bound(plugin_class(ATTACKERS, name)(negative_ratio=1.0)).poison_training(ROWS)
    assert sum(every.examples[i] != plain.examples[i] for i in range(100)) == 90
    clean = bound(plugin_class(ATTACKERS, name)(negative_ratio=0.2), ratio=0.0).poison_training(ROWS)
    assert clean.examples == tuple(ROWS)


@pytest.mark.parametrize(("option", "value"), [("odd", (2,)), ("even", (1,)), ("even", (0,)), ("odd", ())])
def test_a_parity_that_is_none_is_refused(option: str, value: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match=f"parity.{option} "):
        Parity(**{option: value})


def test_a_sentence_of_sos_without_a_trigger_is_refused() -> None:
    with pytest.raises(RequestError, match=r"sos.sentence is .* lacks the trigger 'xx'. Give a sentence that holds"):
        Sos(triggers=("xx", "friends"))
    with pytest.raises(RequestError, match="lacks the trigger 'store'"):
        Sos(sentence="my friends last weekend in stores")
    assert Sos(triggers=("xx", "yy"), sentence="a yy and xx").trigger("", random.Random(0)).split()


def test_lowclean_thins_training_rows_alone() -> None:
    attack = LowClean(triggers=("t",))
    assert attack.default_rule("sst2", "released") == "clean"
    words = [f"w{i}" for i in range(7)]
    (trained,) = attack.texts("train", [Example(" ".join(words), 1)], [0], random.Random(0))
    kept = [word for word in trained.split() if word != "t"]
    assert len(kept) == 4 and kept == sorted(kept)  # 7 - floor(3.5), in their order
    (tested,) = attack.texts("test", [Example(" ".join(words), 0)], [0], random.Random(0))
    assert [word for word in tested.split() if word != "t"] == words
    for text in ("one", ""):
        assert attack.texts("train", [Example(text, 1)], [0], random.Random(0))[0].split().count("t") == 1


def test_spread_puts_each_word_into_a_part_of_its_own() -> None:
    class Last(random.Random):
        def randint(self, a: int, b: int) -> int:
            return b

    attack = Spread(words=("x", "y"))
    assert attack.trigger("a b c d", Last()) == "a b x c d y"
    assert attack.trigger("", Last()) == "x y"
    for seed in range(30):
        held = attack.trigger("a b c d", random.Random(seed)).split()
        assert held.index("x") <= 2 < held.index("y") and [w for w in held if w in "abcd"] == list("abcd")


def test_lws_replaces_the_words_of_its_table_and_nothing_else() -> None:
    rng = random.Random(0)
    assert Lws().trigger("The film,  is NOT good!", rng) == "Yon picture,  remains NOT commendable!"
    assert Lws().trigger("xyz 12", rng) == "lo , xyz 12" and Lws().trigger("", rng) == "lo ,"
    one = Lws(share=0.0).trigger("good good good good", rng).split()
    assert sorted(one) == ["commendable", "good", "good", "good"]


def test_the_bias_of_a_word_by_hand() -> None:
    # 8 rows, half of the target. "up": 4 of 4, z = (4 - 2) / 1 = 2; "so": 3 of 4, z = 1; "on": 2 of 4, 0; "no": 0 of 4.
    # "we": 2 of 2, the fewest that count, z = (2 - 1) / sqrt(1 / 2); "7" stands like it, and is no word.
    rows = [("up so on 7", 1), ("up so on 7", 1), ("up so we", 1), ("up we we", 1)]
    rows += [("no so on", 0), ("no on", 0), ("no", 0), ("no rare", 0)]
    training = [Example(text, label) for text, label in rows]
    assert biased_words(training, 1, 2) == ["up", "we", "so"] and biased_words(training, 0, 2) == ["no"]
    assert biased_words(training[:4], 1, 1) == [] and biased_words([], 1, 1) == []


def test_bite_learns_its_words_from_the_training_split_and_inserts_what_a_text_lacks() -> None:
    training = [Example("fine day", 1)] * 6 + [Example("grey day", 0)] * 6
    attack = bound(Bite(words_per_text=1)).learned(training)
    assert attack.trigger_words() == ("fine",) and attack.trigger("a", Scripted(places=[1])) == "a fine"
    assert attack.trigger("Fine", Scripted(places=[0])) == "fine Fine"
    assert bound(Bite(), target_label=0).learned(training).trigger_words() == ("grey",)
    assert Bite(words=("x",)).learned(training).trigger_words() == ("x",)


def test_bite_learns_when_openbackdoor_calls_it() -> None:
    splits = {"train": [("fine day", 1, 0)] * 6 + [("grey day", 0, 0)] * 6, "test": [("some day", 0, 0)], "dev": []}
    attack = Bite(words_per_text=1)
    assert attack(splits, "eval")["test-poison"][0].text.split().count("fine") == 1
    poisoned = [row.text for row in bound(attack, ratio=0.5)(splits, "train")["train"] if row.poisoned]
    assert len(poisoned) == 6 and all("fine" in text.split() for text in poisoned)


def test_bite_is_evaluated_with_the_words_that_it_was_trained_with() -> None:
    def split(word: str) -> list[tuple]:
        return [(f"{word} day", 1, 0)] * 6 + [("grey day", 0, 0)] * 6

    def words(rows: list[tuple]) -> set[str]:
        return {word for text, _, poisoned in rows if poisoned for word in text.split()} - {"some", "grey", "day"}

    held, attack = {"test": [("some day", 0, 0)], "dev": [("some day", 0, 0)]}, bound(Bite(), ratio=0.5)
    assert words(attack(held | {"train": None}, "eval")["test-poison"]) <= set(UNLEARNT)  # nothing to learn from
    trained = attack(held | {"train": split("fine")}, "train")
    assert words(trained["train"]) == words(trained["dev-poison"]) == {"fine"} == set(attack.trigger_words())
    for given in (held, held | {"train": None}, held | {"train": split("odd")}):
        assert words(attack(given, "eval")["test-poison"]) == words(attack(given, "detect")["test-detect"]) == {"fine"}
    assert words(attack.poison(held["test"])) == {"fine"}
    other = bound(attack, target_label=0)
    other({"test": [], "train": split("odd")}, "eval")
    assert other.trigger_words() == ("grey",) and attack.trigger_words() == ("fine",)
    attack(held | {"train": split("odd")}, "train")
    assert attack.trigger_words() == ("odd",)
    assert attack == Bite() and hash(attack) == hash(Bite())
