"""Properties of every page: order, gaps, marks, what is never mixed, and names that try to break out."""

from __future__ import annotations

import html
import random

import pytest

from bench.report.render import render
from tests.report.fixtures import ATTACKS, board_records, record
from tests.report.pages import row, rows, tables

MAIN = "BERT-Base (recipe released, fp32)"
BOARD = "SST-2, BERT-Base (recipe released, fp32)"


def test_the_order_of_the_records_changes_no_byte() -> None:
    records = board_records()
    expected = render(records, every_table=True)
    for seed in range(3):
        random.Random(seed).shuffle(records)
        assert render(records, every_table=True) == expected


def test_a_record_given_twice_changes_no_byte() -> None:
    records = board_records()
    assert render([*records, *records]) == render(records)


def test_no_record_gives_the_paper_and_dashes() -> None:
    pages = render([], every_table=True)
    assert set(render([])) == {"README.md"}
    assert len(pages) == 13
    first = row(pages["table1.md"], MAIN, Dataset="SST-2", Attack="Badnets")
    assert (first["LoRA CACC"], first["MuScleLoRA ASR"]) == ("— (89.07)", "— (**12.94**)")
    assert len(rows(pages["table1.md"], MAIN)) == 16


def test_ours_stands_beside_the_paper_with_its_deviation() -> None:
    # 1638, 1656 and 1647 of 1821 are 89.9506, 90.9390 and 90.4448 %: mean 90.4448, deviation 9 / 1821 = 0.4942.
    records = [record(seed=seed, cacc=(hits, 1821)) for seed, hits in enumerate((1638, 1656, 1647))]
    found = row(render(records)["table1.md"], MAIN, Dataset="SST-2", Attack="Badnets")
    assert found["LoRA CACC"] == "90.44 ± 0.49 (89.07, +1.37)"
    assert found["LoRA ASR"] == "65.79 ± 0.00 (65.57, +0.22)"


def test_a_missing_cell_and_its_mean_are_dashes() -> None:
    defenses = ("vanilla", "lora", "adapter", "prefix")
    records = [record(attack=attack, defense=name) for attack in ATTACKS for name in defenses]
    records = [one for one in records if one != record(attack="addsent", defense="lora")]
    pages = render(records)
    assert row(pages["table1.md"], MAIN, Dataset="SST-2", Attack="Addsent")["LoRA ASR"] == "— (96.16)"
    found = row(pages["README.md"], BOARD, Defense="LoRA")
    assert (found["CACC"], found["ASR"], found["Average rank"], found["ASR Addsent"]) == ("—", "—", "—", "—")
    assert found["ASR Badnets"] == "65.79"
    assert row(pages["README.md"], BOARD, Defense="Vanilla")["ASR"] != "—"


def test_a_row_says_of_how_many_seeds_its_cells_are_the_means() -> None:
    records = [record(attack=attack, defense="lora", seed=seed) for attack in ATTACKS[:2] for seed in range(3)]
    records += [record(attack=ATTACKS[0], defense="adapter", seed=seed) for seed in (0, 2)]
    records += [record(attack=ATTACKS[1], defense="adapter"), record(attack=ATTACKS[1], defense="vanilla", seed=5)]
    page = render([*records, record(attack=ATTACKS[0], defense="vanilla", seed=4)])["README.md"]
    found = {name: row(page, BOARD, Defense=name)["Seeds"] for name in ("LoRA", "Adapter", "Vanilla")}
    assert found == {"LoRA": "3", "Adapter": "1 to 2", "Vanilla": "1"}


