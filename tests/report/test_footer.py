"""The notes under a table name what its rows do not say of themselves."""

from __future__ import annotations

from typing import Any

import pytest

from bench.report.render import render
from tests.report.fixtures import record


def of(axis: str, part: dict[str, Any]) -> str:
    """Return the board of a record whose attack or defense is replaced."""
    one = record()
    one["cell"][axis] = {"options": {}, **part}
    return render([one])["README.md"]


@pytest.mark.parametrize(
    ("axis", "part", "shown"),
    [
        ("defense", {"name": "odd", "source": "odd_words:OddWords"}, "odd is odd\\_words:OddWords"),
        ("attack", {"name": "suffix", "source": "kit:Suffix"}, "suffix is kit:Suffix"),
        (
            "defense",
            {
                "name": "odd>lora>odder",
                "options": {
                    "links": [
                        {"name": "odd", "options": {}, "source": "kit:Odd"},
                        {"name": "lora", "options": {}},
                        {"name": "odder", "options": {}, "source": "kit:Odder"},
                    ]
                },
            },
            "odd is kit:Odd; odder is kit:Odder",
        ),
    ],
)
def test_a_row_of_a_plugin_from_elsewhere_says_which_class_it_is(axis: str, part: dict[str, Any], shown: str) -> None:
    assert f"- From outside this suite: {shown}.\n" in of(axis, part)


def test_of_two_plugins_of_one_name_the_notes_say_which_is_where() -> None:
    shown = "mine is kit:Mine (HSOL / BERT-Base); mine is other:Mine (SST-2 / BERT-Base)"
    one, two = record(dataset="hsol", defense="mine"), record(defense="mine")
    one["cell"]["defense"]["source"], two["cell"]["defense"]["source"] = "kit:Mine", "other:Mine"
    assert f"- From outside this suite: {shown}.\n" in render([one, two])["README.md"]


@pytest.mark.parametrize(
    "part",
    [
        {"name": "lora"},
        {"name": "openbackdoor:strip", "source": "openbackdoor:strip"},
        {"name": "mine", "options": {"links": ["a", "b"]}},
    ],
)
def test_one_whose_name_says_it_is_not_named_twice(part: dict[str, Any]) -> None:
    assert "From outside" not in of("defense", part)
