"""The page of the records that no table takes: each is there once, with what tells it apart and why."""

from __future__ import annotations

from bench.report.beside import TITLE, beside
from bench.report.render import render
from bench.report.selection import select
from bench.report.telling import Telling
from tests.report.fixtures import record
from tests.report.pages import rows


def ranked(rank: int, hits: int) -> dict:
    return record(options={"defense": {"rank": rank, "alpha": 32}}, asr=(hits, 912))


def test_a_run_of_records_that_fit_has_no_such_page() -> None:
    assert "beside.md" not in render([record()], of_a_run=True)
    assert beside(select([record()])) is None


def test_every_record_that_is_left_out_stands_there_once_with_its_reason() -> None:
    others = [record(ratio=0.05), record(target=0), record(limit=64), ranked(4, 300)]
    usual = [ranked(8, 600), record(options={"defense": {"rank": 8, "alpha": 32}}, seed=1)]
    pages = render([*usual, *others], of_a_run=True)
    assert "- [Records beside the tables](beside.md)" in pages["README.md"]
    found = rows(pages["beside.md"], TITLE)
    assert len(found) == 4
    why = {row["Why"] for row in found}
    assert {"a poison ratio other than 0.1", "a target label other than 1"} < why
    assert any("smoke tests" in text for text in why)
    (four,) = (row for row in found if "rank=4" in row["Defense"])
    assert (four["Defense"], four["ASR"], four["CACC"]) == ("LoRA(rank=4)", "32.89", "87.86")
    assert next(row for row in found if row["Ratio"] == "0.05")["Dataset"] == "SST-2"


def test_of_two_plugins_of_one_name_the_rarer_stands_there_with_where_it_is_from() -> None:
    records = [record(defense="mine"), record(defense="mine", attack="addsent"), record(defense="mine", asr=(91, 912))]
    for one, source in zip(records, ("kit:Mine", "kit:Mine", "other:Mine"), strict=True):
        one["cell"]["defense"]["source"], one["key"] = source, f"{source}{one['key']}"
    pages = render(records, of_a_run=True)
    (found,) = rows(pages["beside.md"], TITLE)
    assert (found["Defense"], found["ASR"]) == ("mine(source=other:Mine)", "9.98")
    why = "a plug-in of the same name from elsewhere than that of most records of the same row"
    assert found["Why"] == why and f"- Records left out: 1 with {why}.\n" in pages["README.md"]


def test_what_is_published_has_no_such_page() -> None:
    assert "beside.md" not in render([record(), record(ratio=0.05)], every_table=True)


def test_a_board_whose_records_were_all_left_out_does_not_say_that_none_was_run() -> None:
    board = render([record(target=0)], of_a_run=True)["README.md"]
    assert "No record fits this page." in board and "beside.md" in board
    assert "was run yet" not in board and "no record to show yet" not in board
    assert "There is no record to show yet." in render([])["README.md"]


def test_a_failed_cell_at_another_ratio_says_at_which() -> None:
    error = ("CellError", "Too few rows.", "Lower it.")
    board = render([record(), record(ratio=0.9, error=error), record(seed=3, error=error)])["README.md"]
    (failed,) = rows(board, "Failed cells")
    assert failed["Where"].split("; ") == [f"SST-2 / BERT-Base / Badnets / LoRA{at}" for at in ("", " @ 0.9")]


def test_names_that_look_like_numbers_are_sorted_all_the_same() -> None:
    page = render([record(dataset=name, target=0) for name in ("²", "12", "a", "9")], of_a_run=True)["beside.md"]
    assert [row["Dataset"] for row in rows(page, TITLE)] == ["a", "²", "9", "12"]


def test_an_untrained_record_is_marked() -> None:
    page = render([record(target=0, trained=False)], of_a_run=True)["beside.md"]
    assert rows(page, TITLE)[0]["ASR"] == "65.79†" and "† not trained" in page


def test_a_name_carries_the_options_that_differ_and_no_others() -> None:
    parts = [("defense", "lora", {"rank": 4, "alpha": 32}), ("defense", "lora", {"rank": 8, "alpha": 32})]
    telling = Telling([*parts, ("defense", "strip", {"repeat": 5})])
    assert telling.name("defense", {"name": "lora", "options": parts[1][2]}) == "lora(rank=8)"
    assert telling.name("defense", {"name": "strip", "options": {"repeat": 5}}) == "strip"
    assert telling.name("defense", {"name": "unheard", "options": {}}) == "unheard"
