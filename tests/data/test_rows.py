"""Orders, samples, splits and alignment against cases worked out by hand."""

from __future__ import annotations

import random

import pytest

from bench.core.errors import DataError
from bench.core.example import Example
from bench.data.align import align
from bench.data.bank_files import interpolated
from bench.data.order import published_orders
from bench.data.readers import read_poison, read_rows
from bench.data.splits import held_out, outside, stratified


def test_published_order_takes_train_and_dev_from_the_second_pass_and_test_from_the_first():
    rng = random.Random(42)
    passes = []
    for _ in range(2):
        lists = [list(range(5)), list(range(3)), list(range(4))]
        for rows in lists:
            rng.shuffle(rows)
        passes.append(lists)
    orders, state = published_orders(5, 3, 4)
    assert orders == (tuple(passes[1][0]), tuple(passes[1][1]), tuple(passes[0][2]))
    assert state.random() == rng.random()


def test_without_a_dev_file_dev_is_the_first_tenth_of_train_shuffled_again():
    orders, _ = published_orders(29, None, 4)
    assert len(orders.dev) == 2
    assert sorted(orders.train + orders.dev) == list(range(29))


def test_a_stratified_sample_keeps_the_proportions():
    labels = [0] * 60 + [1] * 30 + [2] * 10
    picked = stratified(labels, 10, random.Random(0))
    assert [sum(labels[i] == label for i in picked) for label in (0, 1, 2)] == [6, 3, 1]
    assert picked == sorted(set(picked))


def test_the_largest_remainder_gets_the_last_row():
    labels = [0] * 5 + [1] * 3 + [2] * 2  # of 3 rows: 1.5, 0.9 and 0.6
    picked = stratified(labels, 3, random.Random(0))
    assert [sum(labels[i] == label for i in picked) for label in (0, 1, 2)] == [1, 1, 1]


def test_more_rows_than_there_are_is_an_error():
    with pytest.raises(DataError, match="4 rows were asked for and there are 3"):
        stratified([0, 1, 1], 4, random.Random(0))


def test_outside_drops_every_row_whose_text_stands_in_the_other_set():
    rows = [Example(text, 0) for text in ("a", "b", "a", "c")]
    assert outside(rows, [Example("a", 1)]) == [1, 3]


def test_the_held_out_tenth_shares_no_text_with_the_rest():
    rows = [Example(f"text {i // 2 if i < 10 else i}", i % 2) for i in range(40)]  # the first ten in pairs
    rest, tenth = held_out(rows, random.Random(0))
    assert len(tenth) == 4
    assert sorted(rest + tenth) == list(range(40))
    assert not {rows[i].text for i in rest} & {rows[i].text for i in tenth}


def test_sst2_text_keeps_its_quotes():
    assert read_rows("sst2", 'sentence\tlabel\n"half a quote\t1\n', "f") == [('"half a quote', 1, 0)]


def test_quoted_tsv_is_unquoted():
    assert read_rows("quoted-tsv", 'S\tL\n"a ""b"" c"\t0\nNA\t1\n', "f") == [('a "b" c', 0, 0), ("NA", 1, 0)]


def test_agnews_joins_title_and_description_and_counts_classes_from_0():
    assert read_rows("agnews", '"4"," Tit","on\\\\Monday"\n', "f") == [(" Tit on  Monday", 3, 0)]


@pytest.mark.parametrize("format,content", [("sst2", "h\nno tab\n"), ("quoted-tsv", "a\tb\nx\tnot a number\n")])
def test_a_row_out_of_format_is_an_error(format, content):
    with pytest.raises(DataError, match="not in the format"):
        read_rows(format, content, "f.tsv")


def test_empty_and_missing_looking_poison_texts_stay_strings():
    assert read_poison(',0,1,2\n0,"",1,1\n7,NA,1,1\n', "f") == [(0, ("", 1, 1)), (7, ("NA", 1, 1))]


def test_alignment_finds_the_dropped_row():
    sources = ["the red fox runs", "a blue whale swims", "the green bird sings", "one grey mouse hides"]
    paraphrases = ["when it runs , the fox is red", "if it sings , the bird is green", "as it hides , a mouse is grey"]
    assert align(sources, paraphrases) == [0, 2, 3]


def test_alignment_gives_no_place_where_the_words_do_not_decide():
    assert align(["the red fox", "one same text", "one same text", "a blue whale"], ["red fox", "same", "whale"]) == [
        0,
        None,
        3,
    ]


def test_equal_lengths_are_joined_by_position_and_a_surplus_is_refused():
    assert align(["a", "b"], ["x", "y"]) == [0, 1]
    with pytest.raises(ValueError, match="3 paraphrases"):
        align(["a", "b"], ["x", "y", "z"])


def test_a_gap_is_filled_only_where_no_row_was_dropped():
    # Slots 1-2 lie between rows 0 and 3: none dropped. Slots 4-5 lie between rows 3 and 5: one of them was.
    assert interpolated({0: 0, 3: 3, 6: 5}, 8, 7) == {0: 0, 1: 1, 2: 2, 3: 3, 6: 5, 7: 6}
