"""YAML as this project reads it: JSON values only, numbers as people write them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.yaml_text import read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 0.0005),
        ("1e3", 1000.0),
        ("-2.5E+1", -25.0),
        ("0.1", 0.1),
        (".5", 0.5),
        ("1.", 1.0),
        ("7", 7),
        ("0", 0),
        ("-3", -3),
        (".inf", math.inf),
        ("e4", "e4"),
        ("1e", "1e"),
        ("1.2.3", "1.2.3"),
        ("'5e-4'", "5e-4"),
        ("2024-01-31", "2024-01-31"),
        ("2024-99-99", "2024-99-99"),
        ("lora+ga", "lora+ga"),
        ("true", True),
        ("null", None),
        ("", None),
        ("[1, [a, 'b c'], {x: 2e0}]", [1, ["a", "b c"], {"x": 2.0}]),
        ("a: 1\nb:\n  - 2\n  - c: 3", {"a": 1, "b": [2, {"c": 3}]}),
        ("[&x [1], *x]", [[1], [1]]),
    ],
)
def test_values(text: str, value: Any) -> None:
    found = read_yaml(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\na: 2", "'a' stands twice"),
        ("a: {b: 1, b: 2}", "'b' stands twice"),
        ("1: x", "a key is no word"),
        ("true: x", "a key is no word"),
        ("? [a]\n: x", "a key is no word"),
        ("[1, 2", "expected ',' or ']'"),
        ("{", "expected the node content"),
        ("a: b: c", "mapping values are not allowed here"),
        ("\ta: 1", "cannot start any token"),
        ("a\x00", "special characters are not allowed"),
        ("&a [*a]", "a value holds itself"),
        ("&a {x: [*a]}", "a value holds itself"),
        ("[" * 700, "nested too deeply"),
        ("9" * 5000, "4300"),
        ("!!set {a, b}", "a value is a set, which JSON does not have"),
        ("!!binary aGk=", "a value is a bytes"),
        ("!!timestamp 2024-01-31", "a value is a date"),
        ("!!timestamp 2024-99-99", "month must be in 1..12"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("!!int x", "invalid literal for int"),
        ("--- 1\n--- 2", "expected a single document"),
    ],
    ids=lambda item: item[:24],
)
def test_refusals_are_one_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_yaml(text)
    assert reason in str(caught.value) and "<unicode" not in str(caught.value) and "\n" not in str(caught.value)


def test_the_place_is_named() -> None:
    with pytest.raises(ValueError, match=r"'a' stands twice in line 2, column 1: a: 2 \^"):
        read_yaml("a: 1\na: 2")


def test_other_readers_of_yaml_are_left_as_they_were() -> None:
    assert yaml.safe_load("5e-4") == "5e-4"


@given(st.text(alphabet="ab:,-[]{}'\"&*!|>#? \n\t10.e%@`~", max_size=40))
@settings(database=None, derandomize=True, deadline=None, max_examples=300)
def test_any_text_is_json_or_a_value_error(text: str) -> None:
    try:
        value = read_yaml(text)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        json.dumps(value)
