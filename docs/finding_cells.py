"""The published records that the findings rest on, by cell, and how one of them is written as a line of a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.core.metrics import wilson
from bench.report.ledger import clean_budget
from bench.report.records import load_records
from bench.victim.spec import model_spec

FOLDER = Path(__file__).resolve().parents[1] / "leaderboard"
DATASET, MODEL, RATIO = "sst2-2k", "minilm-l6", 0.1
ATTACKS = ("badnets", "addsent", "hiddenkiller", "stylebkd")
SEEDS = ("default", "seed 1", "seed 2")
LONGER, LONG = ", longer", "10 epochs, rate 0.0005"  # behind a defense's name, and how `cell_of` calls such cells
Key = tuple[str, str, float, str]  # attack, defense, poison ratio, which cell of them
Held = Mapping[Key, dict[str, Any]]


def cell_of(record: Mapping[str, Any]) -> str:
    """Return in what a cell differs from the default one of its attack, defense and ratio: `default` for nothing."""
    cell, budget = record["cell"], clean_budget(record)
    spec = model_spec(cell["model"]["name"])
    options = cell["model"]["options"]
    apart = [
        "watched" if cell.get("analysis") else "",
        f"budget {budget}" if budget is not None else "",
        f"recipe {cell['recipe']}" if cell["recipe"] != "released" else "",
        f"{options['epochs']} epochs" if options["epochs"] != spec.epochs else "",
        f"rate {options['learning_rate_pet']:g}" if options["learning_rate_pet"] != spec.learning_rate_pet else "",
        f"momentum {cell['defense']['options']['momentum']:g}" if cell["defense"]["options"].get("momentum") else "",
        f"seed {cell['seed']}" if cell["seed"] else "",
    ]
    return ", ".join(filter(None, apart)) or "default"


def records() -> Held:
    """Return the published records of the findings' model and data set.

    Raises:
        ValueError: two records go by one key, so that a table could not say which it shows.
    """
    held: dict[Key, dict[str, Any]] = {}
    for record in load_records(FOLDER / "records.jsonl"):
        cell = record["cell"]
        if (cell["dataset"]["name"], cell["model"]["name"], record["status"]) != (DATASET, MODEL, "ok"):
            continue
        key = (cell["attack"]["name"], cell["defense"]["name"], float(cell["poison_ratio"]), cell_of(record))
        if key in held:
            raise ValueError(f"{key} is {held[key]['key']} and {record['key']}.")
        held[key] = record
    return held


def row(key: Key, record: Mapping[str, Any], columns: Iterable[str]) -> str:
    """Return a line of a table."""
    found = record["metrics"]
    low, high = wilson(found["asr"]["hits"], found["asr"]["n"])
    shown = dict(zip(("Attack", "Defense", "Ratio", "Cell"), (*key[:2], f"{key[2]:g}", key[3]), strict=True))
    for column, name in (("CACC", "cacc"), ("ASR", "asr"), ("Floor", "asr_floor"), ("FRR", "frr"), ("FAR", "far")):
        if found.get(name):
            shown[column] = f"{100 * found[name]['value']:.2f}"
    shown["ASR, 95 %"] = f"{100 * low:.1f} to {100 * high:.1f}"
    if found.get("auroc") is not None:
        shown["AUROC"] = f"{found['auroc']:.2f}"
    if record.get("cleansed"):
        shown["Removed, poisoned"] = f"{record['cleansed']['removed']}, {record['cleansed']['removed_poisoned']}"
    return line(shown[column] for column in columns)


def line(parts: Iterable[str]) -> str:
    """Return the parts as a line of a Markdown table."""
    return f"| {' | '.join(parts)} |"


def header(*columns: str) -> str:
    """Return the two lines that begin a Markdown table."""
    return f"{line(columns)}\n|{'---|' * len(columns)}"


def seeds_of(held: Held, attack: str, name: str) -> list[dict[str, Any]]:
    """Return the records of a cell at the findings' ratio, one for each seed, in their order.

    Args:
        name: of a defense, with LONGER behind it for its longer training.
    """
    defense, long, _ = name.partition(LONGER)
    ways = [LONG, *(f"{LONG}, {seed}" for seed in SEEDS[1:])] if long else SEEDS
    keys = [(attack, defense, RATIO, cell) for cell in ways]
    return [held[key] for key in keys if key in held]


def rate(record: Mapping[str, Any], name: str) -> float:
    """Return a metric in percent; `dev` is the accuracy on clean dev rows by which the checkpoint was chosen."""
    if name == "dev":
        return 100 * float(max(record["cost"]["selection_accuracies"]))
    return 100 * float(record["metrics"][name]["value"])


def means(found: Iterable[Mapping[str, Any]], name: str) -> str:
    """Return the mean of a metric over records, in percent."""
    return f"{statistics.fmean(rate(record, name) for record in found):.2f}"
