"""The records that no table takes, one row each: another ratio, target label or option, or a row limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report.markdown import DAGGER, DASH, escape, percent, table
from bench.report.paper import printed_name
from bench.report.records import PLUGINS, Record, metric
from bench.report.selection import REPEATED, Selection
from bench.report.telling import Telling

FILE, TITLE = "beside.md", "Records beside the tables"
MOST = 1000  # rows
LEGEND = (
    "The tables compare like with like: the paper's poison ratio and target label, whole data sets, one set of options "
    "a row. These records of the run stand beside them, one row each; none is meant to be ranked against another. "
    "CACC (higher is better), ASR (lower is better) and the ASR floor in percent."
)
HEADERS = ("Dataset", "Model", "Attack", "Ratio", "Rule", "Target", "Defense", "Seed", "CACC", "ASR", "Floor", "Why")


def beside(selection: Selection) -> str | None:
    """Return the page of the records that were left out, None where none was."""
    left_out = [(record, why) for record, why in selection.left_out if why != REPEATED and record["status"] == "ok"]
    if not left_out:
        return None
    everything = [*selection.taken(), *(record for record, _ in left_out)]
    telling = Telling(
        (axis, part["name"], part["options"])
        for record in everything
        for axis, part in ((axis, _with_source(record["cell"][axis])) for axis in PLUGINS)
    )
    rows = sorted((_row(record, why, telling) for record, why in left_out), key=_in_order)
    more = [f"{len(rows) - MOST:,} more: `python -m bench export` writes all of them."] if len(rows) > MOST else []
    shown = table(HEADERS, rows[:MOST], 3)
    notes = [f"{DAGGER} not trained: the ASR says nothing."] if any(DAGGER in row[9] for row in rows[:MOST]) else []
    return "\n\n".join([f"# {TITLE}", LEGEND, shown, *more, *notes]) + "\n"


def _row(record: Record, why: str, telling: Telling) -> list[str]:
    cell = record["cell"]
    dataset, attack, model, defense = (_printed(axis, telling.name(axis, _with_source(cell[axis])), cell[axis]["name"])
                                       for axis in PLUGINS)  # fmt: skip
    untrained = DAGGER if record.get("trained") is False else ""
    cacc, asr, floor = (percent(metric(record, name)) for name in ("cacc", "asr", "asr_floor"))
    rule, target = (DASH if cell[name] is None else escape(cell[name]) for name in ("label_rule", "target_label"))
    ratio = f"{cell['poison_ratio']:g}"
    return [dataset, model, attack, ratio, rule, target, defense, str(cell["seed"]), cacc, asr + untrained, floor, why]


def _with_source(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plug-in with where it is from among its options: two of one name may differ in nothing else."""
    return {"name": part["name"], "options": {"source": part.get("source") or "", **(part.get("options") or {})}}


def _printed(axis: str, named: str, name: str) -> str:
    """Return a plug-in in its printed name, with the options that tell it apart."""
    return escape(printed_name(f"{axis}s", name) + named.removeprefix(name))


def _in_order(row: Sequence[str]) -> list[tuple[bool, float, str]]:
    """Sort as a reader does: numbers by their size."""
    return [(_is_number(text), float(text) if _is_number(text) else 0.0, text) for text in row]


def _is_number(text: str) -> bool:
    return text.isascii() and text.replace(".", "", 1).isdigit()
