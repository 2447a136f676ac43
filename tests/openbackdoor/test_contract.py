"""The contract with OpenBackdoor that every plug-in keeps, whether or not the package is there."""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any

import pytest

from attackers.base import Attacker
from bench.core.errors import CellError, RequestError
from bench.core.example import Example
from bench.core.options import option_names
from bench.core.registry import ATTACKERS, DEFENDERS, own_plugins
from defenders.base import Defender, is_guarded
from tests.openbackdoor.plugins import PLUGINS, SEEN, DeletesWord, DropsWord, FlagsWord

OUR_DEFENDERS = [*own_plugins(DEFENDERS).values(), *PLUGINS]
OUR_ATTACKERS = list(own_plugins(ATTACKERS).values())
# Row i has label i % 2.
ROWS = [Example(f"the film number {i} is it", i % 2) for i in range(40)]
SPLITS = {"train": ROWS, "dev": ROWS[:20], "test": ROWS[:12]}
POISONED = [("a cf", 1, 1), ("a b", 0, 0), ("cf cf", 1, 1)]


def named(cls: type) -> str:
    """Return the name by which a plug-in is shown in a test's name."""
    return cls.name


class Bank:
    """A paraphrase bank that knows every text."""

    def paraphrases(self, split: str, examples: Sequence[Example], rows: Sequence[int]) -> list[str]:
        """Return a recognisable paraphrase of each example."""
        return [f"when {example.text} ," for example in examples]


def attacker(cls: type, rule: str, ratio: float = 0.25) -> Attacker:
    """Return an attacker set to target 1 and a label rule."""
    return cls().bound(target_label=1, ratio=ratio, rule=rule, seed=3, bank=Bank() if cls.bank else None)


def parameters(method: Any) -> list[tuple[str, Any]]:
    """Return names and defaults of the parameters of a method."""
    return [(name, item.default) for name, item in inspect.signature(method).parameters.items()]


@pytest.mark.parametrize("cls", [Defender, *OUR_DEFENDERS], ids=named)
def test_a_defender_has_the_members_of_openbackdoors(cls: type) -> None:
    assert is_dataclass(cls) and isinstance(cls.name, str)
    assert type(cls.pre) is bool and type(cls.correction) is bool  # attack() asks `pre is True`
    assert tuple(cls.metrics) == ("FRR", "FAR")
    assert not {"name", "pre", "correction", "metrics"} & set(option_names(cls))
    data = [("model", None), ("clean_data", None), ("poison_data", None)]
    for method in ("detect", "correct", "eval_detect"):
        assert parameters(getattr(cls, method)) == [("self", inspect.Parameter.empty), *data]
    constructor = dict(parameters(cls.__init__))
    shared = {name: constructor[name] for name in ("name", "pre", "correction", "metrics")}
    assert shared == {"name": "base", "pre": False, "correction": False, "metrics": ("FRR", "FAR")}


@pytest.mark.parametrize("cls", OUR_DEFENDERS, ids=named)
def test_a_defender_is_built_from_a_configuration(cls: type) -> None:
    plain = cls()
    config = {"name": cls.name.upper(), "pre": cls.pre, "correction": cls.correction, "metrics": ["FRR", "FAR"]}
    assert cls(**config, **plain.identity()) == plain
    assert cls(**config).identity() == plain.identity()
    assert (plain.name, plain.pre, plain.correction) == (cls.name, cls.pre, cls.correction)
    with pytest.raises(RequestError, match="name of defender"):
        cls(name="another")
    with pytest.raises(RequestError, match="metrics of defender"):
        cls(metrics=["precision"])
    if not cls.pre:
        with pytest.raises(RequestError, match="pre of defender"):
            cls(pre=True)


@pytest.mark.parametrize("cls", OUR_DEFENDERS, ids=named)
def test_a_defender_never_sees_an_answer(cls: type) -> None:
    with pytest.raises(CellError, match="target label"):
        cls().get_target_label(POISONED)
    for method in ("detect", "correct"):
        if getattr(cls, method) is not getattr(Defender, method):
            assert is_guarded(getattr(cls, method)), f"{method} is called with the true flags"


def test_the_base_defender_does_nothing() -> None:
    assert Defender().detect(poison_data=POISONED) == [0, 0, 0]
    assert Defender().correct(poison_data=POISONED) == POISONED


@pytest.mark.parametrize(
    ("defender", "answer"),
    [
        (FlagsWord(), [1, 0, 1]),
        (DeletesWord(), [("a", 1, 0), ("a b", 0, 0), ("", 1, 0)]),
        (DropsWord(), [("a b", 0, 0)]),
    ],
    ids=["detect", "correct", "cleanse"],
)
def test_flags_are_blinded_and_the_test_split_is_dropped(defender: Defender, answer: list) -> None:
    SEEN.clear()
    method = defender.detect if isinstance(defender, FlagsWord) else defender.correct
    splits = {"train": POISONED, "dev": None, "test": POISONED, "test-clean": []}
    assert list(method("model", splits, POISONED)) == answer
    assert list(method(clean_data=POISONED, poison_data=POISONED)) == answer
    blind = [("a cf", 1, 0), ("a b", 0, 0), ("cf cf", 1, 0)]
    assert SEEN == [("model", {"train": blind}, blind), (None, {"dev": blind}, blind)]


