"""Writes the tables of leaderboard/FINDINGS.md anew from the published records: `python docs/findings.py`.

A table stands between `<!-- NAME -->` and `<!-- end -->`; the text around it is a person's, and is left as it is.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from finding_cells import (
    ATTACKS,
    FOLDER,
    LONG,
    LONGER,
    RATIO,
    SEEDS,
    Held,
    Key,
    header,
    line,
    means,
    rate,
    records,
    row,
    seeds_of,
)

from bench.core.paired import sign_flip
from bench.report.intervals import counts_of, interval

PLAIN = ("CACC", "ASR", "ASR, 95 %", "Floor")
PAIRS = (
    ("lora", "musclelora"),
    ("lora", "lora+ga"),
    ("lora+ga", "musclelora"),
    ("fine-mixing", "musclelora"),
    ("fine-mixing", "lora+ga"),
    ("fine-tuning", "fine-mixing"),
    ("fine-tuning", "fine-pruning"),
    ("vanilla", "cube"),
)
RETRAINED = tuple(name + way for name in ("lora", "lora+ga", "musclelora") for way in ("", LONGER))
LONGER_PAIRS = (
    ("lora", "lora" + LONGER),
    ("lora+ga", "lora+ga" + LONGER),
    ("musclelora", "musclelora" + LONGER),
    ("lora" + LONGER, "lora+ga" + LONGER),
    ("lora" + LONGER, "musclelora" + LONGER),
    ("lora+ga" + LONGER, "musclelora" + LONGER),
)


def table(held: Held, chosen: Callable[[Key], bool], *more: str, after: tuple[str, ...] = ()) -> str:
    """Return the cells chosen; columns of `more` stand before the metrics, of `after` behind them.

    By attack, then by ASR, or by name where `more` tells cells of one defense apart.
    """
    columns = ("Attack", "Defense", *more, *PLAIN, *after)
    value = {key: 0.0 if more else record["metrics"]["asr"]["value"] for key, record in held.items()}
    keys = sorted(filter(chosen, held), key=lambda key: (ATTACKS.index(key[0]), value[key], key))
    return "\n".join([header(*columns), *(row(key, held[key], columns) for key in keys)])


def attack_board(held: Held, attack: str, names: Iterable[str] = ()) -> str:
    """Return an attack's cells, each with all its seeds, by mean ASR: those of `names`, or of every default cell."""
    names = names or [key[1] for key in held if (key[0], *key[2:]) == (attack, RATIO, "default")]
    cells = {name: found for name in names if (found := seeds_of(held, attack, name))}
    lines = [header("Attack", "Defense", "Seeds", "CACC", "ASR", "ASR by seed", "ASR, 95 %", "Floor")]
    for defense, found in sorted(cells.items(), key=lambda cell: (float(means(cell[1], "asr")), cell[0])):
        counts = counts_of(found, "asr")
        assert counts is not None, (attack, defense)
        low, high = interval(counts)
        by_seed = ", ".join(f"{rate(record, 'asr'):.1f}" for record in found) if len(found) > 1 else ""
        between = f"{100 * low:.1f} to {100 * high:.1f}"
        values = (means(found, "cacc"), means(found, "asr"), by_seed, between, means(found, "asr_floor"))
        lines.append(line([attack, defense, str(len(found)), *values]))
    return "\n".join(lines)


def over_attacks(held: Held, names: Iterable[str] = (), *more: str) -> str:
    """Return the means over the attacks of each defense that has every seed of every attack.

    Args:
        more: metrics whose means stand in columns of their own, under their names.
    """
    rows = []
    for defense in names or sorted({key[1] for key in held}):
        cells = [seeds_of(held, attack, defense) for attack in ATTACKS]
        if any(len(found) < len(SEEDS) for found in cells):
            continue
        boards = [statistics.fmean(rate(record, "asr") for record in board) for board in zip(*cells, strict=True)]
        every = [record for found in cells for record in found]
        spread = statistics.fmean(statistics.stdev(rate(record, "asr") for record in found) for found in cells)
        by_seed = ", ".join(f"{value:.1f}" for value in boards)
        further = [means(every, name) for name in more]
        rows.append((statistics.fmean(boards), defense, means(every, "cacc"), by_seed, f"{spread:.1f}", *further))
    columns = ("Defense", "Mean CACC", "Mean ASR", "Mean ASR by seed", "Deviation over seeds within an attack")
    head = header(*columns, *(f"Mean {name}" for name in more))
    return "\n".join([head, *(line([name, cacc, f"{asr:.2f}", *rest]) for asr, name, cacc, *rest in sorted(rows))])


