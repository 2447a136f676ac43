"""The boards of ours: ranks and failures, the equal budget, Fine-mixing, detection rates."""

from __future__ import annotations

from typing import Any

import pytest

from bench.report.render import render
from tests.report.fixtures import record
from tests.report.pages import row, rows, tables

BOARD = "SST-2, BERT-Base (recipe released, fp32)"


def test_the_board_ranks_and_lists_failures() -> None:
    why = ("CellError", "There is no bank.", "Generate a bank.")
    records = [record(defense="lora", asr=(100, 912)), record(defense="vanilla", asr=(900, 912))]
    gone = [(name, ratio) for name in ("lora", "ga") for ratio in (0.1, 0.2)]
    records += [record(defense=name, attack="stylebkd", error=why, ratio=ratio) for name, ratio in gone]
    page = render(records)["README.md"]
    assert [one["Defense"] for one in rows(page, BOARD)] == ["LoRA", "Vanilla", "ga"]
    assert row(page, BOARD, Defense="LoRA")["ASR"] == "**10.96**"
    (failed,) = rows(page, "Failed cells")
    assert (failed["Cells"], failed["Remedy"]) == ("4", "Generate a bank.")
    assert failed["Reason"] == "CellError: There is no bank."


def test_equal_budget_holds_its_own_records_and_those_without_clean_rows() -> None:
    fixed = {"defense": {"clean_budget": 96}}
    linked = {"defense": {"links": [{"name": "strip", "options": {}}, {"name": "ga", "options": {"clean_budget": 64}}]}}
    records = [
        record(defense="lora", asr=(300, 912)),
        record(defense="musclelora", asr=(100, 912)),
        record(defense="musclelora", asr=(200, 912), options=fixed),
        record(defense="strip>ga", asr=(400, 912), options=linked),
    ]
    pages = render(records)
    heads = [line for line in pages["equal-budget.md"].splitlines() if line.startswith("## ")]
    assert [head.rpartition(": ")[2] for head in heads] == ["64 clean samples", "96 clean samples"]
    (_, first), (_, second) = tables(pages["equal-budget.md"])
    assert {one["Defense"] for one in first} == {"LoRA", "strip&gt;ga"}
    # 300 and 200 of 912; the record of 96 rows by its own choice stays on the ordinary board.
    assert {one["Defense"]: one["ASR Badnets"] for one in second} == {"LoRA": "32.89", "MuScleLoRA": "21.93"}
    assert row(pages["README.md"], BOARD, Defense="MuScleLoRA")["ASR Badnets"] == "10.96"


def test_equal_budget_tells_why_a_cell_of_it_failed_and_notes_nothing_of_blocks_that_it_has_not() -> None:
    fixed = {"defense": {"clean_budget": 96}}
    why = ("CellError", "Too few clean rows.", "Take more.")
    records = [
        record(defense="lora"),
        record(defense="lora", recipe="paper", seed=7),
        record(defense="lora", dataset="hsol", seed=8),
        record(defense="lora", dataset="hsol", seed=9, error=("Other", "not of this page", "")),
        record(defense="musclelora", options=fixed),
        record(defense="musclelora", dataset="hsol", ratio=0.2, options=fixed),
        record(defense="ga", options=fixed, error=why),
    ]
    page = render(records)["equal-budget.md"]
    (failed,) = rows(page, "Failed cells: 96 clean samples")
    assert (failed["Reason"], failed["Where"]) == ("CellError: Too few clean rows.", "SST-2 / BERT-Base / Badnets / ga")
    assert "Recipe released, precision fp32: seed 0." in page and "Recipe paper" not in page
    assert "HSOL" not in page and "1 with a poison ratio other than 0.1" in page
    assert "Failed cells" not in render(records[:-1])["equal-budget.md"]


@pytest.mark.parametrize(
    ("note", "shown"),
    [
        ({"rho": 0.5, "needed": 0.75, "accuracies": {"0.1": 0.7, "0.5": 0.75 - 1e-12}}, "rho 0.5"),
        ({"rho": 0.5, "needed": 0.75, "accuracies": {"0.1": 0.7, "0.5": 0.74}}, "rho 0.5‡"),
        ({"ratio": 0.9, "needed": 0.75, "accuracies": {"0.9": 0.7}}, "pruned 0.9‡"),
        ({"rho": 0.5}, "rho 0.5"),
        ({"rho": 0.5, "needed": "much", "accuracies": [0.1]}, "rho 0.5"),
    ],
)
def test_a_choice_that_no_candidate_earned_is_marked(note: dict[str, Any], shown: str) -> None:
    page = render([record(defense="vanilla"), record(defense="fine-mixing", decided=[note])])["fine-mixing.md"]
    assert row(page, BOARD, Method="fine-mixing")["Chosen"] == shown


def test_the_fine_mixing_board_counts_what_it_leaves_out() -> None:
    fewer = {"defense": {"steps": 1}}
    records = [record(defense=name, seed=seed) for name in ("vanilla", "fine-mixing") for seed in (0, 1)]
    records += [record(defense="fine-mixing", options=fewer), record(defense="vanilla", limit=64)]
    records += [record(defense="lora", limit=64), record(defense="vanilla", dataset="hsol", limit=64)]
    page = render(records)["fine-mixing.md"]
    assert "Records left out: 1 with a row limit, smoke tests (`limit`); 1 with options other" in page


def test_detection_rates_stand_under_the_board() -> None:
    rates = ((18, 1821), (456, 912), 0.746)
    pages = render([record(defense="strip", detection=rates), record(defense="lora")])
    (found,) = rows(pages["README.md"], "Detection")
    assert found == {"Detector": "STRIP", "Badnets FRR": "0.99", "Badnets FAR": "50.00", "Badnets AUROC": "0.75"}
    assert "Detection" not in render([record(defense="lora")])["README.md"]
    told = render([record(defense="strip", detection=rates, oracle=True)])["README.md"]
    assert [one["Detector"] for one in rows(told, "Detection")] == ["STRIP (oracle)"]
