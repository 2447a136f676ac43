"""Specs: names, options, identity."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from bench.core.errors import RequestError
from bench.core.seeding import digest
from bench.data import about, dataset_names, dataset_spec
from bench.data.spec import DatasetSpec

NAMED = {
    "agnews",
    "agnews-disjoint",
    "demo",
    "hsol",
    "hsol-disjoint",
    "lingspam",
    "lingspam-disjoint",
    "sst2",
    "sst2-2k",
    "sst2-disjoint",
}


def test_every_named_data_set_has_a_file():
    assert set(dataset_names()) == NAMED


@pytest.mark.parametrize("name", sorted(NAMED))
def test_a_file_states_only_what_differs_from_the_class(name):
    spec = dataset_spec(name)
    assert spec.name == name
    assert len(spec.classes) == (4 if name.startswith("agnews") else 2)
    assert all(len(pin) == 64 for pin in spec.pins.values())
    assert hash(spec) == hash(dataset_spec(name))
    assert about(name).citation


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(RequestError, match="Did you mean 'sst2-2k'"):
        dataset_spec("sst2-2kk")


def test_an_unknown_option_gets_the_nearest_one():
    with pytest.raises(RequestError, match="Did you mean 'subset'"):
        dataset_spec("sst2", {"subsett": 100})


def test_a_wrong_value_names_the_value():
    with pytest.raises(RequestError, match="-3"):
        dataset_spec("sst2", {"subset": -3})


@pytest.mark.parametrize(
    "name,dev,right", [("sst2", "cut", "file"), ("agnews", "file", "cut"), ("demo", "cut", "file")]
)
def test_dev_fits_the_files(name, dev, right):
    with pytest.raises(RequestError, match=f"dev cannot be '{dev}'. Set dev to {right} or tenth"):
        dataset_spec(name, {"dev": dev})


def test_files_and_name_are_not_for_the_user_to_set():
    for option in ("name", "pins", "files"):
        with pytest.raises(RequestError, match=f"no option of dataset 'sst2' named '{option}'"):
            dataset_spec("sst2", {option: "x"})


def test_another_subset_is_not_held_to_the_pinned_digest():
    assert dataset_spec("sst2-2k").subset_digest
    assert dataset_spec("sst2-2k", {"subset_seed": 1}).subset_digest == ""


CHANGES = {
    "name": "other",
    "format": "agnews",
    "classes": ("negative", "positive", "neither"),
    "files": dict.fromkeys(("train", "dev", "test"), "datasets/SentimentAnalysis/SST-2/dev.tsv"),
    "indexes": {"train": "datasets/SentimentAnalysis/SST-2/dev.tsv"},
    "pins": {**dataset_spec("sst2").pins, "more": "0" * 64},
    "originals": {"more": "0" * 40},
    "banks": "hsol",
    "dev": "tenth",
    "dev_seed": 1,
    "disjoint": True,
    "subset": 7,
    "subset_seed": 1,
    "subset_digest": "0" * 64,
}


def test_every_field_changed_changes_the_identity():
    spec = dataset_spec("sst2")
    assert set(CHANGES) == {field.name for field in dataclasses.fields(DatasetSpec)}
    for name, value in CHANGES.items():
        changed = dataclasses.replace(spec, **{name: value})
        assert digest(changed.identity()) != digest(spec.identity()), name


def test_an_option_reaches_the_spec_and_leaves_the_rest():
    spec = dataset_spec("sst2", {"subset": 100})
    assert spec.subset == 100
    assert spec.files == dataset_spec("sst2").files


def test_a_file_without_a_pin_is_refused():
    with pytest.raises(RequestError, match=r"x\.tsv without a pin"):
        DatasetSpec(name="d", format="sst2", classes=("a", "b"), files={"train": "x.tsv"})


def test_one_class_is_refused():
    with pytest.raises(RequestError, match="two or more"):
        DatasetSpec(name="d", format="sst2", classes=("a",))


def test_the_known_leaks_have_a_sentence_and_their_disjoint_variants_none():
    for name in ("sst2", "hsol", "lingspam"):
        assert about(name).leaks.endswith(".")
        assert about(f"{name}-disjoint").leaks == ""


def test_importing_the_layer_brings_no_heavy_package():
    code = "import sys, bench.data; print([name for name in ('torch', 'pandas', 'datasets') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pins_are_those_of_the_published_list(published: Path):
    listed = dict(reversed(line.split("  ")) for line in (published / "SHA256SUMS").read_text().splitlines())
    for name in NAMED - {"demo"}:
        for path, pin in dataset_spec(name).pins.items():
            assert listed[path] == pin, path