def paired(held: Held, pairs: Iterable[tuple[str, str]] = PAIRS, *more: str) -> str:
    """Return how the second of each pair differs from the first over the attacks and seeds that both have.

    Args:
        more: metrics whose mean differences stand in columns of their own, under their names.
    """
    lines = [header("From", "To", "Cells", "CACC", "ASR", "ASR lower in", "p of the ASR", "p without seed 0", *more)]
    for first, second in pairs:
        both = []
        for attack in ATTACKS:
            left, right = ({of["cell"]["seed"]: of for of in seeds_of(held, attack, name)} for name in (first, second))
            both += [(left[seed], right[seed]) for seed in left if seed in right]
        apart = {
            name: [rate(right, name) - rate(left, name) for left, right in both] for name in ("cacc", "asr", *more)
        }
        moved = {name: f"{statistics.fmean(values):+.1f}" for name, values in apart.items()}
        lower = str(sum(value < 0 for value in apart["asr"]))
        later = [value for value, (left, _) in zip(apart["asr"], both, strict=True) if left["cell"]["seed"]]
        chances = ["" if chance is None else f"{chance:.4f}" for chance in map(sign_flip, (apart["asr"], later))]
        tested = (moved["cacc"], moved["asr"], lower, *chances)
        lines.append(line([first, second, str(len(both)), *tested, *(moved[name] for name in more)]))
    return "\n".join(lines)


def control(held: Held) -> str:
    """Return what each defense leaves under each attack's trigger where no row is poisoned, by mean ASR; one seed."""
    rows = []
    for defense, found in _controls(held).items():
        asr = [rate(record, "asr") for record in found]
        shown = (means(found, "cacc"), means(found, "asr_floor"), *(f"{value:.2f}" for value in asr))
        rows.append((statistics.fmean(asr), line([defense, *shown])))
    return "\n".join([header("Defense", "CACC", "Floor", *ATTACKS), *(text for _, text in sorted(rows))])


def added(held: Held) -> str:
    """Return the points of ASR above the control's at the findings' ratio: the mean over seeds, and each seed's."""
    rows = []
    for defense, found in _controls(held).items():
        more = [
            [rate(record, "asr") - rate(clean, "asr") for record in seeds_of(held, attack, defense)]
            for attack, clean in zip(ATTACKS, found, strict=True)
        ]
        seeds = str(len(more[0]))
        shown = [f"{statistics.fmean(of):+.1f} ({', '.join(f'{value:+.0f}' for value in of)})" for of in more]
        rows.append((statistics.fmean(map(statistics.fmean, more)), line([defense, seeds, *shown])))
    return "\n".join([header("Defense", "Poisoned seeds", *ATTACKS), *(text for _, text in sorted(rows))])


def _controls(held: Held) -> dict[str, list[dict[str, Any]]]:
    """Return each defense's records of ratio 0 by attack, of those that have all, and learnt the task."""
    names = {key[1] for key in held if key[2:] == (0, "default")}
    every = {name: [held.get((attack, name, 0.0, "default")) for attack in ATTACKS] for name in sorted(names)}
    learnt = {name: [one for one in found if one and one["trained"]] for name, found in every.items()}
    return {name: found for name, found in learnt.items() if len(found) == len(ATTACKS)}


def trained_longer(held: Held) -> str:
    """Return the cells whose training was also a longer one, attack by attack, beside that one."""
    boards = [attack_board(held, attack, RETRAINED).split("\n") for attack in ATTACKS]
    return "\n".join([*boards[0][:2], *(row for board in boards for row in board[2:])])


