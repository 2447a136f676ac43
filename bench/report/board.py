"""The overall board: per dataset and model one row per defense, over all attacks, with its needs and costs."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from bench.report.aggregate import Cell, Key, Stat, comparable_asr, group_mean, marks, ranks
from bench.report.control import Row, cacc_loss, clean_cacc
from bench.report.detection import detection
from bench.report.footer import NONE_FITS, budget, notes, place_name
from bench.report.markdown import DAGGER, DASH, escape, listed, marked, number, percent, shorten, table
from bench.report.paper import order, printed_name
from bench.report.records import Record, names
from bench.report.selection import POISON_RATIO, Selection, Setting, setting
from bench.report.values import dagger, value

LEGEND = (
    "One block per dataset, model, recipe and precision; one row per defense, the best average rank first. CACC "
    "(higher is better) and ASR (lower is better) in percent, means over the attacks of the block, or over those that "
    "the line above its table names; CACC loss: Vanilla trained on clean data minus this row, in percentage points; "
    "rank by ASR among the rows that have every cell, averaged over the same attacks. **Bold** is the lowest. "
    f"{DASH} is a missing cell or the mean of one. Seeds: how many a cell is the mean of. Clean samples: labelled "
    "clean samples for the method + checkpoint selection + threshold calibration. Cost, means over the row's cells of "
    "the attacks that its other means are over: train "
    "seconds of the victim's training alone; all seconds of every stage behind the cell, as if it were run alone; "
    "peak MB of the training process; trainable parameters."
)


def board(selection: Selection, pages: Mapping[str, str]) -> str:
    """Return the overall board, with links to the other pages (file name -> title)."""
    parts = ["# Leaderboard", LEGEND]
    if pages:
        parts.append("\n".join(f"- [{escape(title)}]({name})" for name, title in sorted(pages.items(), key=_in_order)))
    empty = True
    for one in selection.settings:
        shown = selection.cells(one)
        for dataset, model in groups(selection, one):
            parts += block(selection, one, shown, dataset, model)
            empty = False
    if empty:
        parts.append(f"{NONE_FITS} The notes say why." if selection.left_out else "There is no record to show yet.")
    parts += failures(selection.failed)
    reasons = [reason for _, reason in selection.left_out]
    return "\n\n".join([*parts, "## Notes", notes(selection.taken(), (), reasons)]) + "\n"


def groups(selection: Selection, one: Setting) -> list[tuple[str, str]]:
    """Return the (dataset, model) pairs that were tried in a setting, in the paper's order."""
    tried = [*selection.attacked.get(one, ()), *(record for record in selection.gaps if setting(record) == one)]
    found = {names(record)[:2] for record in tried}
    datasets = order("datasets", {group[0] for group in found})
    models = order("models", {group[1] for group in found})
    return sorted(found, key=lambda group: (datasets.index(group[0]), models.index(group[1])))


def block(selection: Selection, one: Setting, shown: Mapping[Key, Cell], dataset: str, model: str) -> list[str]:
    """Return heading, attacks, ranking and detection rates of one data set and model."""
    records = [record for record in selection.attacked.get(one, ()) if names(record)[:2] == (dataset, model)]
    failed = [record for record in selection.gaps if setting(record) == one and names(record)[:2] == (dataset, model)]
    defenses = order("defenses", {names(record)[3] for record in (*records, *failed)})
    # An attack that no defense could face (no bank, say) stands among the failures and not in the means.
    attacks = order("attacks", {names(record)[2] for record in records})
    clean = clean_cacc([record for record in selection.control.get(one, ()) if names(record)[:2] == (dataset, model)])
    grid = {name: [shown.get((dataset, model, attack, name)) for attack in attacks] for name in defenses}
    meant = averaged(grid)
    counted = {name: [cells[place] for place in meant] for name, cells in grid.items()}
    told = {names(record)[3] for record in records if record.get("oracle")}  # they compete with none
    ranked = {name: cells for name, cells in counted.items() if name not in told}
    average = dict.fromkeys(defenses) | average_ranks(ranked)
    best = marks(
        [group_mean([comparable_asr(cell) for cell in cells]) for cells in ranked.values()],
        sum(any(cells) for cells in ranked.values()),
        underline=False,
    )
    mark_of = dict.fromkeys(defenses, "") | dict(zip(ranked, best, strict=True))
    defenses.sort(key=lambda name: (average[name] is None, average[name] or 0.0))
    attack_names = [escape(printed_name("attacks", attack)) for attack in attacks]
    headers = ["Defense", "Seeds", "Clean samples", "CACC", "CACC loss", "ASR", "Average rank"]
    headers += [f"ASR {name}" for name in attack_names]
    headers += ["Train seconds", "All seconds", "Peak MB", "Trainable parameters"]
    rows = []
    for name in defenses:
        mine = [record for record in records if names(record)[3] == name]
        spent = [record for record in mine if names(record)[2] in {attacks[place] for place in meant}]
        row = _row(name, mark_of[name], average[name], grid[name], counted[name], clean, mine, (dataset, model))
        rows.append([*row, *costs(spent)])
    title = f"## {escape(printed_name('datasets', dataset))}, {escape(printed_name('models', model))}"
    heading = f"{title} (recipe {escape(one[0])}, {escape(one[1])})"
    shown_attacks = f"Attacks: {', '.join(attack_names) or DASH}."
    if len(meant) < len(attacks):
        over = ", ".join(attack_names[place] for place in meant)
        shown_attacks += f" Means and ranks over {over}: more defenses have these than all."
    if told:
        shown_attacks += " A row marked oracle has no rank."
    return [heading, shown_attacks, table(headers, rows, 1), *detection(records, attacks, defenses)]


