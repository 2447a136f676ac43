"""A cell and its parts: what is refused, what makes the key, what stands in a record."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from bench.core.errors import RequestError
from bench.core.spec import Cell, Part


def cell(**fields: Any) -> Cell:
    axes = {axis: Part(axis) for axis in ("dataset", "attack", "model", "defense")}
    return Cell(**{**axes, **fields})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("poison_ratio", 1.0001),
        ("poison_ratio", -0.1),
        ("poison_ratio", float("nan")),
        ("poison_ratio", "0.1"),
        ("poison_ratio", True),
        ("label_rule", "cleanish"),
        ("target_label", -1),
        ("seed", 1.5),
        ("seed", True),
        ("recipe", "mine"),
        ("precision", "fp16"),
        ("limit", 0),
        ("dataset", "demo"),
    ],
)
def test_a_wrong_field_is_named(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=rf"Cell\.{name} is "):
        cell(**{name: value})


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_key_is_known() -> None:
    # It must never change: records are found by it.
    parts = [sha256(f'["part","{axis}","",{{}}]') for axis in ("dataset", "attack", "model", "defense")]
    scalars = (
        '{"label_rule":"mix","limit":null,"poison_ratio":0.1,"precision":"fp32",'
        '"recipe":"released","seed":0,"target_label":1}'
    )
    whole = sha256(f'["cell",{json.dumps(parts, separators=(",", ":"))},{scalars}]')
    assert cell().key == whole[:40] == "85e7401d483a30ea32d075a7405180b912dbaa8c"


def test_an_int_ratio_is_the_same_cell() -> None:
    assert (
        cell(poison_ratio=0).key == cell(poison_ratio=0.0).key
        and cell(poison_ratio=1).key == cell(poison_ratio=1.0).key
    )


def test_the_json_is_the_whole_spec() -> None:
    content = cell(defense=Part("mine", {"words": ["a"]}, source="kit:Mine"), limit=3).json()
    assert content == json.loads(json.dumps(content))
    assert content == {
        "dataset": {"name": "dataset", "options": {}},
        "attack": {"name": "attack", "options": {}},
        "model": {"name": "model", "options": {}},
        "defense": {"name": "mine", "options": {"words": ["a"]}, "source": "kit:Mine"},
        "poison_ratio": 0.1,
        "label_rule": "mix",
        "target_label": 1,
        "seed": 0,
        "recipe": "released",
        "precision": "fp32",
        "limit": 3,
    }


def test_the_title_names_the_axes() -> None:
    title = cell(poison_ratio=0.05, seed=2).title()
    assert title == "dataset / attack @ 0.05 (mix) / defense / model / seed 2"


PART = Part("strip", {"repeat": 5}, version=1, pins={"a": "1"})


@pytest.mark.parametrize(
    ("change", "identity", "pinned"),
    [
        ({"name": "rap"}, True, True),
        ({"options": {"repeat": 6}}, True, True),
        ({"source": "kit:Strip"}, True, True),
        ({"version": 2}, False, True),
        ({"pins": {"a": "2"}}, False, True),
        ({"pins": {"b": "1"}}, False, True),
        ({"place": {"source": "elsewhere.csv"}}, False, False),
    ],
)
def test_what_enters_the_identity_of_a_part(change: dict[str, Any], identity: bool, pinned: bool) -> None:
    other = replace(PART, **change)
    assert (other.identity != PART.identity) is identity
    assert (other.pinned != PART.pinned) is pinned
    assert (other != PART) is pinned and (hash(other) != hash(PART)) is pinned


def test_the_order_of_options_does_not_matter() -> None:
    assert Part("x", {"a": 1, "b": 2}) == Part("x", {"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("source", "shown"),
    [("/home/me/own.csv", "own.csv"), ("data/", "data"), ("hub:a/b", "hub:a/b"), (".", "."), (None, None)],
)
def test_a_part_says_what_was_read_without_the_folders_around_it(source: str | None, shown: str | None) -> None:
    assert Part("custom-0", place={} if source is None else {"source": source}).read_from == shown
