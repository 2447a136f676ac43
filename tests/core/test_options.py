"""Options: what is refused and in which words, what is taken, and what the identity holds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import RequestError
from bench.core.options import (
    Count,
    Fraction,
    Index,
    NonNegative,
    Options,
    Positive,
    Real,
    Text,
    added,
    build,
    label,
    option_names,
    plain,
)


@dataclass(frozen=True)
class Inner(Options):
    """Options inside options."""

    depth: Count = 2


@dataclass(frozen=True)
class Knobs(Options):
    """One field of every kind that a spec uses."""

    share: Fraction = 0.5
    rate: Positive = 1.0
    slack: NonNegative = 0.0
    shift: Real = 0.0
    count: Count = 1
    index: Index = 0
    word: Text = "a"
    flag: bool = False
    side: Literal["left", "right"] = "left"
    bound: Count | None = None
    ladder: tuple[Positive, ...] = (1.0, 2.0)
    words: tuple[Text, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    inner: Inner = Inner()


class Stranger:
    """A class that nothing can validate."""


WRONG = [
    ("share", 1.5),
    ("share", -0.1),
    ("share", math.nan),
    ("share", math.inf),
    ("share", "0.5"),
    ("share", True),
    ("share", None),
    ("share", [0.5]),
    ("share", 10**400),
    ("rate", 0),
    ("rate", math.inf),
    ("slack", -1e-9),
    ("shift", math.nan),
    ("shift", "1"),
    ("count", 0),
    ("count", 2.5),
    ("count", "3"),
    ("count", True),
    ("index", -1),
    ("index", False),
    ("word", ""),
    ("word", " \t"),
    ("word", 5),
    ("word", b"a"),
    ("flag", 1),
    ("flag", "true"),
    ("flag", None),
    ("side", "up"),
    ("side", 0),
    ("bound", 0),
    ("bound", False),
    ("ladder", 1.0),
    ("ladder", (1.0, 0.0)),
    ("ladder", (1.0, True)),
    ("ladder", ["1"]),
    ("ladder", None),
    ("words", "abc"),
    ("words", ("a", "")),
    ("words", {"a"}),
    ("places", {"train": 1}),
    ("places", ["train"]),
    ("inner", {"depth": 3}),
    ("inner", None),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda item: repr(item)[:20])
def test_a_wrong_value_is_named_with_its_rule(name: str, value: Any) -> None:
    with pytest.raises(RequestError) as caught:
        Knobs(**{name: value})
    assert caught.value.problem.startswith(f"Knobs.{name} is {value!r}: ")
    assert " should " in caught.value.problem and caught.value.problem.endswith(".")
    assert caught.value.remedy


def test_the_rule_is_the_one_that_was_broken() -> None:
    with pytest.raises(RequestError, match=r"Knobs\.share is 1\.5: input should be less than or equal to 1\."):
        Knobs(share=1.5)
    with pytest.raises(RequestError, match=r"Knobs\.side is 'up': input should be 'left' or 'right'\."):
        Knobs(side="up")
    with pytest.raises(RequestError, match=r"Knobs\.count is '3': input should be a valid integer\."):
        Knobs(count="3")


@pytest.mark.parametrize(
    ("name", "value", "problem", "remedy"),
    [
        ("ladder", (1.0, -2.0, 3.0), "is (1.0, -2.0, 3.0): -2.0 should be greater than 0", "in range"),
        ("words", ("a", 5), ": 5 should be a valid string", "Write a text."),
        ("words", "a", "is 'a'", "Write a list: [a, b]."),
        ("count", "three", "is 'three'", "whole number"),
        ("share", "10%", "is '10%'", "such as 0.1"),
        ("flag", "yes", "is 'yes'", "true or false"),
        ("side", "lefft", "is 'lefft'", "Did you mean 'left'?"),
        ("word", "sch\udcc3\udcb6n", "should be a valid string", "LC_ALL=C.UTF-8"),
        ("word", " ", "should match pattern", "of that form"),
        ("side", 7, "is 7: input should be 'left' or 'right'", "one of these"),
    ],
)
def test_the_remedy_says_what_to_write(name: str, value: Any, problem: str, remedy: str) -> None:
    with pytest.raises(RequestError) as caught:
        Knobs(**{name: value})
    assert problem in caught.value.problem and remedy in caught.value.remedy


def test_an_int_is_a_float_and_a_list_a_tuple() -> None:
    knobs = Knobs(share=1, rate=3, ladder=[1, 2.5], words=["a", "b"], bound=7, inner=Inner(5))
    assert (knobs.share, type(knobs.share)) == (1.0, float)
    assert (knobs.rate, type(knobs.rate)) == (3.0, float)
    assert knobs.ladder == (1.0, 2.5) and all(type(step) is float for step in knobs.ladder)
    assert knobs.words == ("a", "b") and knobs.bound == 7 and knobs.inner.depth == 5


def test_the_identity_holds_every_option_as_json() -> None:
    assert Knobs(share=1, places={"train": "x"}).identity() == {
        "share": 1.0,
        "rate": 1.0,
        "slack": 0.0,
        "shift": 0.0,
        "count": 1,
        "index": 0,
        "word": "a",
        "flag": False,
        "side": "left",
        "bound": None,
        "ladder": [1.0, 2.0],
        "words": [],
        "places": {"train": "x"},
        "inner": {"depth": 2},
    }


@dataclass(frozen=True)
class Grown(Options):
    """A spec with a field that came after records existed."""

    old: Count = 1
    new: Count = added(5)


def test_an_added_option_stays_out_while_it_is_default() -> None:
    assert Grown().identity() == {"old": 1}
    assert Grown(new=5).identity() == {"old": 1}
    assert Grown(new=6).identity() == {"old": 1, "new": 6}
    assert Grown(old=2).identity() == {"old": 2}


def test_build_names_the_nearest_option() -> None:
    with pytest.raises(RequestError, match=r"There is no option of thing 'box' named 'shere'\. Did you mean 'share'\?"):
        build(Knobs, {"shere": 0.1}, "thing", "box")
    with pytest.raises(RequestError, match=r"named 'zzzzz'\. There are: bound, count, flag"):
        build(Knobs, {"zzzzz": 0.1}, "thing", "box")


def test_build_says_when_there_are_no_options() -> None:
    @dataclass(frozen=True)
    class Bare(Options):
        pass

    with pytest.raises(RequestError, match="thing 'box' has no options, so 'share' cannot be set"):
        build(Bare, {"share": 0.1}, "thing", "box")
    assert build(Bare, {}, "thing", "box") == Bare()


def test_build_says_what_is_missing() -> None:
    @dataclass(frozen=True)
    class Needy(Options):
        first: Count
        second: Text
        third: Count = 3

    with pytest.raises(RequestError, match="thing 'box' lacks first, second"):
        build(Needy, {"third": 1}, "thing", "box")
    assert build(Needy, {"first": 1, "second": "b"}, "thing", "box") == Needy(1, "b", 3)
    assert option_names(Needy) == ("first", "second", "third")


@pytest.mark.parametrize(
    ("declared", "shown"),
    [
        (np.ndarray, "numpy.ndarray"),
        (tuple[np.ndarray, ...], "tuple[numpy.ndarray, ...]"),
        (Stranger | None, "Stranger"),
    ],
)
def test_a_type_that_no_option_can_have_is_named_with_those_it_can(declared: Any, shown: str) -> None:
    cls = dataclasses.make_dataclass("Odd", [("table", declared, None)], bases=(Options,), frozen=True)
    with pytest.raises(RequestError) as caught:
        cls()
    assert caught.value.problem.startswith("Odd.table is declared as ") and shown in caught.value.problem
    assert "bool, int, float, str" in caught.value.remedy


def test_a_type_that_is_not_imported_is_named() -> None:
    cls = dataclasses.make_dataclass("Odd", [("table", "NoSuchType", None)], bases=(Options,), frozen=True)
    with pytest.raises(RequestError, match="annotation of Odd cannot be read: name 'NoSuchType' is not defined"):
        cls()


def test_options_cannot_be_changed_afterwards() -> None:
    with pytest.raises(AttributeError):
        Knobs().share = 0.1  # type: ignore[misc]


def test_the_label_is_the_name_or_else_the_class() -> None:
    @dataclass(frozen=True)
    class Named(Options):
        name: Text = "box"

    assert (label(Named()), label(Knobs())) == ("box", "Knobs")


def test_plain_values_are_json() -> None:
    assert plain({"a": (1, (2, 3)), 4: Inner()}) == {"a": [1, [2, 3]], "4": {"depth": 2}}


@given(st.floats(0, 1, allow_nan=False), st.integers(1, 10**9), st.lists(st.floats(1e-300, 1e300), max_size=3))
@settings(database=None, derandomize=True, deadline=None)
def test_the_identity_builds_the_same_options_again(share: float, count: int, ladder: list[float]) -> None:
    knobs = Knobs(share=share, count=count, ladder=tuple(ladder))
    content = {name: value for name, value in knobs.identity().items() if name != "inner"}
    assert build(Knobs, content, "thing", "box") == knobs