def averaged(grid: Mapping[str, Sequence[Cell | None]]) -> list[int]:
    """Return the places of the attacks that means and ranks are over: those that keep most cells in complete rows.

    Attacks are dropped from the one that the fewest defenses have; of two choices with as many cells the one with more
    attacks is taken, so that a board without gaps is over all of its attacks.

    Args:
        grid: defense -> its cells [attacks].
    """
    have = [
        [cell is not None and cell.asr is not None for cell in column] for column in zip(*grid.values(), strict=True)
    ]
    by_rows = sorted(range(len(have)), key=lambda place: -sum(have[place]))
    best: list[int] = []
    most = -1
    for count in range(len(have), 0, -1):
        places = by_rows[:count]
        kept = count * sum(all(row) for row in zip(*(have[place] for place in places), strict=True))
        if kept > most:
            best, most = places, kept
    return sorted(best)


def average_ranks(grid: Mapping[str, Sequence[Cell | None]]) -> dict[str, float | None]:
    """Return the mean over attacks of each defense's rank by ASR, among the defenses whose every cell is trained.

    One with a cell missing has no rank and moves none: else its one cell would change the order of all others.

    Args:
        grid: defense -> its cells [attacks].

    Returns:
        defense -> mean rank, or None where one of its cells is missing or did not train.
    """
    values = {name: [comparable_asr(cell) for cell in row] for name, row in grid.items()}
    whole = [name for name, row in values.items() if None not in row]
    columns = [ranks(column) for column in zip(*(values[name] for name in whole), strict=True)]
    return dict.fromkeys(grid) | {name: group_mean([column[i] for column in columns]) for i, name in enumerate(whole)}


def _row(
    name: str,
    mark: str,
    rank: float | None,
    found: Sequence[Cell | None],
    counted: Sequence[Cell | None],
    clean: Mapping[Row, Stat | None],
    records: Sequence[Record],
    group: tuple[str, str],
) -> list[str]:
    asr = group_mean([cell.asr.mean if cell and cell.asr else None for cell in counted])
    cacc = group_mean([cell.cacc.mean if cell and cell.cacc else None for cell in counted])
    untrained = DAGGER if any(cell is not None and not cell.trained for cell in counted) else ""
    seeds = sorted({len(cell.seeds) for cell in counted if cell})
    budgets = sorted({budget(record) for record in records if record.get("knowledge")})
    oracle = any(record.get("oracle") for record in records)  # it was given the true poison flags
    return [
        escape(printed_name("defenses", name)) + (" (oracle)" if oracle else ""),
        " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1])))) if seeds else DASH,
        " or ".join(" + ".join(map(str, parts)) for parts in budgets) or DASH,
        percent(cacc),
        percent(group_mean([cacc_loss(clean, cell, *group) for cell in counted])),
        marked(percent(asr), mark) + (untrained if asr is not None else ""),
        DASH if rank is None else f"{rank:.2f}",
        *(value(cell.asr if cell else None) + dagger(cell) for cell in found),
    ]


def costs(records: Sequence[Record]) -> list[str]:
    """Return what the cells of a row cost: train seconds, all seconds, peak MB and trainable parameters, means."""
    numbers = (("train_seconds", 1), ("total_seconds", 1), ("peak_memory_mb", 0), ("trainable_parameters", 0))
    return [_mean_cost(records, *of) for of in numbers]


def _mean_cost(records: Sequence[Record], name: str, decimals: int) -> str:
    mean = group_mean([(record.get("cost") or {}).get(name) for record in records])
    return DASH if mean is None else number(mean, decimals)


def failures(failed: Sequence[Record]) -> list[str]:
    """Return the failed cells, one row per reason with its count, its remedy and where it happened; or nothing."""
    groups: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in failed:
        error = record.get("error") or {}
        texts = tuple(str(error.get(part) or "") for part in ("type", "message", "remedy"))
        groups[texts].append(record)
    if not groups:
        return []
    rows = [
        [
            str(len(records)),
            escape(shorten(f"{kind}: {message}" if message else kind or "no reason was recorded")),
            escape(shorten(remedy)) or DASH,
            _places(records),
        ]
        for (kind, message, remedy), records in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return ["## Failed cells", table(["Cells", "Reason", "Remedy", "Where"], rows, 4)]


def _places(records: Sequence[Record]) -> str:
    counts = Counter((*names(record), record["cell"]["poison_ratio"]) for record in records)
    shown = []
    for key in sorted(counts):
        dataset, model, attack, defense, ratio = key
        at = "" if abs(ratio - POISON_RATIO) < 1e-9 else f" @ {ratio:g}"
        name = place_name((dataset, model, attack, defense))
        shown.append(f"{name}{at}" + (f" ({counts[key]})" if counts[key] > 1 else ""))
    return listed(shown, most=6)


def _in_order(page: tuple[str, str]) -> list[tuple[bool, int, str]]:
    """Sort file names as a reader does: table2 before table10."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", page[0])]
