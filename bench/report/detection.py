"""How well detectors tell poisoned inputs from clean ones: FRR, FAR and AUROC, from stored flags and scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from bench.report.aggregate import Stat, stat
from bench.report.markdown import DASH, escape, table
from bench.report.paper import printed_name
from bench.report.records import Record, metric, names
from bench.report.values import value

LEGEND = (
    "FRR: share of clean test samples that are flagged. FAR: share of poisoned ones that are let pass. AUROC: of the "
    "detector's score, whatever its threshold; 0.50 is guessing. FRR and FAR in percent, lower is better."
)
METRICS = ("frr", "far", "auroc")


def detection(records: Sequence[Record], attacks: Sequence[str], defenses: Sequence[str]) -> list[str]:
    """Return heading, legend and table of the defenses that flag inputs, or nothing where none does.

    Args:
        records: of one data set, model and setting, under attack.
        attacks: the columns, in order.
        defenses: the rows, in order.
    """
    found: dict[tuple[str, str], list[Record]] = defaultdict(list)
    told = {names(record)[3] for record in records if record.get("oracle")}
    for record in records:
        if metric(record, "frr") is not None or metric(record, "far") is not None:
            _, _, attack, defense = names(record)
            found[defense, attack].append(record)
    acting = [name for name in defenses if any(defense == name for defense, _ in found)]
    if not acting:
        return []
    headers = ["Detector"]
    headers += [f"{escape(printed_name('attacks', attack))} {one.upper()}" for attack in attacks for one in METRICS]
    rows = []
    for name in acting:
        row = [escape(printed_name("defenses", name)) + (" (oracle)" if name in told else "")]
        for attack in attacks:
            for one in METRICS:
                result = stat([_rate(record, one) for record in _by_seed(found.get((name, attack), []))])
                row.append(_auroc(result) if one == "auroc" else value(result))
        rows.append(row)
    return ["### Detection", LEGEND, table(headers, rows, 1)]


def _rate(record: Record, name: str) -> float | None:
    # AUROC is no share of counted samples: a record holds the bare number.
    return record["metrics"].get(name) if name == "auroc" else metric(record, name)


def _by_seed(records: Sequence[Record]) -> list[Record]:
    return sorted(records, key=lambda record: record["cell"]["seed"])


def _auroc(result: Stat | None) -> str:
    if result is None:
        return DASH
    return f"{result.mean:.2f}" + ("" if result.std is None else f" ± {result.std:.2f}")
