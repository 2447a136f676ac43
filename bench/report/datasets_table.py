"""Table 5: the data sets, ours as loaded beside the paper's.

What a record says of its data set goes first. Of the paper's own, `dataset_counts.json` holds what loading their pinned
files gives; a test counts again where the data are.
"""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib.resources import files

from bench.report.footer import bullets, environment, leaks, left_out_line
from bench.report.markdown import DASH, escape, table
from bench.report.paper import SOURCE, order, printed_name, settings
from bench.report.records import Record, canonical, names
from bench.report.selection import Selection

_HEADERS = ("Dataset", "Categories", "Train", "Test", "Validation", "Average length")
# Our name in a record's `dataset_info`, the paper's name, decimals.
_FIELDS = (
    ("classes", "categories", 0),
    ("train", "train", 0),
    ("test", "test", 0),
    ("dev", "validation", 0),
    ("mean_words", "average_length", 1),
)
LEGEND = "Classes, samples per split and mean number of words in a training text; `ours (the paper's)`."


@functools.cache
def dataset_counts() -> dict[str, dict[str, float]]:
    """Return classes, rows of each split and mean words of a training text, by data set of the paper."""
    return json.loads((files("bench.report") / "dataset_counts.json").read_text(encoding="utf-8"))


def datasets_table(selection: Selection) -> str:
    """Return the page of Table 5: the paper's data sets in its order, then others that were run."""
    records = [record for record in selection.taken() if record.get("dataset_info")]
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[names(record)[0]].append(record)
    rows = [_row(name, groups.get(name, [])) for name in order("datasets", set(settings()["datasets"]) | set(groups))]
    used = settings()["datasets"]["agnews"]["train_used"]
    counted = ", ".join(printed_name("datasets", name) for name in dataset_counts() if name not in groups)
    lines = [
        f"Ours of {counted}: counted in the files that `bench data verify` checks; no record here has them."
        if counted
        else None,
        f"Of the training samples that it counts for {printed_name('datasets', 'agnews')}, the paper uses {used}.",
        *leaks(records),
        left_out_line([reason for _, reason in selection.left_out]),
        environment(records),
    ]
    parts = ["# Table 5: Datasets", f"Mirrors Table 5 of {SOURCE}.", LEGEND, table(_HEADERS, rows, 1)]
    return "\n\n".join([*parts, "## Notes", bullets(lines)]) + "\n"


def _row(name: str, records: Sequence[Record]) -> list[str]:
    published = settings()["datasets"].get(name)
    ours = _usual(records) or dataset_counts().get(name, {})
    row = [escape(printed_name("datasets", name))]
    for field, paper_field, decimals in _FIELDS:
        value = ours.get(field)
        text = DASH if value is None else f"{value:.{decimals}f}"
        row.append(text if published is None else f"{text} ({published[paper_field]:.{decimals}f})")
    return row


def _usual(records: Sequence[Record]) -> dict[str, float]:
    """Return what most records say of their data set (ties: the first in the order of their texts)."""
    texts = {canonical(record["dataset_info"]): record["dataset_info"] for record in records}
    counts = Counter(canonical(record["dataset_info"]) for record in records)
    return texts[min(counts, key=lambda text: (-counts[text], text))] if counts else {}
