"""LaTeX, CSV and JSON: the numbers of the page, nothing that a spreadsheet or LaTeX would run, the same bytes again."""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
import re

import pytest
from scipy.stats import beta

from bench.core.metrics import wilson
from bench.report.exports import csv_text, exports
from bench.report.intervals import interval
from bench.report.latex import escape
from bench.report.reading import Grid, Heading, Span, Text, plain, read_page
from bench.report.render import render
from tests.report.fixtures import board_records, record
from tests.report.pages import row

MAIN = "BERT-Base (recipe released, fp32)"
HOSTILE = (
    "=cmd|' /C calc'!A0",
    "+1",
    "-2+3",
    "@x",
    "\\input{/etc/passwd}",
    "<script>alert(1)</script>",
    "a&b_c%d#e$f~g^h",
)


def _exports(records: list) -> dict[str, str]:
    return exports(records, render(records, every_table=True))


def _csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_interval_of_one_seed_is_wilsons() -> None:
    assert interval(((8, 10),)) == wilson(8, 10)


def test_seeds_that_agree_leave_the_doubt_of_one_test_split() -> None:
    # Every resample of equal rates is 0.25, so that what remains is Beta(0.25 n + 0.5, 0.75 n + 0.5).
    low, high = interval(((250, 1000),) * 3)
    assert (low, high) == pytest.approx((beta.ppf(0.025, 250.5, 750.5), beta.ppf(0.975, 250.5, 750.5)), abs=0.003)


def test_the_interval_of_unlike_seeds_is_that_of_all_resamples() -> None:
    # Every one of the 27 resamples of three rates is as likely, and each is a Beta of the smallest of the test splits.
    means = [sum(drawn) / 3 for drawn in itertools.product((0.1, 0.2, 0.3), repeat=3)]

    def reached(rate: float) -> float:
        return sum(beta.cdf(rate, 10 * mean + 0.5, 10 * (1 - mean) + 0.5) for mean in means) / len(means)

    # 2,000 draws: the standard deviation of a share of 0.025 or 0.975 is 0.0035.
    found = interval(((1, 10), (40, 200), (90, 300)))
    assert [reached(bound) for bound in found] == pytest.approx([0.025, 0.975], abs=0.008)


def test_seeds_that_differ_widen_the_interval_and_their_order_does_not_matter() -> None:
    same, apart = interval(((250, 1000),) * 3), interval(((150, 1000), (250, 1000), (350, 1000)))
    assert apart[0] < same[0] < 0.25 < same[1] < apart[1]
    low, high = interval(((0, 1000), (0, 1000)))
    assert low < 0.0005 < high < 0.01  # no success in 1,000 is not a rate of exactly zero


def test_csv_and_json_hold_the_numbers_of_the_page() -> None:
    # 1638, 1656 and 1647 of 1821: mean 90.4448 %, deviation 0.4942; 600 of 912 is 65.7895 %; the paper 89.07 and 65.57.
    records = [record(seed=seed, cacc=(hits, 1821)) for seed, hits in enumerate((1638, 1656, 1647))]
    files = _exports(records)
    (found,) = [one for one in _csv(files["data/table1.csv"]) if one["seeds"]]
    assert (found["dataset"], found["attack"], found["defense"], found["seeds"]) == ("sst2", "badnets", "lora", "0;1;2")
    assert (found["cacc_ours"], found["cacc_deviation"], found["cacc_paper"]) == ("90.4448", "0.4942", "89.07")
    assert (found["cacc_difference"], found["asr_difference"], found["asr_rank"]) == ("1.37", "0.22", "1.0")
    assert float(found["cacc_low"]) < 90.4448 < float(found["cacc_high"])
    assert found["records"].split(";") == [one["key"] for one in records]
    content = json.loads(files["data/table1.json"])
    (cell,) = [one for one in content["cells"] if one["seeds"]]
    assert cell["cacc"]["ours"] == 90.4448 and cell["records"] == [one["key"] for one in records]
    assert any(note.startswith("Threat model") for note in content["notes"])
    page = row(render(records)["table1.md"], MAIN, Dataset="SST-2", Attack="Badnets")
    assert page["LoRA CACC"] == "90.44 ± 0.49 (89.07, +1.37)"


