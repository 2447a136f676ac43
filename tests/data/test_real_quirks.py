"""The quirks of data README section 8 and the joins of section 4, on the published data."""

from __future__ import annotations

import csv
import dataclasses
import functools
from collections import Counter

import pytest

from bench.data import dataset_spec, load_bank, load_dataset
from bench.data.files import git_blob


@pytest.fixture(scope="module")
def load(published):
    return functools.cache(lambda name: load_dataset(dataset_spec(name), published))


def texts(examples):
    return {example.text for example in examples}


def duplicates(examples):
    counts = Counter(example.text for example in examples)
    return sum(count - 1 for count in counts.values())


def test_hsol_dev_is_its_test(load):
    data = load("hsol")
    assert sorted(data.dev) == sorted(data.test)
    assert len(texts(data.train) & texts(data.test)) == 19
    assert (duplicates(data.train), duplicates(data.test)) == (55, 13)


def test_sst2_overlap_and_duplicates(load):
    data = load("sst2")
    assert len(texts(data.train) & texts(data.test)) == 2
    assert duplicates(data.train) == 9


def test_lingspam_test_is_inside_train_and_dev(load):
    data = load("lingspam")
    test = texts(data.test)
    assert sum(example.text in test for example in data.train) == 543
    assert len(texts(data.dev) & test) == 55
    assert (duplicates(data.train), duplicates(data.test)) == (46, 15)


def test_the_slots_of_the_index_files_are_the_order_of_the_splits(load, published):
    for name, file, column in (("lingspam", "lingspam", "tsv_row"), ("agnews", "miniagnews", "csv_row")):
        data = load(name)
        with (published / f"index/{file}_train_rows.csv").open(newline="") as lines:
            for line in csv.DictReader(lines):
                assert data.rows[line["split"]][int(line["slot"])] == int(line[column])
        with (published / f"index/{file}_test_rows.csv").open(newline="") as lines:
            for line in csv.DictReader(lines):
                assert data.rows["test"][int(line["slot"])] == int(line["file_row"])


def test_dev_is_the_published_dev_in_its_order(load, published):
    for name in ("sst2", "hsol", "lingspam", "agnews"):
        path = published / dataset_spec(name).poison_path("badnets", "dev-clean")
        with path.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.reader(lines))[1:]
        assert [(text, int(label)) for _, text, label, _ in rows] == [example[:2] for example in load(name).dev]


def test_agnews_has_no_overlap_and_no_backslash(load):
    data = load("agnews")
    assert not texts(data.train) & texts(data.test)
    assert not texts(data.dev) & (texts(data.train) | texts(data.test))
    assert not any("\\" in example.text for example in (*data.train, *data.dev, *data.test))


@pytest.mark.parametrize("name", ["sst2", "hsol", "lingspam", "agnews"])
def test_disjoint_variants_hold_no_text_of_test(load, name):
    full, data = load(name), load(f"{name}-disjoint")
    assert not (texts(data.train) | texts(data.dev)) & texts(data.test)
    assert data.test == full.test
    source = dict(zip(full.rows["train"], full.train, strict=True))
    assert all(source[row] == example for row, example in zip(data.rows["train"], data.train, strict=True))


def test_sizes_of_the_disjoint_variants(load):
    sizes = {name: load(f"{name}-disjoint") for name in ("sst2", "hsol", "lingspam", "agnews")}
    assert {name: (len(data.train), len(data.dev)) for name, data in sizes.items()} == {
        "sst2": (6920 - 3, 872),
        "hsol": (5823 - 43 - 578, 578),
        "lingspam": (2604 - 543, 289 - 56),
        "agnews": (20002, 2222),
    }
    assert not texts(sizes["hsol"].train) & texts(sizes["hsol"].dev)


def test_sst2_2k_is_2000_stratified_rows_of_sst2(load):
    full, data = load("sst2"), load("sst2-2k")
    assert Counter(example.label for example in data.train) == {0: 957, 1: 1043}  # 2000 x 3310 / 6920 = 956.6
    source = dict(zip(full.rows["train"], full.train, strict=True))
    assert all(source[row] == example for row, example in zip(data.rows["train"], data.train, strict=True))
    assert (data.dev, data.test) == (full.dev, full.test)


def test_empty_paraphrases_stay_empty_strings(load, published):
    for name in ("sst2", "lingspam"):
        data = load(name)
        bank = load_bank(dataset_spec(name), "synbkd", published, 1)
        found = bank.paraphrases("train", data.train, data.rows["train"])
        assert found.count("") == 1
        if name == "sst2":
            assert found.index("") == 787


def test_lingspam_test_paraphrases_stand_where_the_same_message_has_the_same_paraphrase(load, published):
    """The paraphraser is deterministic: a test message that is also in train or dev has one paraphrase."""
    data = load("lingspam")
    bank = load_bank(dataset_spec("lingspam"), "synbkd", published, 1)
    known = {}
    for split in ("train", "dev"):
        pairs = [
            pair
            for pair in zip(data.split(split), data.rows[split], strict=True)
            if split == "train" or pair[0].label != 1
        ]
        found = bank.paraphrases(split, [pair[0] for pair in pairs], [pair[1] for pair in pairs])
        for (example, _), text in zip(pairs, found, strict=True):
            known.setdefault(example.text, set()).add(text)
    source = dict(zip(data.rows["test"], data.test, strict=True))
    checked = 0
    for text, row in zip(*bank.poisoned_test(), strict=True):
        same = known.get(source[row].text, set()) - {None} if row is not None else set()
        if same:
            checked += 1
            assert text in same
    assert checked >= 360


def test_agnews_training_bank_is_aligned_and_its_published_part_exact(load, published):
    data = load("agnews")
    bank = load_bank(dataset_spec("agnews"), "synbkd", published, 1)
    found = bank.paraphrases("train", data.train, data.rows["train"])
    with (published / "poison_data/miniagnews/1/synbkd/train-poison.csv").open(newline="", encoding="utf-8") as file:
        rows = [text for _, text, _, _ in list(csv.reader(file))[1:]]
    with (published / "index/miniagnews_train_rows.csv").open(newline="") as lines:
        index = [line for line in csv.DictReader(lines) if line["synbkd_row"] and line["split"] == "train"]
    assert len(index) == 7298
    assert all(found[int(line["slot"])] == rows[int(line["synbkd_row"])] for line in index)


def test_agnews_style_bank_has_no_world_row(load, published):
    data = load("agnews")
    bank = load_bank(dataset_spec("agnews"), "stylebkd", published, 1)
    found = bank.paraphrases("train", data.train, data.rows["train"])
    labels = Counter(e.label for e, text in zip(data.train, found, strict=True) if text is not None)
    assert labels == {1: 2872, 2: 2898, 3: 2944}


def test_with_the_published_train_file_in_place_agnews_banks_keep_only_rows_that_are_sure(published):
    """The rebuilt file plays the published one: what counts is which rows of the banks are used then."""
    spec = dataset_spec("agnews")
    path = spec.files["train"]
    blob = git_blob((published / path).read_bytes())
    spec = dataclasses.replace(spec, pins={**spec.pins, path: "0" * 64}, originals={path: blob})
    data = load_dataset(spec, published)
    kept = {}
    for bank in ("synbkd", "stylebkd"):
        found = load_bank(spec, bank, published, 1).paraphrases("train", data.train, data.rows["train"])
        kept[bank] = sum(text is not None for text in found)
    # 7,298 exact rows, and 12,522 more in gaps between them where no row was dropped.
    assert kept["synbkd"] == 7298 + 12522
    assert 0 < kept["stylebkd"] < 7298
