"""The user's own data: one content in several formats is one data set, and errors name file, row and remedy."""

from __future__ import annotations

import csv
import json
import random

import pytest

from bench.core.errors import CellError, DataError, RequestError
from bench.core.seeding import digest
from bench.data import dataset_spec, leaks_of, load_bank, load_dataset

RNG = random.Random(7)
ROWS = [(f'row {i}, "quoted"\twith a tab, é and {RNG.random()}', RNG.randrange(3)) for i in range(200)]
GOOD = "text,label\n" + "".join(f"some text {i},{i % 2}\n" for i in range(30))


def delimited(path, rows, delimiter, columns=("text", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("text", "label"), delimiter=delimiter)
        file.write(delimiter.join(columns) + "\n")
        writer.writerows({"text": text, "label": label} for text, label in rows)
    return str(path)


def json_lines(path, rows):
    lines = (json.dumps({"label": label, "more": None, "text": text}) + "\n" for text, label in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def test_200_rows_in_csv_tsv_and_jsonl_are_one_data_set(tmp_path):
    (tmp_path / "folder").mkdir()
    paths = [
        delimited(tmp_path / "a.csv", ROWS, ","),
        delimited(tmp_path / "b.tsv", ROWS, "\t"),
        json_lines(tmp_path / "c.jsonl", ROWS),
        json_lines(tmp_path / "d.jsonl", [(text, str(label)) for text, label in ROWS]),
        delimited(tmp_path / "folder" / "train.csv", ROWS, ","),
    ]
    specs = [dataset_spec(path) for path in paths]
    assert len({digest(spec.identity()) for spec in specs}) == 1
    loaded = [load_dataset(spec) for spec in specs]
    assert all(data == loaded[0] for data in loaded)
    assert [len(loaded[0].split(split)) for split in ("train", "dev", "test")] == [160, 20, 20]
    for split in ("train", "dev", "test"):
        rows = loaded[0].rows[split]
        assert [ROWS[row] for row in rows] == [example[:2] for example in loaded[0].split(split)]


def test_another_text_label_or_seed_is_another_data_set(tmp_path):
    base = dataset_spec(json_lines(tmp_path / "a.jsonl", ROWS))
    changed = [
        dataset_spec(json_lines(tmp_path / "b.jsonl", [("other", 0), *ROWS[1:]])),
        dataset_spec(json_lines(tmp_path / "c.jsonl", [(ROWS[0][0], (ROWS[0][1] + 1) % 3), *ROWS[1:]])),
        dataset_spec(str(tmp_path / "a.jsonl"), {"split_seed": 1}),
        dataset_spec(str(tmp_path / "a.jsonl"), {"classes": ["x", "y", "z"]}),
    ]
    assert len({digest(spec.identity()) for spec in [base, *changed]}) == 5
    assert len({spec.name for spec in [base, *changed]}) == 5


def test_class_names_are_numbered_in_alphabetical_order_or_as_given(tmp_path):
    path = delimited(tmp_path / "a.csv", [(f"text {i}", ("spam", "ham")[i % 2]) for i in range(40)], ",")
    data = load_dataset(dataset_spec(path))
    assert data.classes == ("ham", "spam")
    assert {(int(example.text.split()[1]) % 2, example.label) for example in data.train} == {(0, 1), (1, 0)}
    given = load_dataset(dataset_spec(path, {"classes": ["spam", "ham"]}))
    assert {(int(example.text.split()[1]) % 2, example.label) for example in given.train} == {(0, 0), (1, 1)}


def test_class_names_that_are_numbers_are_told_from_positions_once_for_all_rows(tmp_path):
    def labels(values, classes):
        path = json_lines(tmp_path / "a.jsonl", [(f"text {i}", values[i % len(values)]) for i in range(60)])
        rows = load_dataset(dataset_spec(path, {"classes": classes})).train
        return {(values[int(text.split()[1]) % len(values)], label) for text, label, _ in rows}

    assert labels([0, 1, 2], ["1", "2", "3"]) == {(0, 0), (1, 1), (2, 2)}  # 0 is no name: positions
    assert labels([1, 2, 3], ["1", "2", "3"]) == {(1, 0), (2, 1), (3, 2)}
    assert labels([0, 1], ["1", "0"]) == {(1, 0), (0, 1)}
    assert labels([0, 1], ["0", "1", "2"]) == {(0, 0), (1, 1)}
    with pytest.raises(DataError, match=r"labels 1, 2 are some of the class names 1, 2, 3, and positions.*words"):
        labels([1, 2], ["1", "2", "3"])
    with pytest.raises(DataError, match=r"row 3 .*label 3, which is out of range.*not all labels are class names"):
        labels([1, 0, 3], ["1", "2", "3"])
    with pytest.raises(DataError, match=r"label 'two', and an integer from 0 to 1 is needed"):
        labels(["0", "two"], ["1", "two"])


def test_a_split_that_holds_a_position_makes_all_labels_positions(tmp_path):
    for split, values in {"train": (1, 2), "test": (0, 1, 2)}.items():
        json_lines(tmp_path / f"{split}.jsonl", [(f"{split} {i}", values[i % len(values)]) for i in range(60)])
    data = load_dataset(dataset_spec(str(tmp_path), {"classes": ["1", "2", "3"]}))
    assert {label for _, label, _ in data.train} == {1, 2} and {label for _, label, _ in data.test} == {0, 1, 2}


def test_a_folder_with_three_files_is_taken_as_it_is_split(tmp_path):
    delimited(tmp_path / "train.csv", ROWS[:100], ",")
    json_lines(tmp_path / "validation.jsonl", ROWS[100:120])
    delimited(tmp_path / "test.tsv", ROWS[120:], "\t")
    data = load_dataset(dataset_spec(str(tmp_path)))
    assert [example[:2] for example in data.train] == ROWS[:100]
    assert [example[:2] for example in data.dev] == ROWS[100:120]
    assert [example[:2] for example in data.test] == ROWS[120:]
    assert data.rows["dev"] == tuple(range(20))


def test_dev_is_cut_from_train_where_a_folder_has_none(tmp_path):
    delimited(tmp_path / "train.csv", ROWS[:100], ",")
    delimited(tmp_path / "test.csv", ROWS[100:], ",")
    data = load_dataset(dataset_spec(str(tmp_path)))
    assert [len(data.split(split)) for split in ("train", "dev", "test")] == [90, 10, 100]


def test_a_text_that_stands_twice_is_never_on_both_sides_of_a_cut(tmp_path):
    rows = [(f"text {i % 60}", i % 2) for i in range(120)]  # every text twice, with one label
    data = load_dataset(dataset_spec(json_lines(tmp_path / "a.jsonl", rows)))
    train, dev, test = ({text for text, *_ in data.split(split)} for split in ("train", "dev", "test"))
    assert not train & test and not train & dev and not dev & test
    assert (len(data.dev), len(data.test)) == (12, 12) and len(data.train) >= 120 - 2 * 24
    assert leaks_of(data) == ""


def test_texts_that_a_given_split_shares_with_test_are_counted(tmp_path):
    splits = {"train": [0, 1, 2, 3, 1], "dev": [4, 5, 6], "test": [1, 5, 7]}
    for split, numbers in splits.items():
        json_lines(tmp_path / f"{split}.jsonl", [(f"text {i}", i % 2) for i in numbers])
    data = load_dataset(dataset_spec(str(tmp_path)))
    assert leaks_of(data) == "2 of 5 training rows and 1 of 3 dev rows have a text that stands in test."


def test_columns_can_be_named(tmp_path):
    (tmp_path / "a.csv").write_text("sentence,class\n" + GOOD.split("\n", 1)[1])
    data = load_dataset(dataset_spec(str(tmp_path / "a.csv"), {"text_column": "sentence", "label_column": "class"}))
    assert len(data.train) == 24


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    (tmp_path / "a.csv").write_text(GOOD, encoding="utf-8-sig")
    (tmp_path / "b.csv").write_text(GOOD, encoding="utf-8")
    assert dataset_spec(str(tmp_path / "a.csv")).identity() == dataset_spec(str(tmp_path / "b.csv")).identity()


BAD = {
    "missing column": ("a.csv", GOOD.replace("text,label", "txt,label"), r"row 1 .*no column 'text'.*text_column"),
    "out of range": ("a.csv", GOOD + "more,5\n", r"a\.csv, row 31 .*label 5, which is out of range.*Number"),
    "negative": ("a.csv", GOOD + "more,-1\n", r"a\.csv, row 31 .*label -1, which is out of range"),
    "not an integer": ("a.csv", GOOD + "more,1.0\n", r"a\.csv, row 31 .*label '1\.0', and an integer from 0 to 1"),
    "name among integers": ("a.csv", GOOD + "more,spam\n", r"row 31 .*label 'spam', and an integer"),
    "integer among names": ("a.csv", "text,label\nx,spam\ny,3\n" + "z,ham\n" * 30, r"row 2 .*label '3'.*class name"),
    "empty text": ("a.csv", GOOD + "  ,1\n", r"a\.csv, row 31 .*empty text"),
    "empty label": ("a.csv", GOOD + "more,\n", r"row 31 .*empty label"),
    "too many fields": ("a.csv", GOOD + "more,or,1\n", r"row 31 .*has 3 fields and the header 2.*quotes"),
    "open quote": ("a.csv", GOOD + '"more,1\n', r"row 31 .*not valid CSV.*quotes"),
    "single class": ("a.csv", "text,label\n" + "more,1\n" * 30, r"a\.csv has rows of a single class, '1'"),
    "too few": ("a.csv", "text,label\na,0\nb,1\n", r"a\.csv has 2 rows, too few.*at least 20"),
    "no rows": ("a.csv", "text,label\n", r"a\.csv has no rows"),
    "no header": ("a.csv", "", r"a\.csv has no rows"),
    "a column twice": ("a.csv", "text,label,text\na,1,b\n", "a column twice"),
    "NUL": ("a.csv", GOOD + "mo\0re,1\n", r"a\.csv, row 31 \(line 32\) holds a NUL"),
    "json": ("a.jsonl", '{"text": "a", "label": 0}\n{"text": "b"\n', r"a\.jsonl, row 2 is not valid JSON"),
    "no object": ("a.jsonl", "[1]\n", r"a\.jsonl, row 1 is not a JSON object"),
    "missing text": ("a.jsonl", '{"text": null, "label": 0}\n', r"row 1 has the text None, which is not a string"),
    "escaped NUL": ("a.jsonl", '{"text": "a\\u0000", "label": 0}\n', r"row 1 holds a NUL"),
    "float label": ("a.jsonl", '{"text": "a", "label": 1.0}\n', r"row 1 has the label 1\.0, which is neither"),
    "bool label": ("a.jsonl", '{"text": "a", "label": true}\n', r"row 1 has the label True, which is neither"),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_name_file_row_and_remedy(tmp_path, case):
    name, content, message = BAD[case]
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        dataset_spec(str(tmp_path / name))
    assert caught.value.remedy.endswith(".")


def test_another_encoding_than_utf_8_is_named_with_its_row(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"text\tlabel\ngood\t1\ncaf\xe9\t0\n")
    with pytest.raises(DataError, match=r"a\.tsv, row 2 \(line 3\) is not UTF-8 \(byte 0xe9\).*UTF-8"):
        dataset_spec(str(tmp_path / "a.tsv"))


def test_names_that_are_no_data_are_told_apart(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv does not exist"):
        dataset_spec(str(tmp_path / "none.csv"))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(RequestError, match="neither a folder nor"):
        dataset_spec(str(tmp_path / "notes.txt"))
    with pytest.raises(DataError, match="has no train file"):
        dataset_spec(str(tmp_path))
    (tmp_path / "a.csv").write_text(GOOD)
    with pytest.raises(RequestError, match="Did you mean 'text_column'"):
        dataset_spec(str(tmp_path / "a.csv"), {"text_colum": "x"})


def test_a_folder_with_two_files_for_a_split_or_no_test_is_refused(tmp_path):
    for name in ("train.csv", "dev.csv"):
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(DataError, match="has no test file"):
        dataset_spec(str(tmp_path))
    (tmp_path / "train.tsv").write_text(GOOD)
    with pytest.raises(DataError, match="two train files"):
        dataset_spec(str(tmp_path))


def test_a_file_that_changed_after_planning_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text(GOOD)
    spec = dataset_spec(str(tmp_path / "a.csv"))
    (tmp_path / "a.csv").write_text(GOOD + "one more,1\n")
    with pytest.raises(DataError, match="has changed since"):
        load_dataset(spec)


def test_a_custom_data_set_has_no_published_bank(tmp_path):
    (tmp_path / "a.csv").write_text(GOOD)
    with pytest.raises(CellError, match=r"No synbkd bank.*[Gg]enerate a bank"):
        load_bank(dataset_spec(str(tmp_path / "a.csv")), "synbkd", None, 1)


def test_hub_data_are_read_through_the_datasets_library(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    label = datasets.ClassLabel(names=["red", "green", "blue"])
    features = datasets.Features({"text": datasets.Value("string"), "label": label})

    def part(rows):
        return datasets.Dataset.from_list([{"text": text, "label": value} for text, value in rows], features)

    parts = {"train": part(ROWS[:100]), "validation": part(ROWS[100:150]), "test": part([("hidden", -1)])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    data = load_dataset(dataset_spec(f"hub:{tmp_path}/saved"))
    assert data.classes == ("red", "green", "blue")
    assert [example[:2] for example in data.test] == ROWS[100:150]  # the hidden test labels cannot be used
    assert [len(data.train), len(data.dev)] == [90, 10]
    assert load_dataset(dataset_spec(str(tmp_path / "saved"))) == data


def saved(folder, names, rows):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    listed = [{"text": text, "label": label} for text, label in rows]
    datasets.DatasetDict({"train": datasets.Dataset.from_list(listed, features)}).save_to_disk(str(folder))
    return str(folder)


def test_hub_data_whose_class_names_are_numbers_keep_their_labels(tmp_path):
    path = saved(tmp_path / "a", ["1", "2", "3"], ROWS)
    data = load_dataset(dataset_spec(path))
    assert data.classes == ("1", "2", "3")
    assert all(ROWS[row] == example[:2] for row, example in zip(data.rows["train"], data.train, strict=True))
    two = load_dataset(
        dataset_spec(saved(tmp_path / "b", ["1", "2", "3"], [(text, label % 2) for text, label in ROWS]))
    )
    assert {label for _, label, _ in two.train} == {0, 1}
    turned = load_dataset(dataset_spec(path, {"classes": ["3", "1", "2"]}))
    assert [(ROWS[row][1] + 1) % 3 for row in turned.rows["train"]] == [label for _, label, _ in turned.train]
    renamed = load_dataset(dataset_spec(path, {"classes": ["1", "b", "c"]}))
    assert (renamed.classes, renamed.train) == (("1", "b", "c"), data.train)
    with pytest.raises(
        RequestError, match=r"gives 0, 1, 2, and .* declares 1, 2, 3: '1' stands at another place.*Leave"
    ):
        dataset_spec(path, {"classes": ["0", "1", "2"]})
    with pytest.raises(DataError, match=r"train, row 2 has the label -1, .*hidden"):
        dataset_spec(saved(tmp_path / "c", ["1", "2"], [("a", 0), ("b", -1), *[("c", 1)] * 30]))
    signs = load_dataset(dataset_spec(saved(tmp_path / "d", ["-1", "0", "1"], ROWS)))
    assert signs.train == data.train


def test_a_folder_of_the_datasets_library_is_the_same_data_as_its_files(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    path = json_lines(tmp_path / "data" / "train.jsonl", ROWS)
    assert dataset_spec(f"hub:{tmp_path}/data").identity() == dataset_spec(path).identity()


def test_a_hub_id_that_cannot_be_loaded_has_a_remedy(tmp_path):
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match="cannot be loaded.*Check the id"):
        dataset_spec(f"hub:{tmp_path}/nothing")