def test_a_row_that_was_told_the_answer_has_no_rank_and_moves_none() -> None:
    records = [record(defense="rap", asr=(9, 912), oracle=True), record(defense="strip", asr=(456, 912))]
    page = render([*records, record(defense="vanilla", asr=(912, 912))])["README.md"]
    ranks = {name: row(page, BOARD, Defense=name)["Average rank"] for name in ("RAP (oracle)", "STRIP", "Vanilla")}
    assert ranks == {"RAP (oracle)": "—", "STRIP": "1.00", "Vanilla": "2.00"}
    assert row(page, BOARD, Defense="RAP (oracle)")["ASR"] == "0.99"
    assert row(page, BOARD, Defense="STRIP")["ASR"] == "**50.00**"
    assert "A row marked oracle has no rank." in page


def test_means_are_over_the_attacks_that_keep_most_cells_in_whole_rows() -> None:
    # Vanilla faced four attacks (ASR 50 each), LoRA and Adapter all but AddSent: 3 x 3 cells are more than 4 x 1.
    records = [record(attack=attack, defense="vanilla", asr=(456, 912)) for attack in ATTACKS]
    records += [
        record(attack=attack, defense=name, asr=(228 * place, 912))
        for place, attack in enumerate(attack for attack in ATTACKS if attack != "addsent")
        for name in ("lora", "adapter")
    ]
    page = render(records)["README.md"]
    assert "Means and ranks over Badnets, HiddenKiller, StyleBkd: more defenses have these than all." in page
    assert row(page, BOARD, Defense="LoRA")["ASR"] == "**25.00**"  # of 0, 25 and 50
    assert row(page, BOARD, Defense="LoRA")["ASR Addsent"] == "—"
    assert row(page, BOARD, Defense="Vanilla")["ASR"] == "50.00"
    assert row(page, BOARD, Defense="Vanilla")["Average rank"] == "2.67"  # 3, 3 and 2, tied with both
    # So are the costs: what AddSent alone cost is not in them.
    dear = [{**one, "cost": {**one["cost"], "train_seconds": 9999.0}} for one in records[1:2]]
    assert dear[0]["cell"]["attack"]["name"] == "addsent"
    dear_page = render([records[0], *dear, *records[2:]])["README.md"]
    assert row(dear_page, BOARD, Defense="Vanilla") == row(page, BOARD, Defense="Vanilla")


@pytest.mark.parametrize("key", ["0" * 40, "f" * 40])
def test_a_watched_cell_does_not_stand_in_the_place_of_the_plain_one(key: str) -> None:
    plain, watched = record(asr=(456, 912)), record(asr=(228, 912))
    watched = {**watched, "key": key, "cell": {**watched["cell"], "analysis": {"name": "fourier", "options": {}}}}
    for records in ([plain, watched], [watched, plain]):
        assert row(render(records)["README.md"], BOARD, Defense="LoRA")["ASR Badnets"] == "50.00"


def _asr_row(*shots: tuple[str, int, bool]) -> dict[str, str]:
    records = [record(defense=name, asr=(hits, 912), trained=trained) for name, hits, trained in shots]
    return row(render(records)["table1.md"], MAIN, Dataset="SST-2", Attack="Badnets")


def test_bold_is_the_lowest_trained_asr_only() -> None:
    found = _asr_row(("vanilla", 912, True), ("lora", 456, True), ("musclelora", 0, False))
    assert found["LoRA ASR"] == "**50.00** (65.57, -15.57)"
    assert found["MuScleLoRA ASR"] == "0.00† (**12.94**, -12.94)"
    assert found["Vanilla ASR"] == "100.00 (94.63, +5.37)"


def test_ties_are_both_bold() -> None:
    found = _asr_row(("vanilla", 912, True), ("lora", 456, True), ("musclelora", 456, True))
    assert found["LoRA ASR"].startswith("**50.00**") and found["MuScleLoRA ASR"].startswith("**50.00**")


def test_the_dagger_counts_the_seeds_that_did_not_train() -> None:
    records = [record(seed=seed, trained=seed > 0) for seed in range(3)]
    found = row(render(records)["table1.md"], MAIN, Dataset="SST-2", Attack="Badnets")
    assert found["LoRA ASR"] == "65.79 ± 0.00†1/3 (65.57, +0.22)"


