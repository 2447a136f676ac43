"""The notes under a table: what was measured on what, the threat model, leaks, what is missing, and the environment."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from bench.core.metrics import NOT_TRAINED_MARGIN
from bench.report.aggregate import Key
from bench.report.markdown import DAGGER, escape, listed
from bench.report.paper import order, printed_name
from bench.report.records import Record, canonical, names
from bench.report.selection import DEFAULT, POISON_RATIO, TARGET_LABEL, is_control, setting

THREAT_MODEL = (
    "Threat model: the attacker writes a share of the training rows, labels included, and the trigger of the test "
    "inputs, and nothing else. A defense knows the classes, the pre-trained weights and the clean samples counted "
    "below; never which rows are poisoned, nor a test label (a row marked oracle was told)."
)
DEVIATIONS = (
    "What the recipes do, and where they depart from the paper and its code: RECIPES.md and DEVIATIONS.md of the "
    "published leaderboard."
)
NONE_FITS = "No record fits this page."
_ENVIRONMENT = ("device", "machine", "python", "torch", "transformers", "peft", "bench", "commit", "date")


def notes(records: Sequence[Record], failed: Sequence[Record], left_out: Sequence[str], ablation: bool = False) -> str:
    """Return the bullet list that explains the shown records, the failed ones and those left out (by reason).

    Args:
        ablation: name the methods as the ablation tables do.
    """
    attacked = [record for record in records if not is_control(record)]
    lines = [
        *(_setting_lines(records) or [NONE_FITS if left_out else "No cell of this table was run yet."]),
        THREAT_MODEL,
        f"Poison ratio {POISON_RATIO:g} of the final training set, target label {TARGET_LABEL}, "
        "each attack's default label rule.",
        _by_dataset("Test samples", records, _test_samples),
        _by_dataset("Poisoned training rows", attacked, _poisoned_rows),
        _knowledge(records, ablation),
        _not_trained(records),
        *_seed_gaps(attacked, ablation),
        *_mixed_models(attacked),
        *_stand_ins(records, ablation),
        *_sharded(records, ablation),
        *_floors_missing(records),
        *leaks(records),
        _read_from(records),
        _elsewhere(records),
        _failures(failed),
        left_out_line(left_out),
        DEVIATIONS,
        environment(records),
    ]
    return bullets(lines)


def bullets(lines: Iterable[str]) -> str:
    """Return the lines that are not empty as a Markdown list."""
    return "\n".join(f"- {line}" for line in lines if line)


def _setting_lines(records: Sequence[Record]) -> list[str]:
    seeds: dict[tuple[str, str], set[int]] = defaultdict(set)
    for record in records:
        seeds[setting(record)].add(record["cell"]["seed"])
    return [
        f"Recipe {escape(recipe)}, precision {escape(precision)}: "
        f"{'seed' if len(found) == 1 else 'seeds'} {', '.join(map(str, sorted(found)))}."
        for (recipe, precision), found in sorted(seeds.items(), key=lambda item: (item[0] != DEFAULT, item[0]))
    ]


def _by_dataset(title: str, records: Sequence[Record], text: Callable[[Sequence[Record]], str]) -> str:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[names(record)[0]].append(record)
    parts = [(name, text(groups[name])) for name in order("datasets", set(groups))]
    shown = [f"{escape(printed_name('datasets', name))} {part}" for name, part in parts if part]
    return f"{title}: {'; '.join(shown)}." if shown else ""


def _test_samples(records: Sequence[Record]) -> str:
    clean = _numbers(_count(record, "cacc") for record in records)
    poisoned = _by_attack(records, lambda record: _count(record, "asr"))
    parts = [f"{clean} clean"] if clean else []
    return ", ".join([*parts, *([f"poisoned {poisoned}"] if poisoned else [])])


def _poisoned_rows(records: Sequence[Record]) -> str:
    dropped = _by_attack(records, lambda record: (record.get("poison") or {}).get("dropped") or None)
    rows = _by_attack(records, lambda record: (record.get("poison") or {}).get("rows"))
    return rows + (f" (dropped by the paraphraser: {dropped})" if dropped else "")


def _by_attack(records: Sequence[Record], count: Callable[[Record], int | None]) -> str:
    groups: dict[str, list[int | None]] = defaultdict(list)
    for record in records:
        groups[names(record)[2]].append(count(record))
    shown = [(name, _numbers(groups[name])) for name in order("attacks", set(groups))]
    return ", ".join(f"{escape(printed_name('attacks', name))} {numbers}" for name, numbers in shown if numbers)


def _count(record: Record, metric: str) -> int | None:
    return ((record.get("metrics") or {}).get(metric) or {}).get("n")


def _numbers(values: Iterable[int | None]) -> str:
    return " or ".join(str(value) for value in sorted({value for value in values if value is not None}))


def _knowledge(records: Sequence[Record], ablation: bool) -> str:
    budgets: dict[str, set[tuple[int, int, int]]] = defaultdict(set)
    for record in records:
        if record.get("knowledge"):
            budgets[names(record)[3]].add(budget(record))
    if not budgets:
        return ""
    shown = []
    for name in order("defenses", set(budgets)):
        sums = " or ".join(" + ".join(map(str, parts)) for parts in sorted(budgets[name]))
        shown.append(f"{escape(printed_name('defenses', name, ablation))} {sums}")
    return f"Clean labelled samples (method + checkpoint selection + threshold calibration): {'; '.join(shown)}."


def budget(record: Record) -> tuple[int, int, int]:
    """Return the clean labelled samples used by a method itself, to choose its checkpoint, to calibrate a threshold."""
    knowledge = record.get("knowledge") or {}
    method, selection, calibration = (int(knowledge.get(use) or 0) for use in ("method", "selection", "calibration"))
    return method, selection, calibration


def _not_trained(records: Sequence[Record]) -> str:
    if not any(record.get("trained") is False for record in records):
        return ""
    return (
        f"{DAGGER} not trained: CACC within {100 * NOT_TRAINED_MARGIN:g} points of always answering the majority class "
        f"({DAGGER}1/3: in 1 of 3 seeds). A model that did not learn is not a defense: no bold, underline or rank."
    )


def _seed_gaps(attacked: Sequence[Record], ablation: bool) -> list[str]:
    """Name the cells with fewer seeds than others of their setting, data set and model."""
    seeds: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for record in attacked:
        seeds[(*setting(record), *names(record))].add(record["cell"]["seed"])
    wanted: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for place, found in seeds.items():
        wanted[place[:4]] |= found
    gaps = []
    for place, found in sorted(seeds.items()):
        if len(found) < len(wanted[place[:4]]):
            shown = place_name((place[2], place[3], place[4], place[5]), ablation)
            gaps.append(f"{shown} {len(found)} of {len(wanted[place[:4]])}")
    return [f"Cells with fewer seeds than the others: {listed(gaps)}."] if gaps else []


def place_name(key: Key, ablation: bool = False) -> str:
    """Return a cell (dataset, model, attack, defense) in printed names."""
    kinds = ("datasets", "models", "attacks")
    shown = [printed_name(kind, name) for kind, name in zip(kinds, key[:3], strict=True)]
    return " / ".join(escape(name) for name in (*shown, printed_name("defenses", key[3], ablation)))


def _mixed_models(attacked: Sequence[Record]) -> list[str]:
    """Name the models whose options are not the same in every row."""
    options: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for record in attacked:
        dataset, model, _, _ = names(record)
        options[setting(record), dataset, model].add(canonical(record["cell"]["model"].get("options") or {}))
    mixed = {str(place[2]) for place, found in options.items() if len(found) > 1}
    shown = ", ".join(escape(printed_name("models", name)) for name in order("models", mixed))
    return [f"Model options are not the same in every row of: {shown}; the records hold them."] if mixed else []


def _stand_ins(records: Sequence[Record], ablation: bool) -> list[str]:
    """Return one line per model and rank for the rows whose victim trained LoRA in place of the whole model."""
    rows: dict[tuple[str, int], set[str]] = defaultdict(set)
    for record in records:
        if record.get("stand_in_rank"):
            _, model, _, defense = names(record)
            rows[model, record["stand_in_rank"]].add(defense)
    return [
        f"LoRA of rank {rank} stands for full fine-tuning of {escape(printed_name('models', model))} under "
        + ", ".join(escape(printed_name("defenses", name, ablation)) for name in order("defenses", found))
        + "."
        for (model, rank), found in sorted(rows.items())
    ]


def _sharded(records: Sequence[Record], ablation: bool) -> list[str]:
    """Return one line per model and number of devices for the rows whose whole model trained on several of them."""
    rows: dict[tuple[str, int], set[str]] = defaultdict(set)
    for record in records:
        if record.get("shards"):
            _, model, _, defense = names(record)
            rows[model, record["shards"]].add(defense)
    return [
        f"Full fine-tuning: the whole of {escape(printed_name('models', model))} trained, sharded over {shards} "
        "devices, under "
        + ", ".join(escape(printed_name("defenses", name, ablation)) for name in order("defenses", found))
        + "."
        for (model, shards), found in sorted(rows.items())
    ]


def _floors_missing(records: Sequence[Record]) -> list[str]:
    """Return one line per reason for which ASR has no floor, with the places where that is so."""
    places: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for record in records:
        if record.get("asr_floor_missing"):
            dataset, _, attack, _ = names(record)
            places[str(record["asr_floor_missing"])].add((dataset, attack))
    lines = []
    for reason in sorted(places):
        shown = [
            f"{escape(printed_name('datasets', dataset))} / {escape(printed_name('attacks', attack))}"
            for dataset, attack in sorted(places[reason])
        ]
        lines.append(f"No ASR floor for {listed(shown)}: {escape(reason).rstrip('.')}.")
    return lines


def leaks(records: Sequence[Record]) -> list[str]:
    """Return one line per data set whose public files leak between splits."""
    texts = {(names(record)[0], str((record.get("dataset_info") or {}).get("leaks") or "")) for record in records}
    found = {name for name, text in texts if text}
    return [
        f"Known leak in {escape(printed_name('datasets', name))}: "
        + "; ".join(escape(text).rstrip(".") for leaking, text in sorted(texts) if leaking == name and text)
        + "."
        for name in order("datasets", found)
    ]


def _read_from(records: Sequence[Record]) -> str:
    """Return which file or data set of the hub a custom name stands for: the name is the digest of what was read."""
    found = {(names(record)[0], str(record["read_from"])) for record in records if record.get("read_from")}
    return f"{listed([f'{escape(name)} was read from {escape(source)}' for name, source in sorted(found)])}." * bool(
        found
    )


def _elsewhere(records: Sequence[Record]) -> str:
    """Return which class from elsewhere an attack or defense is, and of several with one name which is where."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for record in records:
        attack, defense = record["cell"]["attack"], record["cell"]["defense"]
        dataset, model, _, _ = names(record)
        place = f"{escape(printed_name('datasets', dataset))} / {escape(printed_name('models', model))}"
        links = (defense.get("options") or {}).get("links")  # of a chain, whose parts carry their own
        for part in (attack, defense, *(links if isinstance(links, list) else ())):
            if isinstance(part, dict) and part.get("source"):
                found[str(part.get("name"))][str(part["source"])].add(place)
    shown = [
        f"{escape(name)} is {escape(source)}" + (f" ({', '.join(sorted(places))})" if len(sources) > 1 else "")
        for name, sources in sorted(found.items())
        for source, places in sorted(sources.items())
        if name != source
    ]
    return f"From outside this suite: {'; '.join(shown)}." if shown else ""


def _failures(failed: Sequence[Record]) -> str:
    return f"Failed cells, shown as missing: {len(failed)}; the [board](README.md) lists the reasons." if failed else ""


def left_out_line(reasons: Sequence[str]) -> str:
    """Return how many records were left out, by reason, or ""."""
    counts = Counter(reasons)
    shown = "; ".join(f"{counts[reason]} with {reason}" for reason in sorted(counts))
    return f"Records left out: {shown}." if shown else ""


def environment(records: Sequence[Record]) -> str:
    """Return the devices, versions, commits (and dates, where records hold them) of the records."""
    found: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for name, value in (record.get("environment") or {}).items():
            if value not in (None, ""):
                found[name].add(value if isinstance(value, str) else canonical(value))
    ordered = [name for name in _ENVIRONMENT if name in found] + sorted(set(found) - set(_ENVIRONMENT))
    shown = [f"{escape(name)} {', '.join(escape(value) for value in sorted(found[name]))}" for name in ordered]
    return f"Measured with: {'; '.join(shown)}." if shown else ""
