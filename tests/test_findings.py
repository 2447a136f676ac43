"""Every number in a table of leaderboard/FINDINGS.md is one that a published record holds."""

from __future__ import annotations

import csv
import functools
import importlib.util
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.metrics import wilson

FOLDER = Path(__file__).resolve().parents[1] / "leaderboard"
ATTACKS = ("badnets", "hiddenkiller", "addsent")
LONGER = "10 epochs, rate 0.0005"
CELL = ("table", "model", "dataset", "defense")  # of the paper's results
TEXT = (FOLDER / "FINDINGS.md").read_text(encoding="utf-8")


def rows() -> list[dict[str, str]]:
    """Return the rows of every table that names cells, by column."""
    found, head = [], []
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            head = []
        elif not head:
            head = cells
        elif set(cells[0]) - set(":- "):
            found.append(dict(zip(head, cells, strict=True)))
    return [row for row in found if {"Attack", "Defense"} <= row.keys()]


@functools.cache
def writer() -> Any:
    """Return the module that writes the tables."""
    found = importlib.util.spec_from_file_location("findings", FOLDER.parent / "docs" / "findings.py")
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@functools.cache
def records() -> dict[tuple[str, str, float, str], dict[str, Any]]:
    """Return the published records of the findings' board by attack, defense, poison ratio and cell."""
    held: dict[tuple[str, str, float, str], dict[str, Any]] = writer().records()
    return held


def test_the_tables_are_what_the_script_writes() -> None:
    assert writer().written(TEXT, records()) == TEXT
    named = [name for name in re.findall(r"<!-- (\w+) -->", TEXT) if name != "end"]
    assert sorted(named) == sorted(writer().TABLES)


def test_there_are_findings() -> None:
    assert len(rows()) >= 20


def by_seed(attack: str, defense: str) -> list[dict[str, Any]]:
    """Return the records of an attack and a defense at ratio 0.1 by seed; `lora, longer` are the longer trainings."""
    name, _, longer = defense.partition(", ")
    found = [
        record
        for (one, other, ratio, cell), record in records().items()
        if (one, other, ratio) == (attack, name, 0.1)
        and cell in ("default", "seed 1", "seed 2", *(f"{LONGER}{seed}" for seed in ("", ", seed 1", ", seed 2")))
        and cell.startswith(LONGER) == bool(longer)
    ]
    assert not longer or {record["cell"]["model"]["options"]["epochs"] for record in found} <= {10}
    return sorted(found, key=lambda record: record["cell"]["seed"])


def percent(record: dict[str, Any], name: str) -> float:
    """Return a metric in percent, or as `dev` the accuracy by which the checkpoint was chosen."""
    if name == "dev":
        return 100 * float(max(record["cost"]["selection_accuracies"]))
    return 100 * float(record["metrics"][name]["value"])


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


def lines_under(head: str) -> list[list[str]]:
    """Return the rows of all tables whose head holds `head`, in order."""
    parts = [part.split("\n\n")[0].splitlines()[2:] for part in TEXT.split(head)[1:]]
    return [[cell.strip() for cell in line.strip("|").split("|")] for lines in parts for line in lines]


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
    first, second, cells, cacc, asr, lower, _, *dev = line
    apart: dict[str, list[float]] = {"cacc": [], "asr": [], "dev": []}
    for attack in (*ATTACKS, "stylebkd"):
        for one, other in itertools.product(by_seed(attack, first), by_seed(attack, second)):
            if one["cell"]["seed"] == other["cell"]["seed"]:
                for name, values in apart.items():
                    values.append(percent(other, name) - percent(one, name))
    assert int(cells) == len(apart["asr"]) >= 4
    assert int(lower) == sum(value < 0 for value in apart["asr"])
    for said, name in zip([cacc, asr, *dev], apart, strict=False):
        assert float(said) == pytest.approx(np.mean(apart[name]), abs=0.06)


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


def test_what_is_said_of_e_pur_and_the_reserve_ratio() -> None:
    held = records()
    (purified,) = held["badnets", "e-pur", 0.1, "default"]["decided"]
    assert {"bb", "tq", "cf", "mn"} < set(purified["reset"][:5]) and len(purified["reset"]) == 200
    for attack, alone, chained, apart in (("badnets", 0.5, 0.3, -19), ("hiddenkiller", 0.3, 0.5, 2)):
        found = [held[attack, name, 0.1, "default"] for name in ("fine-mixing", "e-pur>fine-mixing")]
        assert [record["decided"][-1]["rho"] for record in found] == [alone, chained]
        first, second = (record["metrics"]["asr"]["value"] for record in found)
        assert round(100 * (second - first)) == apart


def test_what_the_deviations_say_of_fine_mixing() -> None:
    held, said = records(), (FOLDER / "DEVIATIONS.md").read_text(encoding="utf-8")
    cells = [
        (held[attack, "fine-mixing", 0.1, "default"], held[attack, "vanilla", 0.1, "default"]) for attack in ATTACKS
    ]
    assert [mixed["decided"][-1]["rho"] for mixed, _ in cells] == [0.5, 0.3, 0.7]
    asr = [f"{100 * mixed['metrics']['asr']['value']:.2f}" for mixed, _ in cells]
    lost = [
        f"{100 * (plain['metrics']['cacc']['value'] - mixed['metrics']['cacc']['value']):.1f}" for mixed, plain in cells
    ]
    for one, two, three in (asr, lost):
        assert f"{one}, {two} and {three}" in said