@pytest.mark.parametrize("number", (1, 2, 3, 4, 7, 8, 9))
def test_every_cell_of_the_paper_is_there_without_a_record(number: int) -> None:
    cells = _csv(_exports([])[f"data/table{number}.csv"])
    assert len(cells) == {1: 80, 2: 21, 3: 48, 4: 18, 7: 120, 8: 72, 9: 21}[number]
    assert all(cell["cacc_paper"] and cell["asr_paper"] and not cell["cacc_ours"] for cell in cells)


def test_a_detector_has_both_rules_side_by_side() -> None:
    counts = {"cacc": (1500, 1821), "asr": (456, 912), "flip": ((1600, 1821), (228, 912))}
    cells = _csv(_exports([record(attack="addsent", defense="strip", **counts)])["data/table2.csv"])
    found = {cell["flag_rule"]: cell["asr_ours"] for cell in cells if cell["seeds"]}
    assert found == {"reject": "50.0", "flip": "25.0"}


def test_no_text_of_a_csv_is_a_formula() -> None:
    (found,) = _csv(csv_text([{str(place): text for place, text in enumerate(HOSTILE)}]))
    assert [text[0] for text in found.values()][:4] == ["'"] * 4
    assert csv_text([{"difference": -1.5}]) == "difference\n-1.5\n"  # a number is no text
    assert csv_text([{"text": "-1.50"}, {"text": "-1+1"}]) == "text\n-1.50\n'-1+1\n"  # nor is a displayed one
    hostile = [record(model=name, defense="lora", attack=attack) for name in HOSTILE for attack in ("badnets", "=1+1")]
    for name, text in _exports(hostile).items():
        if name.endswith(".csv"):
            assert not [cell for one in csv.reader(io.StringIO(text)) for cell in one if re.match(r"[=@]|[+-]\D", cell)]


def test_latex_prints_hostile_names_and_runs_none() -> None:
    assert escape("\\input{x}") == r"\textbackslash{}input\{x\}"
    assert escape("a&b_c%d#e$f~g^h") == r"a\&b\_c\%d\#e\$f\textasciitilde{}g\textasciicircum{}h"
    assert escape("\u6f22\u202e") == "[U+6F22][U+202E]"
    files = _exports([record(model=name, dataset=name) for name in HOSTILE])
    text = files["data/table1.tex"]
    assert r"\textbackslash{}input\{/etc/passwd\}" in text and "\\input{" not in text


def test_no_row_of_latex_begins_with_what_the_line_end_above_it_would_take() -> None:
    records = [record(defense=name, model=name, attack=name) for name in ("\u6f22", "[1pt]", "*star")]
    for name, text in _exports(records).items():
        if name.endswith(".tex"):
            lines = [line.lstrip().removeprefix("\\item ") for line in text.splitlines()]
            assert not [line for line in lines if line.startswith(("[", "*"))], name


@pytest.mark.parametrize("name", ("table1", "table3", "table8", "board", "fine-mixing"))
def test_latex_is_balanced_and_every_row_is_whole(name: str) -> None:
    text = _exports(board_records())[f"data/{name}.tex"]
    bare = re.sub(r"\\[\\{}&%#$_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert text.count("\\begin{tabular}") == text.count("\\bottomrule") > 0
    for columns, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        for line in body.split("\\\\\n")[:-1]:
            last = re.sub(r"\\(toprule|midrule|addlinespace|cmidrule\(lr\)\{[\d-]+\})", "", line)
            spanned = sum(int(count) - 1 for count in re.findall(r"\\multicolumn\{(\d+)\}", last))
            assert len(re.findall(r"(?<!\\)&", last)) + 1 + spanned == len(columns), line


def test_the_order_of_the_records_changes_no_byte() -> None:
    records = board_records()
    expected = _exports(records)
    random.Random(1).shuffle(records)
    assert _exports(records) == expected


def test_a_page_is_read_as_it_was_written() -> None:
    table = "| L | N |\n|:--|--:|\n| a\\|b | **1.00** (<u>2.00</u>) |"
    page = f"# T \\_x\n\nA *b* [c](d.md) <script>.\n\n{table}\n\n- one\n"
    heading, text, grid, item = read_page(page)
    assert isinstance(heading, Heading) and plain(heading.line) == "T _x"
    assert isinstance(text, Text) and Span("c", link="d.md") in text.line and "<script>" in plain(text.line)
    assert isinstance(grid, Grid) and grid.labels == 1 and plain(grid.rows[0][0]) == "a|b"
    assert grid.rows[0][1] == (Span("1.00", bold=True), Span(" ("), Span("2.00", underline=True), Span(")"))
    assert isinstance(item, Text) and item.item and plain(item.line) == "one"
