"""Which of several cells of one row a table shows: by options, by votes, and the plain one of twins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.report.render import render
from tests.report.fixtures import ATTACKS, record
from tests.report.pages import row

MAIN = "BERT-Base (recipe released, fp32)"
BOARD = "SST-2, BERT-Base (recipe released, fp32)"


def test_rarer_options_are_left_out_and_counted() -> None:
    other = {"defense": {"rank": 64}}
    records = [record(seed=seed) for seed in (0, 1)] + [record(seed=0, asr=(0, 912), options=other)]
    page = render(records)["table1.md"]
    assert row(page, MAIN, Dataset="SST-2", Attack="Badnets")["LoRA ASR"] == "65.79 ± 0.00 (65.57, +0.22)"
    assert "1 with options other than those of most records of the same row" in page


def longer(name: str, attacks: Sequence[str] = ATTACKS, seeds: int = 3, **parts: Any) -> list[dict[str, Any]]:
    """Return records of a defense trained by other options of the model, with an ASR of 25 %."""
    other = {"model": {"epochs": 10}}
    return [
        record(attack=attack, defense=name, seed=seed, asr=(228, 912), options=other, **parts)
        for attack in attacks
        for seed in range(seeds)
    ]


def test_a_row_is_of_the_model_options_that_most_cells_of_the_board_have() -> None:
    usual = [record(attack=attack, defense=name) for attack in ATTACKS for name in ("vanilla", "lora", "adapter", "ga")]
    page = render([*usual, *longer("lora")])["README.md"]
    assert row(page, BOARD, Defense="LoRA")["ASR Badnets"] == "65.79", "12 cells of LoRA are longer, and 4 are not"
    assert "12 with model options other than those of most cells of the same data set and model" in page
    # A defense that has no other cell is shown as it was run.
    page = render([*usual, *longer("musclelora")])["README.md"]
    assert row(page, BOARD, Defense="MuScleLoRA")["ASR Badnets"] == "25.00 ± 0.00"


def test_a_cell_that_was_run_again_with_an_analysis_looking_on_is_no_second_vote() -> None:
    usual = [record(attack=attack, defense="lora") for attack in ATTACKS[:2]]
    other = [*longer("lora", ATTACKS[:2], seeds=1), *longer("lora", ATTACKS[2:3], seeds=1)]
    watched = json.loads(json.dumps(usual))
    for one in watched:
        one["cell"]["analysis"] = {"name": "frequencies", "options": {}}
        one["key"] = one["key"][::-1]
    for records in ([*usual, *other], [*usual, *other, *watched]):
        assert row(render(records)["README.md"], BOARD, Defense="LoRA")["ASR Badnets"] == "25.00"