def reserved(held: Held) -> str:
    """Return which share of the poisoned weights fine-mixing kept, chosen by accuracy, and what came of it."""
    lines = [header("Chosen rho", "Attack", "Seed", "CACC", "ASR")]
    found = [record for attack in ATTACKS for record in seeds_of(held, attack, "fine-mixing")]
    for record in sorted(found, key=lambda record: (record["decided"][-1]["rho"], rate(record, "asr"))):
        attack, seed = record["cell"]["attack"]["name"], str(record["cell"]["seed"])
        rho = f"{record['decided'][-1]['rho']:g}"
        lines.append(line([rho, attack, seed, f"{rate(record, 'cacc'):.2f}", f"{rate(record, 'asr'):.2f}"]))
    return "\n".join(lines)


def fourier(held: Held) -> str:
    """Return the relative errors at the last look at each watched training."""
    lines = [header("Training", "clean low", "clean high", "backdoor low", "backdoor high")]
    for attack, defense, ratio, cell in sorted(held):
        if (ratio, cell) != (RATIO, "watched"):
            continue
        filters = held[attack, defense, ratio, cell]["analysis"]["filters"]
        last = {
            entry["mapping"]: [f"{entry[part][-1]:.2f}" for part in ("low_error", "high_error")]
            for entry in filters
            if (entry["over"], entry["kernel"], entry["quantile"]) == ("joint", "paper", 0.5)
        }
        lines.append(line([f"{attack}, {defense}", *last["clean"], *last["backdoor"]]))
    return "\n".join(lines)


TABLES: dict[str, Callable[[Held], str]] = {
    "vanilla": lambda held: table(held, lambda key: key[1] == "vanilla" and key[3] == "default", "Ratio"),
    "control": control,
    "added": added,
    **{attack: lambda held, attack=attack: attack_board(held, attack) for attack in ATTACKS},  # type: ignore[misc]
    "means": over_attacks,
    "pairs": paired,
    "budget": lambda held: table(held, lambda key: key[2:] == (RATIO, "budget 96"), "Cell"),
    "detectors": lambda held: table(
        held,
        lambda key: key[1] in ("strip", "rap") and key[2] == RATIO and key[3] in SEEDS,
        "Cell",
        after=("FRR", "FAR", "AUROC"),
    ),
    "mended": lambda held: table(
        held,
        lambda key: (
            key[0] in ("badnets", "addsent")
            and key[1].removeprefix("openbackdoor:") in ("strip", "rap")
            and key[2] == RATIO
            and key[3] in ("default", "momentum 1")
        ),
        "Cell",
        after=("FRR", "FAR"),
    ),
    "cleansers": lambda held: table(
        held,
        lambda key: key[1] in ("bki", "cube") and key[2] == RATIO and key[3] in SEEDS,
        "Cell",
        after=("Removed, poisoned",),
    ),
    "reserved": reserved,
    "longer": trained_longer,
    "longer_means": lambda held: over_attacks(held, RETRAINED, "dev"),
    "longer_control": lambda held: table(held, lambda key: key[2] == 0 and key[3].startswith(LONG), "Ratio", "Cell"),
    "longer_pairs": lambda held: paired(held, LONGER_PAIRS, "dev"),
    "recipes": lambda held: table(
        held,
        lambda key: (
            key[:3] in {(*of[:2], RATIO) for of in held if of[3] == "recipe paper"}
            and key[3] in ("default", "recipe paper")
        ),
        "Cell",
    ),
    "ratios": lambda held: table(held, lambda key: key[1] == "musclelora" and key[3] == "default", "Ratio"),
    "fourier": fourier,
}


def written(text: str, held: Held) -> str:
    """Return the findings with each table as the records have it."""
    for name, make in TABLES.items():
        found = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = found.sub(lambda match, make=make: f"{match[1]}\n{make(held)}\n\n{match[2]}", text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    page = FOLDER / "FINDINGS.md"
    page.write_text(written(page.read_text(encoding="utf-8"), records()), encoding="utf-8")
