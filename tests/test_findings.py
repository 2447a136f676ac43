"""Every number in a table of leaderboard/FINDINGS.md is one that a published record holds."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from bench.core.metrics import wilson
from tests.findings import ATTACKS, FOLDER, TEXT, by_seed, lines_under, percent, records, rows, writer

ORDER = ("badnets", "addsent", "hiddenkiller", "stylebkd")  # of columns


def test_the_tables_are_what_the_script_writes() -> None:
    assert writer().written(TEXT, records()) == TEXT
    named = [name for name in re.findall(r"<!-- (\w+) -->", TEXT) if name != "end"]
    assert sorted(named) == sorted(writer().TABLES)


def test_there_are_findings() -> None:
    assert len(rows()) >= 20


@pytest.mark.parametrize(
    "row", [row for row in rows() if "Seeds" in row], ids=lambda row: f"{row['Attack']}-{row['Defense']}"
)
def test_a_mean_over_seeds_is_that_of_the_records(row: dict[str, str]) -> None:
    found = by_seed(row["Attack"], row["Defense"])
    assert row["Seeds"] == str(len(found))
    for column, name in (("CACC", "cacc"), ("ASR", "asr"), ("Floor", "asr_floor")):
        assert float(row[column]) == pytest.approx(sum(percent(one, name) for one in found) / len(found), abs=0.006)
    asr = [f"{percent(one, 'asr'):.1f}" for one in found]
    assert row["ASR by seed"] == (", ".join(asr) if len(found) > 1 else "")
    low, high = (float(part) for part in row["ASR, 95 %"].split(" to "))
    assert low <= float(row["ASR"]) <= high


@pytest.mark.parametrize("line", lines_under("| Mean ASR by seed |"), ids=lambda line: line[0])
def test_a_mean_over_attacks_is_that_of_its_cells(line: list[str]) -> None:
    defense, cacc, asr, seeds, spread, *dev = line
    cells = [by_seed(attack, defense) for attack in (*ATTACKS, "stylebkd")]
    assert [len(found) for found in cells] == [3, 3, 3, 3]
    values = np.array([[percent(one, "asr") for one in found] for found in cells])
    assert float(asr) == pytest.approx(values.mean(), abs=0.006)
    assert seeds == ", ".join(f"{value:.1f}" for value in values.mean(axis=0))
    assert float(spread) == pytest.approx(values.std(axis=1, ddof=1).mean(), abs=0.06)
    for said, name in zip([cacc, *dev], ["cacc", "dev"], strict=False):
        assert float(said) == pytest.approx(np.mean([[percent(one, name) for one in f] for f in cells]), abs=0.006)


@pytest.mark.parametrize("line", lines_under("| From | To |"), ids=lambda line: " to ".join(line[:2]))
def test_a_pair_is_compared_over_the_seeds_that_both_have(line: list[str]) -> None:
    first, second, cells, cacc, asr, lower, chance, later, *dev = line
    apart: dict[str, list[float]] = {"cacc": [], "asr": [], "dev": []}
    fresh: list[float] = []  # ASR of the cells whose seed is not 0
    for attack in (*ATTACKS, "stylebkd"):
        for one, other in itertools.product(by_seed(attack, first), by_seed(attack, second)):
            if one["cell"]["seed"] == other["cell"]["seed"]:
                for name, values in apart.items():
                    values.append(percent(other, name) - percent(one, name))
                fresh += apart["asr"][-1:] if one["cell"]["seed"] else []
    for said, values in ((chance, apart["asr"]), (later, fresh)):
        flipped = np.array(list(itertools.product([1, -1], repeat=len(values)))) @ np.array(values)
        assert float(said) == pytest.approx(np.mean(abs(flipped) >= abs(sum(values)) - 1e-9), abs=6e-5)
    assert int(cells) == len(apart["asr"]) >= 4
    assert int(lower) == sum(value < 0 for value in apart["asr"])
    for said, name in zip([cacc, asr, *dev], apart, strict=False):
        assert float(said) == pytest.approx(np.mean(apart[name]), abs=0.06)


@pytest.mark.parametrize("line", lines_under("| Defense | CACC | Floor |"), ids=lambda line: line[0])
def test_a_control_is_that_of_the_records(line: list[str]) -> None:
    found = [records()[attack, line[0], 0.0, "default"] for attack in ORDER]
    assert {record["cell"]["seed"] for record in found} == {0}
    for said, name in zip(line[1:3], ("cacc", "asr_floor"), strict=True):
        assert float(said) == pytest.approx(np.mean([percent(record, name) for record in found]), abs=0.006)
    assert line[3:] == [f"{percent(record, 'asr'):.2f}" for record in found]


@pytest.mark.parametrize("line", lines_under("| Defense | Poisoned seeds |"), ids=lambda line: line[0])
def test_what_poisoning_adds_is_the_mean_over_seeds_less_the_control(line: list[str]) -> None:
    poisoned = [by_seed(attack, line[0]) for attack in ORDER]
    assert [len(found) for found in poisoned] == [int(line[1])] * 4
    for said, attack, found in zip(line[2:], ORDER, poisoned, strict=True):
        clean = percent(records()[attack, line[0], 0.0, "default"], "asr")
        more = [percent(one, "asr") - clean for one in found]
        mean, seeds = said.rstrip(")").split(" (")
        assert float(mean) == pytest.approx(np.mean(more), abs=0.06)
        assert [float(value) for value in seeds.split(", ")] == pytest.approx(more, abs=0.51)


def test_there_are_pairs_and_means() -> None:
    assert len(lines_under("| From | To |")) >= 8 and len(lines_under("| Mean ASR by seed |")) >= 8


@pytest.mark.parametrize(
    "row",
    [row for row in rows() if "Seeds" not in row],
    ids=lambda row: f"{row['Attack']}-{row['Defense']}-{row.get('Cell', '')}",
)
def test_a_number_of_the_findings_is_held_by_a_record(row: dict[str, str]) -> None:
    record = records()[row["Attack"], row["Defense"], float(row.get("Ratio", 0.1)), row.get("Cell", "default")]
    for column, name in (("CACC", "cacc"), ("ASR", "asr"), ("Floor", "asr_floor"), ("FRR", "frr"), ("FAR", "far")):
        if column in row:
            assert row[column] == f"{100 * record['metrics'][name]['value']:.2f}", column
    if "AUROC" in row:
        assert row["AUROC"] == f"{record['metrics']['auroc']:.2f}"
    if "ASR, 95 %" in row:
        low, high = wilson(record["metrics"]["asr"]["hits"], record["metrics"]["asr"]["n"])
        assert row["ASR, 95 %"] == f"{100 * low:.1f} to {100 * high:.1f}"
    if "Removed, poisoned" in row:
        cleansed = record["cleansed"]
        assert row["Removed, poisoned"] == f"{cleansed['removed']}, {cleansed['removed_poisoned']}"


def test_the_errors_of_the_frequencies_are_those_of_the_records() -> None:
    lines = TEXT.split("| Training |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(lines) >= 6
    for line in lines:
        name, *errors = [part.strip() for part in line.strip("|").split("|")]
        attack, defense = name.split(", ")
        found = {
            entry["mapping"]: entry
            for entry in records()[attack, defense, 0.1, "watched"]["analysis"]["filters"]
            if (entry["over"], entry["kernel"], entry["quantile"]) == ("joint", "paper", 0.5)
        }
        parts = [(mapping, part) for mapping in ("clean", "backdoor") for part in ("low_error", "high_error")]
        assert errors == [f"{found[mapping][part][-1]:.2f}" for mapping, part in parts], name


def test_the_page_is_linked() -> None:
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert re.search(r"\(leaderboard/FINDINGS\.md\)", readme)
