"""The clean control: what each defense does to a model of clean data (poison ratio 0), and what CACC it costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from bench.report.aggregate import Cell, Key, Stat, cells, group_mean, stat
from bench.report.markdown import DAGGER, DASH, escape, percent, table
from bench.report.paper import printed_name
from bench.report.records import Record, metric, names
from bench.report.values import value

Row = tuple[str, str, str]  # dataset, model, defense


def clean_cacc(control: Sequence[Record]) -> dict[Row, Stat | None]:
    """Return the CACC over seeds of each (dataset, model, defense) on clean data.

    Records of one seed differ only in the attack whose test samples they see, not in the clean ones: they count once.
    """
    seeds: dict[Row, dict[int, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for record in control:
        dataset, model, _, defense = names(record)
        seeds[dataset, model, defense][record["cell"]["seed"]].append(metric(record, "cacc"))
    return {row: stat([group_mean(values) for values in found.values()]) for row, found in seeds.items()}


def cacc_loss(clean: Mapping[Row, Stat | None], cell: Cell | None, dataset: str, model: str) -> float | None:
    """Return vanilla's clean-data CACC minus a cell's CACC under attack, as a fraction; None where one is missing."""
    reference = clean.get((dataset, model, "vanilla"))
    if reference is None or cell is None or cell.cacc is None:
        return None
    return reference.mean - cell.cacc.mean


def control_table(
    groups: Sequence[tuple[str, str]],
    attacks: Sequence[str],
    defenses: Sequence[str],
    attacked: Mapping[Key, Cell],
    control: Sequence[Record],
    ablation: bool,
) -> list[str]:
    """Return heading, legend and table of the clean control of some (dataset, model) groups, or nothing without one."""
    control = [record for record in control if names(record)[:2] in groups]
    clean, false_alarms = clean_cacc(control), cells(control)
    untrained = {(*names(record)[:2], names(record)[3]) for record in control if record.get("trained") is False}
    groups = [group for group in groups if any((*group, defense) in clean for defense in defenses)]
    if not groups:
        return []
    shown = [
        attack
        for attack in attacks
        if any(key[:2] in groups and key[2] == attack and cell.asr for key, cell in false_alarms.items())
    ]
    headers = ["Dataset", "Model", "Method", "CACC on clean data"]
    headers += [f"False ASR {printed_name('attacks', attack)}" for attack in shown]
    headers += [f"CACC loss {printed_name('attacks', attack)}" for attack in attacks]
    rows = []
    for dataset, model in groups:
        for defense in defenses:
            keys = [(dataset, model, attack, defense) for attack in attacks]
            if (dataset, model, defense) not in clean and not any(key in attacked for key in keys):
                continue
            row = [printed_name("datasets", dataset), printed_name("models", model)]
            row = [escape(name) for name in (*row, printed_name("defenses", defense, ablation))]
            mark = DAGGER if (dataset, model, defense) in untrained else ""
            row.append(value(clean.get((dataset, model, defense))) + mark)
            row += [value(_asr(false_alarms.get((dataset, model, attack, defense)))) for attack in shown]
            row += [percent(cacc_loss(clean, attacked.get(key), dataset, model)) for key in keys]
            rows.append(row)
    legend = (
        "Trained with nothing poisoned (ratio 0). False ASR: share of triggered non-target samples that this clean "
        "model takes for the target. CACC loss: Vanilla's CACC on clean data minus the method's CACC under attack, in "
        f"percentage points; {DASH} where either is missing."
    )
    return ["### Clean control", legend, table([escape(header) for header in headers], rows, 3)]


def _asr(cell: Cell | None) -> Stat | None:
    return None if cell is None else cell.asr
