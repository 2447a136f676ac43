"""Errors: one sentence with the value and the rule, and a remedy."""

from __future__ import annotations

import pickle

import pytest

from bench.core.errors import BenchError, CellError, DataError, RequestError, reason_of, unknown


def test_the_message_is_problem_and_remedy() -> None:
    error = CellError("520 rows are too many.", "Lower the ratio.")
    assert (error.problem, error.remedy) == ("520 rows are too many.", "Lower the ratio.")
    assert str(error) == "520 rows are too many. Lower the ratio."
    assert str(DataError("It is gone.")) == "It is gone."


@pytest.mark.parametrize("kind", [BenchError, RequestError, DataError, CellError])
def test_an_error_survives_the_way_between_processes(kind: type[BenchError]) -> None:
    again = pickle.loads(pickle.dumps(kind("It is gone.", "Fetch it.")))
    assert (type(again), again.problem, again.remedy) == (kind, "It is gone.", "Fetch it.")


def test_all_are_bench_errors_and_a_wrong_request_is_a_value_error() -> None:
    assert all(issubclass(kind, BenchError) for kind in (RequestError, DataError, CellError))
    assert issubclass(RequestError, ValueError) and not issubclass(CellError, ValueError)


def test_an_unknown_name_gets_the_nearest() -> None:
    error = unknown("grid", "demi", ["full", "demo", "table1"])
    assert str(error) == "There is no grid named 'demi'. Did you mean 'demo'?"


@pytest.mark.parametrize(("name", "near"), [("SST-2", "sst2"), ("BERT", "bert-base"), ("MuScleLoRA", "musclelora")])
def test_capitals_do_not_hide_the_nearest(name: str, near: str) -> None:
    assert unknown("thing", name, ["sst2", "hsol", "bert-base", "musclelora"]).remedy == f"Did you mean {near!r}?"
    assert unknown("thing", "lora", ["LoRA"]).remedy == "Did you mean 'LoRA'?"


def test_without_a_near_name_all_are_listed_in_order() -> None:
    error = unknown("grid", "xyz", ["full", "demo"])
    assert str(error) == "There is no grid named 'xyz'. There are: demo, full."


@pytest.mark.parametrize("name", [5, None, "", "x" * 10_000])
def test_any_name_can_be_unknown(name: object) -> None:
    assert "There are: demo, full." in unknown("grid", name, ["full", "demo"]).remedy


def test_where_nothing_exists_it_says_so() -> None:
    assert unknown("option", "x", []).remedy == "There are: none."


def test_the_reason_of_a_record_names_its_kind_where_nobody_had_expected_it() -> None:
    expected = {"type": "CellError", "message": "No bank.", "remedy": "Make one.", "traceback": None}
    assert reason_of(expected) == "No bank. Make one." and reason_of(expected, remedy=False) == "No bank."
    sudden = {"type": "KeyError", "message": "'x'", "remedy": "", "traceback": "Traceback ..."}
    assert reason_of(sudden) == "KeyError: 'x'"
    assert reason_of({**sudden, "message": "KeyError"}) == "KeyError"