def test_what_the_deviations_say_of_strip_and_rap() -> None:
    held, said = records(), (FOLDER / "DEVIATIONS.md").read_text(encoding="utf-8")
    for defense, cell in (
        *(("strip", "default"), ("openbackdoor:strip", "default"), ("rap", "default")),
        *(("openbackdoor:rap", "default"), ("rap", "momentum 1")),
    ):
        pairs = []
        for attack in ("badnets", "addsent"):
            found = held[attack, defense, 0.1, cell]["metrics"]
            pairs.append(f"{100 * found['frr']['value']:.2f} and {100 * found['far']['value']:.2f} %")
        (line,) = [row for row in said.splitlines() if row.startswith(f"| {defense.rpartition(':')[2].upper()} |")]
        assert all(pair in line for pair in pairs), (defense, pairs)


def test_what_the_deviations_say_of_vanilla_and_the_cleansers() -> None:
    held, said = records(), (FOLDER / "DEVIATIONS.md").read_text(encoding="utf-8")
    asr, removed = {}, {}
    for attack in ("badnets", "hiddenkiller"):
        asr[attack] = f"{percent(held[attack, 'vanilla', 0.1, 'default'], 'asr'):.2f}"
        for name in ("bki", "cube"):
            found = held[attack, name, 0.1, "default"]["cleansed"]
            removed[attack, name] = found["removed_poisoned"], found["removed"]
    assert f"vanilla has ASR {asr['badnets']} on BadNets and {asr['hiddenkiller']} on HiddenKiller" in said
    hits, rows = removed["badnets", "bki"]
    others = "{} of {} on HiddenKiller".format(*removed["hiddenkiller", "bki"])
    assert f"{hits} of {rows} removed rows were poisoned on BadNets, {others}" in said
    hits, rows = removed["hiddenkiller", "cube"]
    assert f"{removed['badnets', 'cube'][0]} of 200 removed on BadNets and no clean row" in said
    assert len(set(removed["badnets", "cube"])) == 1
    assert f"{hits} of 200 on HiddenKiller with {rows - hits} clean rows" in said


def test_what_is_said_of_the_papers_own_means() -> None:
    with (FOLDER.parent / "bench" / "report" / "paper_results.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(line for line in stream if not line.startswith("#")))
    means = []
    for table, model in (("1", "bert-base"), ("7", "bert-large"), ("4", "llama2-7b")):
        where = (table, model, "sst2", "musclelora")
        found = [float(row["asr"]) for row in rows if tuple(row[name] for name in CELL) == where]
        means.append(f"{np.mean(found):.1f} %")
    text = " ".join(TEXT.split())
    assert (
        "its means over these attacks are {} on BERT-base and {} on BERT-large, and {} over three".format(*means)
        in text
    )


def test_what_is_said_of_the_training_of_musclelora() -> None:
    for attack, looks in (("badnets", [0.75, 0.78, 0.80]), ("addsent", [0.72, 0.75, 0.78])):
        record = records()[attack, "musclelora", 0.1, "default"]
        assert [round(value, 2) for value in record["cost"]["selection_accuracies"]] == looks
        assert record["cost"]["steps"] == 189
        assert record["cell"]["model"]["options"]["learning_rate_pet"] == 2e-3


def test_what_is_said_of_the_longer_training() -> None:
    asr, floor = {}, {}
    for name in ("lora", "musclelora", "lora, longer", "musclelora, longer"):
        cells = [record for attack in (*ATTACKS, "stylebkd") for record in by_seed(attack, name)]
        assert len(cells) == 12
        asr[name] = np.mean([percent(record, "asr") for record in cells])
        floor[name] = np.mean([percent(record, "asr_floor") for record in cells])
    above = {name: round(asr[name] - floor[name]) for name in asr}
    assert above == {"lora": 59, "musclelora": 27, "lora, longer": 61, "musclelora, longer": 7}
    assert (round(asr["musclelora, longer"]), round(floor["musclelora, longer"])) == (34, 27)
    clean = [percent(records()[attack, "musclelora", 0.0, LONGER], "asr") for attack in (*ATTACKS, "stylebkd")]
    assert [round(value) for value in clean] == [42, 41, 25, 46] and round(np.mean(clean)) == 38
    assert "mean ASR of 34 %, 7 points above its floor (default: 27 above)" in " ".join(TEXT.split())


def test_what_is_said_of_gradient_alignment_trained_longer() -> None:
    rows = {tuple(row[:2]): row[2:] for row in lines_under("| From | To |")}
    own, lora, multiscale = (
        rows[pair]
        for pair in (
            ("lora+ga", "lora+ga, longer"),
            ("lora, longer", "lora+ga, longer"),
            ("lora+ga, longer", "musclelora, longer"),
        )
    )
    text = " ".join(TEXT.split())
    inserted = [
        percent(late, "asr") - percent(early, "asr")
        for attack in ("badnets", "addsent")
        for early, late in zip(by_seed(attack, "lora+ga"), by_seed(attack, "lora+ga, longer"), strict=True)
    ]
    assert len(inserted) == 6 and all(value < 0 for value in inserted)
    assert f"loses {-np.mean(inserted):.0f} points on BadNets and AddSent, lower in all 6 cells" in text
    hidden = [
        np.mean([percent(one, "asr") for one in by_seed("hiddenkiller", f"lora+ga{way}")]) for way in (", longer", "")
    ]
    assert "(HiddenKiller {:.0f} against {:.0f})".format(*hidden) in text
    assert own[0] == "10" and f"over the ten {-float(own[2]):.0f} points less, p {float(own[4]):.2f}" in text
    assert lora[0] == lora[3] == "10"
    assert f"It is {-float(lora[2]):.0f} below LoRA trained as long, lower in all ten, at {-float(lora[1]):.0f}" in text
    apart = f"is {-float(multiscale[2]):.0f} points below it (lower in {multiscale[3]} of {multiscale[0]},"
    assert f"{apart} p {float(multiscale[4]):.2f}), at {float(multiscale[1]):.1f} points more of CACC" in text


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
