"""OpenBackdoor's way of using a poisoner: its keywords, and the three modes of a call; the package is not needed."""

from __future__ import annotations

from typing import Any

import pytest

from attackers.base import Attacker
from bench.core.errors import RequestError
from bench.core.options import option_names
from bench.core.registry import ATTACKERS, plugin_class
from tests.attackers.scene import EVERY, FakeBank, examples

pytestmark = pytest.mark.parametrize("name", EVERY)

TRAIN = [tuple(row) for row in examples([0, 1] * 20)]
DEV = [("dev zero", 0, 0), ("dev one", 1, 0), ("dev two", 2, 0)]
TEST = [("test one", 1, 0), ("test zero", 0, 0)]
SPLITS = {"train": TRAIN, "dev": DEV, "test": TEST}
KEYWORDS = {
    "target_label": 1,
    "poison_rate": 0.25,
    "label_consistency": False,
    "label_dirty": False,
    "load": False,
    "poison_data_basepath": "poison_data/x",
    "poisoned_data_path": "poison_data/x/y",
}


def made(name: str, /, **keywords: Any) -> Attacker:
    """Construct a poisoner as OpenBackdoor does: everything in its configuration becomes a keyword."""
    cls = plugin_class(ATTACKERS, name)
    poisoner = cls(**{"name": name, **KEYWORDS, **keywords})
    if cls.bank:
        object.__setattr__(poisoner, "_bank", FakeBank([]))
    return poisoner


def test_its_keywords_are_kept_and_are_no_options(name: str) -> None:
    poisoner = made(name)
    for keyword, value in KEYWORDS.items():
        assert getattr(poisoner, keyword) == value
    assert (poisoner.name, poisoner.poison_setting) == (name, "mix")
    assert not set(option_names(type(poisoner))) & {*KEYWORDS, "name", "poison_setting"}
    assert poisoner.identity() == plugin_class(ATTACKERS, name)().identity()


@pytest.mark.parametrize(
    ("consistency", "dirty", "rule"),
    [(True, False, "clean"), (False, True, "dirty"), (False, False, "mix"), (True, True, "clean")],
)
def test_two_switches_make_a_rule(name: str, consistency: bool, dirty: bool, rule: str) -> None:
    poisoner = made(name, label_consistency=consistency, label_dirty=dirty)
    assert poisoner.poison_setting == rule
    sources = {TRAIN[i][1] for i, row in enumerate(poisoner(SPLITS, "train")["train"]) if row.poisoned}
    assert sources == {"clean": {1}, "dirty": {0}, "mix": {0, 1}}[rule]
    assert made(name, label_consistency=consistency, label_dirty=dirty, poison_setting=rule).poison_setting == rule


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({"name": "strip"}, "is not 'strip'"),
        ({"load": True}, "reads no poisoned files"),
        ({"poison_rate": 1.5}, "poison_rate is 1.5: it is a fraction"),
        ({"poison_rate": float("nan")}, "poison_rate is nan"),
        ({"poison_setting": "clean"}, "poison_setting is 'clean'"),
    ],
)
def test_a_wrong_keyword_is_refused(name: str, keywords: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        made(name, **keywords)


def test_the_name_may_be_written_as_openbackdoor_does(name: str) -> None:
    assert made(name, name=name.upper()).name == name
    assert made(name, name="base").name == name
    with pytest.raises(TypeError, match="surprise"):
        made(name, surprise=1)


def test_mode_train(name: str) -> None:
    splits = made(name)(SPLITS, "train")
    assert list(splits) == ["train", "dev-clean", "dev-poison"]
    train = splits["train"]
    assert len(train) == 40 and sum(row[2] for row in train) == 10
    assert all(row[1] == 1 for row in train if row[2])
    assert all(tuple(row) == TRAIN[i] for i, row in enumerate(train) if not row[2])
    assert splits["dev-clean"] == DEV
    assert [row[1:] for row in splits["dev-poison"]] == [(1, 1), (1, 1)]
    assert "zero" in splits["dev-poison"][0].text and "two" in splits["dev-poison"][1].text


def test_mode_eval(name: str) -> None:
    splits = made(name, target_label=0)(SPLITS, "eval")
    assert list(splits) == ["test-clean", "test-poison"] and splits["test-clean"] == TEST
    assert [row[1:] for row in splits["test-poison"]] == [(0, 1)] and "one" in splits["test-poison"][0].text


def test_mode_detect_is_clean_then_poisoned(name: str) -> None:
    poisoner = made(name)
    evaluated, detected = poisoner(SPLITS, "eval"), poisoner(SPLITS, "detect")
    assert detected == {"test-detect": [*evaluated["test-clean"], *evaluated["test-poison"]]}


def test_another_mode_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="mode is 'test': it is one of train, eval, detect"):
        made(name)(SPLITS, "test")


def test_what_it_is_given_stays_as_it_was(name: str) -> None:
    splits = {split: list(rows) for split, rows in SPLITS.items()}
    poisoner = made(name)
    for mode in ("train", "eval", "detect"):
        poisoner(splits, mode)
    assert splits == SPLITS


def test_poison_takes_everything(name: str) -> None:
    poisoner = made(name)
    assert [row[1:] for row in poisoner.poison(TRAIN)] == [(1, 1)] * 40
    assert poisoner.get_non_target(DEV) == [DEV[0], DEV[2]]