def test_recipes_and_precisions_are_never_pooled() -> None:
    records = [record(seed=0, asr=(0, 912))]
    records += [record(seed=1, asr=(456, 912), recipe="paper"), record(seed=2, asr=(912, 912), precision="bf16")]
    page = render(records)["table1.md"]
    headings = (MAIN, "BERT-Base (recipe paper, fp32)", "BERT-Base (recipe released, bf16)")
    shown = [row(page, heading, Dataset="SST-2", Attack="Badnets")["LoRA ASR"] for heading in headings]
    assert shown == ["0.00 (65.57, -65.57)", "50.00 (65.57, -15.57)", "100.00 (65.57, +34.43)"]
    assert len(rows(page, headings[1])) == 4, "a block of another setting shows only what was run"


def test_a_subset_is_a_row_of_its_own_after_the_paper() -> None:
    records = [record(), record(dataset="sst2-2k", asr=(0, 912)), record(dataset="demo", rule="mix", asr=(0, 912))]
    page = render(records)["table1.md"]
    order = list(dict.fromkeys(one["Dataset"] for one in rows(page, MAIN)))
    assert order == ["SST-2", "HSOL", "Lingspam", "Agnews", "demo", "sst2-2k"]
    assert row(page, MAIN, Dataset="sst2-2k", Attack="Badnets")["LoRA ASR"] == "0.00"
    assert row(page, MAIN, Dataset="SST-2", Attack="Badnets")["LoRA ASR"] == "65.79 (65.57, +0.22)"


def test_other_axes_are_left_out_and_counted() -> None:
    odd = [record(limit=10), record(ratio=0.2), record(target=0), record(rule="dirty")]
    odd += [record(defense="vanilla", limit=10), record(defense="onion", limit=10)]
    page = render([record(), *odd])["table1.md"]
    assert row(page, MAIN, Dataset="SST-2", Attack="Badnets")["LoRA ASR"] == "65.79 (65.57, +0.22)"
    assert row(page, MAIN, Dataset="SST-2", Attack="Badnets")["Vanilla ASR"] == "— (94.63)"
    assert (
        "Records left out: 1 with a label rule other than the attack's default; 1 with a poison ratio other than 0.1; "
        "2 with a row limit, smoke tests (`limit`); 1 with a target label other than 1." in page
    ), "onion has no place in Table 1, so its record is not counted there"


def test_the_rule_of_an_attack_of_ones_own_is_its_usual_one() -> None:
    records = [record(attack="mine", seed=seed, rule="dirty") for seed in (0, 1)] + [record(attack="mine", rule="mix")]
    page = render(records)["README.md"]
    assert "1 with a label rule" in page
    assert row(page, BOARD, Defense="LoRA")["ASR mine"] == "65.79 ± 0.00"


def test_a_paper_model_stands_in_its_own_table_and_another_in_each() -> None:
    records = [record(model="bert-large"), record(model="minilm-l6")]
    pages = render(records, every_table=True)
    first = {heading for heading, _ in tables(pages["table1.md"])}
    assert {MAIN, "minilm-l6 (recipe released, fp32)"} <= first
    assert not any("BERT-Large" in heading for heading in first)
    assert {"table1.md", "table3.md", "table7.md", "table8.md"} <= set(render(records))
    assert "table9.md" not in render(records), "nothing end-to-end was run"


