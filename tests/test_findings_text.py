"""What leaderboard/FINDINGS.md and DEVIATIONS.md say in words is what the published records hold."""

from __future__ import annotations

import csv

import numpy as np

from bench.core.paired import sign_flip
from tests.findings import ATTACKS, FOLDER, LONGER, TEXT, by_seed, lines_under, percent, records

SEEDS = ("", ", seed 1", ", seed 2")  # behind LONGER
LATE_EARLY = (", longer", "")
CELL = ("table", "model", "dataset", "defense")  # of the paper's results


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
    clean = {
        attack: [percent(records()[attack, "musclelora", 0.0, LONGER + seed], "asr") for seed in SEEDS]
        for attack in (*ATTACKS, "stylebkd")
    }
    assert [round(np.mean(values)) for values in clean.values()] == [28, 37, 16, 36]
    assert [round(value) for value in np.mean(list(clean.values()), axis=0)] == [38, 24, 26]
    more = [
        percent(record, "asr") - value
        for attack, values in clean.items()
        for record, value in zip(by_seed(attack, "musclelora, longer"), values, strict=True)
    ]
    assert (round(np.mean(more)), sum(value > 0 for value in more), round(sign_flip(more), 2)) == (5, 8, 0.18)
    assert [round(value) for value in more[:3]] == [-15, 17, 24]
    assert "adds 5 points on average (8 of 12 pairs above 0, p 0.18)" in " ".join(TEXT.split())
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
    paraphrased = []
    for attack in ("hiddenkiller", "stylebkd"):
        late, early = (np.mean([percent(one, "asr") for one in by_seed(attack, f"lora+ga{way}")]) for way in LATE_EARLY)
        paraphrased.append(f"{late:.0f} against {early:.0f}")
    assert "(HiddenKiller {}, StyleBkd {})".format(*paraphrased) in text
    assert own[0] == "12" and f"over the twelve {-float(own[2]):.0f} points less, p {float(own[4]):.2f}" in text
    late = [record for attack in (*ATTACKS, "stylebkd") for record in by_seed(attack, "lora+ga, longer")]
    above = np.mean([percent(record, "asr") - percent(record, "asr_floor") for record in late])
    assert lora[0] == lora[3] == "12"
    said = (
        f"is {-float(lora[2]):.0f} below LoRA trained as long, lower in all twelve, at {-float(lora[1]):.0f} points of"
    )
    assert f"{said} CACC, and {above:.0f} above its floor" in text
    apart = f"is {-float(multiscale[2]):.0f} points below it (lower in {multiscale[3]} of {multiscale[0]},"
    assert f"{apart} p {float(multiscale[4]):.2f}), at {float(multiscale[1]):.1f} points more of CACC" in text
    assert f"the two are {-float(multiscale[2]):.0f} points apart (12 cells, p {float(multiscale[4]):.2f})" in text


def test_what_is_said_of_the_recipes() -> None:
    asr = {
        (name, cell): [percent(records()[attack, name, 0.1, cell], "asr") for attack in (*ATTACKS, "stylebkd")]
        for name in ("lora", "musclelora")
        for cell in ("default", "recipe paper")
    }
    means = {key: round(np.mean(values)) for key, values in asr.items()}
    paper, code = means["musclelora", "recipe paper"], means["musclelora", "default"]
    apart = np.subtract(asr["musclelora", "recipe paper"], asr["musclelora", "default"]).round()
    text = " ".join(TEXT.split())
    assert f"mean ASR is {paper} % by the text and {code} % by the code at the same seed" in text
    assert apart.tolist() == [27, 14, 19, -12] and "(27, 19 and 14 points; 12 lower on StyleBkd)" in text
    assert f"and LoRA's {means['lora', 'recipe paper']} and {means['lora', 'default']}." in text