def test_eval_detect_compares_with_the_true_flags() -> None:
    splits = {"first": POISONED, "last": [("a cf", 0, 0), ("a", 0, 0), ("b", 1, 1), ("cf", 1, 1)]}
    score, flags = FlagsWord().eval_detect(None, {}, splits)
    assert flags == [1, 0, 0, 1]
    shares = {split: (found["frr"]["value"], found["far"]["value"]) for split, found in score.items()}
    assert shares == {"first": (0.0, 0.0), "last": (0.5, 0.5)}


@pytest.mark.parametrize("cls", OUR_ATTACKERS, ids=named)
def test_an_attacker_is_built_as_openbackdoors_poisoner(cls: type) -> None:
    # Their default target is 0; ours is 1, since the published banks serve no other.
    theirs = {
        "name": "base",
        "target_label": 1,
        "poison_rate": 0.1,
        "label_consistency": False,
        "label_dirty": False,
        "load": False,
        "poison_data_basepath": None,
        "poisoned_data_path": None,
    }
    constructor = dict(parameters(cls.__init__))
    assert {name: constructor[name] for name in theirs} == theirs
    assert not set(theirs) & set(option_names(cls))
    made = cls(name=cls.name.upper(), target_label=0, poison_rate=0.2, label_dirty=True, poison_setting="dirty")
    assert (made.name, made.target_label, made.poison_rate, made.poison_setting) == (cls.name, 0, 0.2, "dirty")
    assert (made.label_consistency, made.label_dirty, made.load) == (False, True, False)
    assert made.identity() == cls().identity()
    for wrong in ({"name": "another"}, {"load": True}, {"poison_rate": 1.5}, {"poison_setting": "clean"}):
        with pytest.raises(RequestError):
            cls(**wrong)


@pytest.mark.parametrize("rule", ["clean", "dirty", "mix"])
@pytest.mark.parametrize("cls", OUR_ATTACKERS, ids=named)
def test_an_attacker_answers_the_three_modes(cls: type, rule: str) -> None:
    poisoner = attacker(cls, rule)
    train, evaluated, detected = (poisoner(SPLITS, mode) for mode in ("train", "eval", "detect"))
    assert list(train) == ["train", "dev-clean", "dev-poison"]
    assert list(evaluated) == ["test-clean", "test-poison"]
    assert list(detected) == ["test-detect"]
    changed = [i for i, row in enumerate(train["train"]) if row[2]]
    assert len(train["train"]) == 40 and len(changed) == 10
    assert {train["train"][i][1] for i in changed} == {1}
    sources = {ROWS[i].label for i in changed}
    assert sources == {"clean": {1}, "dirty": {0}, "mix": {0, 1}}[rule]
    assert [row for row in train["train"] if not row[2]] == [row for i, row in enumerate(ROWS) if i not in changed]
    assert train["dev-clean"] == SPLITS["dev"] and len(train["dev-poison"]) == 10
    assert evaluated["test-clean"] == SPLITS["test"] and len(evaluated["test-poison"]) == 6
    assert all(row[1:] == (1, 1) for row in (*train["dev-poison"], *evaluated["test-poison"]))
    assert not {row.text for row in evaluated["test-poison"]} & {row.text for row in ROWS}
    assert detected["test-detect"] == evaluated["test-clean"] + evaluated["test-poison"]  # eval() matches by position
    state = random.getstate()
    assert attacker(cls, rule)(SPLITS, "train") == train and random.getstate() == state


@pytest.mark.parametrize("cls", OUR_ATTACKERS, ids=named)
def test_an_attacker_poisons_all_it_is_given(cls: type) -> None:
    poisoner = attacker(cls, "mix")
    assert [row[1:] for row in poisoner.poison(ROWS)] == [(1, 1)] * 40
    assert poisoner.get_non_target(ROWS) == ROWS[::2]
    assert [parameters(getattr(cls, name))[1:] for name in ("__call__", "poison", "get_non_target")] == [
        [("data", inspect.Parameter.empty), ("mode", inspect.Parameter.empty)],
        [("data", inspect.Parameter.empty)],
        [("data", inspect.Parameter.empty)],
    ]
    with pytest.raises(RequestError, match="mode"):
        poisoner(SPLITS, "test")


def test_onions_missing_language_model_is_about_its_lm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way out is an option of the defender; `--set model.path` would change the victim."""
    from huggingface_hub import constants

    from bench.victim.spec import ModelSpec
    from defenders.openbackdoor import lm_folder

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CellError, match="not on this machine") as caught:
        lm_folder(ModelSpec(name="no/body", hub="no/body", revision="0" * 40))
    assert "openbackdoor:onion(lm=FOLDER)" in caught.value.remedy and "--set" not in str(caught.value)