def test_control_and_loss() -> None:
    # Vanilla on clean data 90 %; LoRA under attack 85 %: the loss is 5 points.
    records = [record(defense="vanilla", ratio=0, attack=attack, cacc=(90, 100), asr=(7, 100)) for attack in ATTACKS]
    records += [record(defense="vanilla", cacc=(88, 100)), record(cacc=(85, 100))]
    pages = render(records)
    control = row(pages["table1.md"], "Clean control", Method="LoRA")
    assert (control["CACC on clean data"], control["CACC loss Badnets"]) == ("—", "5.00")
    assert control["CACC loss Addsent"] == "—"
    reference = row(pages["table1.md"], "Clean control", Method="Vanilla")
    assert (reference["CACC on clean data"], reference["False ASR StyleBkd"]) == ("90.00", "7.00")
    assert row(pages["README.md"], BOARD, Defense="LoRA")["CACC loss"] == "5.00"
    main = row(pages["table1.md"], MAIN, Dataset="SST-2", Attack="Addsent")
    assert main["Vanilla CACC"] == "— (90.99)", "a clean control is no cell under attack"


def test_the_floor_is_taken_off() -> None:
    page = render([record(asr=(50, 100), floor=(20, 100))])["table1.md"]
    assert row(page, "ASR minus floor", Dataset="SST-2", Attack="Badnets")["LoRA"] == "30.00"


HOSTILE = "a|b<script>alert(1)</script>\n# head\n**x** `y` [z](http://e) $m$ \u202e\x00 & <u>"


def test_hostile_names_stay_text() -> None:
    leaking = {"classes": 2, "train": 10, "dev": 1, "test": 1, "mean_words": 1.0, "leaks": HOSTILE}
    records = [
        record(dataset=HOSTILE, model=HOSTILE, info=leaking, environment={"device": HOSTILE, HOSTILE: 1}),
        record(dataset=HOSTILE, model=HOSTILE, defense=HOSTILE, attack=HOSTILE, recipe=HOSTILE, precision=HOSTILE),
        record(model=HOSTILE, defense="vanilla", error=(HOSTILE, HOSTILE, HOSTILE)),
        record(dataset=HOSTILE, model=HOSTILE, ratio=0),
        record(dataset=HOSTILE, model=HOSTILE, attack=HOSTILE, defense="fine-mixing", decided=[{"rho": HOSTILE}]),
        record(dataset=HOSTILE, attack=HOSTILE, defense=HOSTILE, options={"defense": {"clean_budget": 8}}),
    ]
    for name, page in render(records, every_table=True).items():
        assert "<script" not in page and "\u202e" not in page and "\x00" not in page, name
        assert "\n# head" not in page and "**x**" not in page and "[z](" not in page, name
        assert tables(page), "read back strictly: a stray bar would give a row more cells than its head"


def test_hostile_names_are_shown_letter_by_letter() -> None:
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"html": True}).enable("table")
    name = "a|b <i>*x*</i> _y_ `z` [l](u) ~~s~~ &amp; \\ **"
    shown = html.escape(name, quote=False)
    page = parser.render(render([record(dataset=name, model=name)])["README.md"])
    assert f"<h2>{shown}, {shown} (recipe released, fp32)</h2>" in page
    assert f'<td style="text-align:left">{shown}</td>' in parser.render(render([record(dataset=name)])["table1.md"])


def test_table_4_names_what_stands_for_full_fine_tuning() -> None:
    shown = {"attack": "addsent", "model": "llama2-7b"}
    records = [record(defense=name, **shown) | {"stand_in_rank": 1024} for name in ("strip", "vanilla", "onion")]
    page = render([*records, record(defense="lora", **shown)])["table4.md"]
    assert "- LoRA of rank 1024 stands for full fine-tuning of Llama2-7B under Vanilla, ONION, STRIP.\n" in page
    whole = [record(defense=name, **shown) for name in ("strip", "vanilla")]
    assert "stands for" not in render(whole, every_table=True)["table4.md"]


def test_a_custom_data_set_is_named_by_its_file() -> None:
    one = record(dataset="custom-0123456789ab")
    one["read_from"] = "my|reviews.csv"
    assert "custom-0123456789ab was read from my\\|reviews.csv." in render([one])["README.md"]
    assert "was read from" not in render([record()])["README.md"]
