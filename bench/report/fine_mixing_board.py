"""The Fine-mixing board: what repairs trained weights, in the rows of Zhang et al. (Findings of EMNLP 2022)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from typing import Any

from bench.report.aggregate import Cell, Key, cells, comparable_asr, marks
from bench.report.footer import budget, notes
from bench.report.markdown import DASH, escape, marked, table
from bench.report.paper import order, printed_name
from bench.report.records import Record, names
from bench.report.selection import Selection, Setting, setting
from bench.report.values import dagger, value

TITLE = "Fine-mixing and its baselines"
FILE = "fine-mixing.md"
METHODS = (
    "vanilla",
    "fine-tuning",
    "fine-pruning",
    "fine-pruning-f",
    "fine-mixing-sel",
    "fine-mixing",
    "e-pur",
    "e-pur>fine-mixing",
)
NONE_REACHED = "‡"
EXACT = 1e-9  # accuracies are shares of rows: what differs by less is rounding
CHOSEN = {"rho": "rho", "ratio": "pruned"}  # what a repair chose by itself, and how the column calls it
LEGEND = (
    "The comparison of Zhang, Lyu, Ma, Wang, Sun, *Fine-mixing: Mitigating Backdoors in Fine-tuned Language Models*, "
    "Findings of EMNLP 2022, on our victims: each method repairs the one that Vanilla trained. The authors' numbers "
    "and settings are not known, so none stand beside ours. CACC (higher is better) and ASR (lower is better) in "
    "percent; **bold** is the lowest ASR of an attack. Chosen: the reserve ratio rho that was kept, or the share of "
    f"neurons pruned, by attack and seed; {DASH} where nothing is chosen or the cell is missing. {NONE_REACHED} no "
    "candidate reached the clean accuracy that was asked for, and the most accurate was kept."
)


def fine_mixing_board(selection: Selection) -> str:
    """Return the page: per data set and model one row per method, one pair of columns per attack."""
    parts = [f"# {TITLE}", LEGEND]
    mine: list[Record] = []
    blocks: set[tuple[Setting, str, str]] = set()
    for one in selection.settings:
        records = [record for record in selection.attacked.get(one, ()) if names(record)[3] in METHODS]
        shown = cells(records)
        found = {names(record)[:2] for record in records if names(record)[3] != "vanilla"}
        for dataset in order("datasets", {group[0] for group in found}):
            for model in order("models", {group[1] for group in found if group[0] == dataset}):
                here = [record for record in records if names(record)[:2] == (dataset, model)]
                mine += here
                blocks.add((one, dataset, model))
                parts += _block(one, here, shown, dataset, model)
    if len(parts) == 2:
        parts.append("No cell of this board was run yet: `python -m bench run --grid cpu` runs them all.")
    failed = [record for record in selection.gaps if names(record)[3] in METHODS[1:]]
    left_out = [reason for record, reason in selection.left_out if _belongs(record, blocks)]
    return "\n\n".join([*parts, "## Notes", notes(mine, failed, left_out)]) + "\n"


def _belongs(record: Record, blocks: Set[tuple[Setting, str, str]]) -> bool:
    """Tell whether a record is of a repair, or of the Vanilla that a block compares repairs with."""
    dataset, model, _, defense = names(record)
    return defense in METHODS[1:] or (defense == METHODS[0] and (setting(record), dataset, model) in blocks)


def _block(one: Setting, records: Sequence[Record], shown: Mapping[Key, Cell], dataset: str, model: str) -> list[str]:
    attacks = order("attacks", {names(record)[2] for record in records})
    columns = {}
    for attack in attacks:
        column = [shown.get((dataset, model, attack, method)) for method in METHODS]
        best = marks([comparable_asr(cell) for cell in column], sum(cell is not None for cell in column), False)
        columns[attack] = [_pair(cell, mark) for cell, mark in zip(column, best, strict=True)]
    headers = ["Method", "Clean samples"]
    headers += [
        f"{escape(printed_name('attacks', attack))} {metric}" for attack in attacks for metric in ("CACC", "ASR")
    ]
    rows = []
    for place, method in enumerate(METHODS):
        mine = [record for record in records if names(record)[3] == method]
        budgets = sorted({budget(record) for record in mine if record.get("knowledge")})
        row = [escape(printed_name("defenses", method)), " or ".join(" + ".join(map(str, b)) for b in budgets) or DASH]
        row += [text for attack in attacks for text in columns[attack][place]]
        rows.append([*row, _chosen(mine, attacks)])
    title = f"## {escape(printed_name('datasets', dataset))}, {escape(printed_name('models', model))}"
    heading = f"{title} (recipe {escape(one[0])}, {escape(one[1])})"
    return [heading, table([*headers, "Chosen"], rows, 1)]


def _pair(cell: Cell | None, mark: str) -> tuple[str, str]:
    if cell is None:
        return DASH, DASH
    return value(cell.cacc), marked(value(cell.asr), mark) + dagger(cell)


def _chosen(records: Sequence[Record], attacks: Sequence[str]) -> str:
    found: dict[str, list[str]] = defaultdict(list)
    for attack in attacks:
        for record in sorted(records, key=lambda record: record["cell"]["seed"]):
            if names(record)[2] != attack:
                continue
            for note in record.get("decided") or ():
                for option, word in CHOSEN.items():
                    if isinstance(note.get(option), (int, float)):
                        found[word].append(f"{note[option]:g}{'' if _reached(note) else NONE_REACHED}")
    return "; ".join(f"{word} {', '.join(values)}" for word, values in found.items()) or DASH


def _reached(note: Mapping[str, Any]) -> bool:
    """Tell whether the best candidate was as accurate as was asked; so it counts where a note does not say."""
    tried, needed = note.get("accuracies"), note.get("needed")
    values = [value for value in tried.values() if isinstance(value, float)] if isinstance(tried, Mapping) else []
    return not values or not isinstance(needed, float) or max(values) >= needed - EXACT
