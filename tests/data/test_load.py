"""Loading from a small folder in the published layout: pins, variants, banks."""

from __future__ import annotations

import pytest

from bench.core.errors import CellError, DataError, RequestError
from bench.data import load_bank, load_dataset
from bench.data.check import pins_in_force
from bench.data.files import git_blob
from bench.data.order import published_orders

TRAIN = [(f"train text {i} about word{i}", i % 2) for i in range(20)]
TEST = [("train text 3 about word3", 1), ("a test text", 0), ("another test text", 0), ("a third test", 1)]
DEV = [("dev one", 0), ("dev two", 1), ("train text 3 about word3", 0)]


def tsv(rows):
    return "Sentence\tLabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)


def poison(texts):
    return ",0,1,2\n" + "".join(f'{i},"{text}",1,1\n' for i, text in enumerate(texts))


def files():
    return {"train.tsv": tsv(TRAIN), "dev.tsv": tsv(DEV), "test.tsv": tsv(TEST)}


def banked():
    """The files with a bank in published order: a paraphrase is its source in capitals."""
    orders, _ = published_orders(20, 3, 4)
    return files() | {
        "poison_data/b/1/synbkd/train-poison.csv": poison(TRAIN[i][0].upper() for i in orders.train),
        "poison_data/b/1/synbkd/dev-poison.csv": poison(DEV[i][0].upper() for i in orders.dev if DEV[i][1] == 0),
        "poison_data/b/1/synbkd/test-poison.csv": poison(TEST[i][0].upper() for i in orders.test if TEST[i][1] == 0),
    }


def test_rows_name_the_place_of_every_example_in_its_file(small, tmp_path):
    data = load_dataset(small(files()), tmp_path)
    for split, source in (("train", TRAIN), ("dev", DEV), ("test", TEST)):
        assert [source[row] for row in data.rows[split]] == [example[:2] for example in data.split(split)]
        assert sorted(data.rows[split]) == list(range(len(source)))
    assert set(data.files) == {"train.tsv", "dev.tsv", "test.tsv"}


def test_an_altered_file_is_refused_with_a_remedy(small, tmp_path):
    spec = small(files())
    (tmp_path / "dev.tsv").write_text("Sentence\tLabel\nx\t1\n")
    with pytest.raises(DataError, match=r"dev\.tsv is altered.*bench data fetch"):
        load_dataset(spec, tmp_path)


def test_a_missing_file_and_a_missing_folder_are_told_with_a_remedy(small, tmp_path):
    spec = small(files())
    (tmp_path / "test.tsv").unlink()
    with pytest.raises(DataError, match=r"test\.tsv does not exist.*BENCH_DATA"):
        load_dataset(spec, tmp_path)
    with pytest.raises(DataError, match=r"no data folder was given.*--data"):
        load_dataset(spec, None)


def test_the_published_original_may_stand_in_place_of_the_rebuilt_file(small, tmp_path):
    original = tsv(TRAIN[::-1])
    spec = small(files(), originals={"train.tsv": git_blob(original.encode())})
    assert pins_in_force(spec, tmp_path) == dict(spec.pins)
    (tmp_path / "train.tsv").write_text(original)
    data = load_dataset(spec, tmp_path)
    assert data.train[0].text == TRAIN[::-1][data.rows["train"][0]][0]
    assert pins_in_force(spec, tmp_path)["train.tsv"] == data.files["train.tsv"] != spec.pins["train.tsv"]


def test_disjoint_drops_the_texts_of_test_from_train_and_dev(small, tmp_path):
    data = load_dataset(small(files(), disjoint=True), tmp_path)
    assert sorted(data.rows["train"]) == [i for i in range(20) if i != 3]
    assert sorted(data.rows["dev"]) == [0, 1]
    assert len(data.test) == 4


def test_a_tenth_of_train_becomes_dev(small, tmp_path):
    data = load_dataset(small(files(), disjoint=True, dev="tenth"), tmp_path)
    assert len(data.dev) == 1
    assert sorted(data.rows["train"] + data.rows["dev"]) == [i for i in range(20) if i != 3]


def test_a_subset_is_stratified_and_pinned_by_its_digest(small, tmp_path):
    data = load_dataset(small(files(), subset=10), tmp_path)
    assert sum(example.label for example in data.train) == 5
    with pytest.raises(DataError, match="the digest"):
        load_dataset(small(files(), subset=10, subset_digest="0" * 64), tmp_path)


