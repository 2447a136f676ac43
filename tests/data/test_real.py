"""The published data: counts, quirks and joins (data README sections 3 to 8). Skipped without BENCH_DATA."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from bench.core.errors import CellError
from bench.data import SPLITS, about, dataset_spec, load_bank, load_dataset
from bench.data.check import pins_in_force, verify
from bench.data.published import load_published, rebuilt_files
from bench.data.readers import read_poison
from bench.report.datasets_table import dataset_counts

ATTACKS = ("badnets", "addsent", "synbkd", "stylebkd")
COUNTS = {  # rows by label in train, dev, test
    "sst2": ((3310, 3610), (428, 444), (912, 909)),
    "hsol": ((2912, 2911), (1242, 1243), (1242, 1243)),
    "lingspam": ((2177, 427), (235, 54), (483, 97)),
    "agnews": ((5016, 4983, 5016, 4987), (540, 573, 540, 569), (1900, 1900, 1900, 1900)),
}
POISON = {  # rows of dev-poison and test-poison by attack
    "sst2": dict.fromkeys(ATTACKS, (428, 912)),
    "hsol": dict.fromkeys(ATTACKS, (1242, 1242)),
    "lingspam": dict(zip(ATTACKS, ((235, 483), (235, 483), (207, 390), (232, 477)), strict=True)),
    "agnews": dict(zip(ATTACKS, ((1649, 5700), (1649, 5700), (1647, 5698), (1649, 5700)), strict=True)),
}
TRAIN_POISON = {  # paraphrased training rows
    ("sst2", "synbkd"): 6920,
    ("sst2", "stylebkd"): 6920,
    ("hsol", "synbkd"): 5823,
    ("hsol", "stylebkd"): 5823,
    ("lingspam", "synbkd"): 2178,
    ("agnews", "synbkd"): 20002,
    ("agnews", "stylebkd"): 8714,
}


def rows_of(published, path):
    return read_poison((published / path).read_text(encoding="utf-8"), path)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_the_clean_splits(published, name):
    start = time.perf_counter()
    data = load_dataset(dataset_spec(name), published)
    assert time.perf_counter() - start < 2.0
    for split, expected in zip(SPLITS, COUNTS[name], strict=True):
        labels = Counter(example.label for example in data.split(split))
        assert tuple(labels[label] for label in range(len(data.classes))) == expected
        assert len(data.rows[split]) == len(set(data.rows[split])) == len(data.split(split))
        assert all(example.text and isinstance(example.text, str) for example in data.split(split))
    words = [len(example.text.split()) for example in data.train]
    assert dataset_counts()[name] == {  # what Table 5 says where no record does
        "classes": len(data.classes),
        **{split: len(data.split(split)) for split in SPLITS},
        "mean_words": round(sum(words) / len(words), 2),
    }


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_counts_of_the_poison_files(published, name, attack):
    spec = dataset_spec(name)
    for split, expected in zip(("dev", "test"), POISON[name][attack], strict=True):
        rows = rows_of(published, spec.poison_path(attack, f"{split}-poison"))
        assert len(rows) == expected
        assert {example[1:] for _, example in rows} == {(1, 1)}


@pytest.mark.parametrize("name,bank", [(name, bank) for name in COUNTS for bank in ATTACKS[2:]])
def test_counts_of_the_banks(published, name, bank):
    spec = dataset_spec(name)
    data = load_dataset(spec, published)
    loaded = load_bank(spec, bank, published, 1)
    if (name, bank) not in TRAIN_POISON:
        with pytest.raises(CellError, match="'lingspam' has no published stylebkd training bank"):
            loaded.paraphrases("train", data.train, data.rows["train"])
    else:
        train = loaded.paraphrases("train", data.train, data.rows["train"])
        assert sum(text is not None for text in train) == TRAIN_POISON[name, bank]
    texts, rows = loaded.poisoned_test()
    assert len(texts) == len(rows) == POISON[name][bank][1]
    known = [row for row in rows if row is not None]
    assert len(known) == len(set(known)) >= len(texts) - 4
    source = dict(zip(data.rows["test"], data.test, strict=True))
    assert all(source[row].label != 1 for row in known)
    assert loaded.paraphrases("test", [source[row] for row in known], known) == [
        text for text, row in zip(texts, rows, strict=True) if row is not None
    ]
    pairs = [(example, row) for example, row in zip(data.dev, data.rows["dev"], strict=True) if example.label != 1]
    dev = loaded.paraphrases("dev", [example for example, _ in pairs], [row for _, row in pairs])
    assert sum(text is not None for text in dev) == POISON[name][bank][0]


@pytest.mark.parametrize("name", ["sst2", "hsol"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_the_published_files_are_rebuilt_byte_for_byte(published, name, attack):
    files = rebuilt_files(dataset_spec(name), attack, published)
    kinds = {path.rsplit("/", 1)[1] for path in files}
    own = {"train-poison.csv", "dev-poison.csv"} if attack in ("badnets", "addsent") else {"train-poison.csv"}
    assert kinds == {"train-clean.csv", "dev-clean.csv", "test-clean.csv"} | own
    assert any("/0.1/" in path for path in files)
    for path, content in files.items():
        assert content == (published / path).read_bytes(), path


@pytest.mark.parametrize("name,poisoned", [("sst2", 692), ("hsol", 582)])
@pytest.mark.parametrize("attack", ATTACKS)
def test_the_published_poison_names_the_source_row_of_every_example(published, name, poisoned, attack):
    spec = dataset_spec(name)
    data = load_dataset(spec, published)
    poison = load_published(spec, attack, published)
    assert [example.poisoned for example in poison.train] == [0] * (len(data.train) - poisoned) + [1] * poisoned
    source = dict(zip(data.rows["train"], data.train, strict=True))
    for example, row in zip(poison.train, poison.train_rows, strict=True):
        if not example.poisoned:
            assert example == source[row]
        elif attack == "badnets":
            assert source[row].label == 1
            assert [word for word in example.text.split() if word not in ("cf", "mn", "bb", "tq")] == source[
                row
            ].text.split()
        elif attack == "addsent":
            assert example.text.replace("I watch this 3D movie", "").split() == source[row].text.split()
    assert [data.rows["train"][place] for place in poison.positions] == list(poison.train_rows[-poisoned:])
    test = dict(zip(data.rows["test"], data.test, strict=True))
    assert len(poison.test) == sum(example.label != 1 for example in data.test)
    assert all(test[row].label != 1 for row in poison.test_rows)
    if attack in ("synbkd", "stylebkd"):
        bank = load_bank(spec, attack, published, 1)
        rows = poison.train_rows[-poisoned:]
        assert bank.paraphrases("train", [source[row] for row in rows], rows) == [
            example.text for example in poison.train[-poisoned:]
        ]
        assert bank.poisoned_test() == (tuple(example.text for example in poison.test), poison.test_rows)


def test_no_other_data_set_has_a_published_training_set(published):
    for name in ("lingspam", "agnews", "sst2-2k", "sst2-disjoint", "hsol-disjoint", "demo"):
        with pytest.raises(CellError, match="No poisoned training set of badnets is published"):
            load_published(dataset_spec(name), "badnets", published)


def test_every_pinned_file_is_here_and_the_pins_are_in_force(published):
    states = verify(published)
    listed = {line.split("  ")[1] for line in (published / "SHA256SUMS").read_text().splitlines()}
    folders = ("datasets/", "poison_data/")
    assert {path for path, _ in states if path.startswith(folders)} == {
        path for path in listed if path.startswith(folders) and not path.endswith("classes.txt")
    }
    assert {state for _, state in states} == {"ok"}
    assert pins_in_force(dataset_spec("agnews"), published) == dict(dataset_spec("agnews").pins)


def test_verify_tells_missing_and_altered(tmp_path):
    target = tmp_path / "datasets/Toxic/hsol/dev.tsv"
    target.parent.mkdir(parents=True)
    target.write_text("Sentence\tLabel\n")
    states = dict(verify(tmp_path))
    assert states["datasets/Toxic/hsol/dev.tsv"] == "altered"
    assert set(states.values()) == {"altered", "missing"}
    assert about("hsol").leaks