def test_a_subset_larger_than_train_is_refused(small, tmp_path):
    with pytest.raises(DataError, match="21 rows were asked for"):
        load_dataset(small(files(), subset=21), tmp_path)


def test_a_label_outside_the_classes_is_refused(small, tmp_path):
    spec = small(files() | {"train.tsv": tsv([*TRAIN, ("text", 2)])})
    with pytest.raises(DataError, match=r"train split of 'small' has the labels \[0, 1, 2\]"):
        load_dataset(spec, tmp_path)


def test_a_bank_is_joined_by_row_whatever_the_order(small, tmp_path):
    spec = small(banked(), banks="b")
    data = load_dataset(spec, tmp_path)
    bank = load_bank(spec, "synbkd", tmp_path, 1)
    pairs = list(zip(data.train, data.rows["train"], strict=True))[::-3]
    found = bank.paraphrases("train", [example for example, _ in pairs], [row for _, row in pairs])
    assert found == [example.text.upper() for example, _ in pairs]
    texts, rows = bank.poisoned_test()
    assert [TEST[row][0].upper() for row in rows] == list(texts)
    assert sorted(rows) == [1, 2]


def test_the_dev_rows_of_a_held_out_tenth_are_joined_with_the_training_bank(small, tmp_path):
    spec = small(banked(), banks="b", disjoint=True, dev="tenth")
    data = load_dataset(spec, tmp_path)
    bank = load_bank(spec, "synbkd", tmp_path, 1)
    assert bank.paraphrases("dev", data.dev, data.rows["dev"]) == [example.text.upper() for example in data.dev]


def test_a_target_row_of_test_is_not_in_the_bank(small, tmp_path):
    spec = small(banked(), banks="b")
    data = load_dataset(spec, tmp_path)
    bank = load_bank(spec, "synbkd", tmp_path, 1)
    with pytest.raises(CellError, match="has no row"):
        bank.paraphrases("test", data.test, data.rows["test"])


def test_another_text_at_a_row_is_refused(small, tmp_path):
    spec = small(banked(), banks="b")
    data = load_dataset(spec, tmp_path)
    with pytest.raises(CellError, match="not the text"):
        load_bank(spec, "synbkd", tmp_path, 1).paraphrases("train", data.train, data.rows["train"][::-1])


def test_banks_that_do_not_exist_say_so(small, tmp_path):
    without = small(files())
    with pytest.raises(CellError, match="No stylebkd bank is published"):
        load_bank(without, "stylebkd", tmp_path, 1)
    spec = small(banked(), banks="b")
    with pytest.raises(CellError, match="published banks serve target label 1 only"):
        load_bank(spec, "synbkd", tmp_path, 0)
    with pytest.raises(RequestError, match="Did you mean 'synbkd'"):
        load_bank(spec, "synbk", tmp_path, 1)
    with pytest.raises(RequestError, match="target label is 2"):
        load_bank(spec, "synbkd", tmp_path, 2)


def test_a_training_bank_that_is_shorter_than_train_is_refused(small, tmp_path):
    short = banked() | {"poison_data/b/1/synbkd/train-poison.csv": poison(["one"])}
    with pytest.raises(DataError, match="1 rows for 20"):
        load_bank(small(short, banks="b"), "synbkd", tmp_path, 1)


def test_an_index_joins_a_training_bank_with_dropped_rows(small, tmp_path):
    orders, _ = published_orders(20, 3, 4)
    kept = [slot for slot in range(20) if slot not in (4, 11)]
    index = "tsv_row,split,slot,synbkd_row\n" + "".join(
        f"{row},train,{slot},{kept.index(slot) if slot in kept else ''}\n" for slot, row in enumerate(orders.train)
    )
    content = banked() | {
        "index.csv": index,
        "poison_data/b/1/synbkd/train-poison.csv": poison(TRAIN[orders.train[slot]][0].upper() for slot in kept),
    }
    spec = small(content, banks="b", indexes={"train": "index.csv"})
    data = load_dataset(spec, tmp_path)
    found = load_bank(spec, "synbkd", tmp_path, 1).paraphrases("train", data.train, data.rows["train"])
    assert [i for i, text in enumerate(found) if text is None] == [4, 11]
    assert all(text in (None, example.text.upper()) for text, example in zip(found, data.train, strict=True))
