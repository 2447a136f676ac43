"""Which records a table may take: whole, comparable, one setting each; what is left out is counted with its reason."""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.report.aggregate import Cell, Key, cells
from bench.report.paper import settings
from bench.report.records import Record, canonical, distinct, names

Setting = tuple[str, str]  # recipe, precision
DEFAULT: Setting = ("released", "fp32")
POISON_RATIO = float(settings()["common"]["poison_ratio_default"])
TARGET_LABEL = int(settings()["common"]["target_label"])

LIMITED = "a row limit, smoke tests (`limit`)"
OTHER_TARGET = f"a target label other than {TARGET_LABEL}"
OTHER_RATIO = f"a poison ratio other than {POISON_RATIO:g}"
OTHER_RULE = "a label rule other than the attack's default"
OTHER_OPTIONS = "options other than those of most records of the same row"
OTHER_PLUGIN = "a plug-in of the same name from elsewhere than that of most records of the same row"
OTHER_MODEL_OPTIONS = "model options other than those of most cells of the same data set and model"
REPEATED = "the cell and seed of another record"

Scope = Callable[[Record], tuple[str, ...]]
# Poisoned data are the same for every defense of a table; a model's or a defense's options only within its rows.
_OPTION_SCOPES: tuple[tuple[str, str, Scope], ...] = (
    ("dataset", OTHER_OPTIONS, lambda record: names(record)[:1]),
    ("attack", OTHER_OPTIONS, lambda record: (names(record)[0], names(record)[2])),
    ("model", OTHER_MODEL_OPTIONS, lambda record: (names(record)[0], names(record)[1], names(record)[3])),
    ("defense", OTHER_OPTIONS, lambda record: (names(record)[0], names(record)[1], names(record)[3])),
)


@dataclass(frozen=True)
class Selection:
    """Records sorted into what tables show: by (recipe, precision), under attack (ratio 0.1) and clean control (0)."""

    attacked: Mapping[Setting, tuple[Record, ...]]
    control: Mapping[Setting, tuple[Record, ...]]
    failed: tuple[Record, ...]
    gaps: tuple[Record, ...]  # the failed ones that would otherwise stand under `attacked`
    left_out: tuple[tuple[Record, str], ...]

    @functools.cached_property
    def _cells(self) -> dict[tuple[Setting, str], Mapping[Key, Cell]]:
        return {}

    def cells(self, one: Setting, group: str = "metrics") -> Mapping[Key, Cell]:
        """Return the cells under attack of a setting, by metrics or by "metrics_flip"; they are made once."""
        if (one, group) not in self._cells:
            self._cells[one, group] = cells(self.attacked.get(one, ()), group)
        return self._cells[one, group]

    @property
    def settings(self) -> list[Setting]:
        """Return the settings that have any record, the default first."""
        found = set(self.attacked) | set(self.control) | {setting(record) for record in self.failed}
        return sorted(found, key=lambda item: (item != DEFAULT, item))

    def taken(self) -> list[Record]:
        """Return every record that some table may show."""
        parts = [*self.attacked.values(), *self.control.values()]
        return [record for part in parts for record in part]


def setting(record: Record) -> Setting:
    """Return the (recipe, precision) of a record: tables never mix two of them."""
    return record["cell"]["recipe"], record["cell"]["precision"]


def is_control(record: Record) -> bool:
    """Tell whether the record is a clean control: nothing was poisoned."""
    return record["cell"]["poison_ratio"] == 0


def select(records: Iterable[Record], ratio: float = POISON_RATIO) -> Selection:
    """Sort records, in whatever order, into those that tables show, the failed ones, and those left out, with why.

    Args:
        ratio: the poison ratio of the records under attack; every table has the paper's.
    """
    return selections(records, [ratio])[ratio]


def selections(records: Iterable[Record], ratios: Sequence[float]) -> dict[float, Selection]:
    """Return the selection of records at each of some poison ratios."""
    unique, others = distinct(records)
    whole = [record for record in unique if record["cell"]["limit"] is None]
    rules, votes = _usual_rules(whole), _votes(whole)
    return {ratio: _at(ratio, unique, others, rules, votes) for ratio in ratios}


def _at(
    ratio: float, unique: Sequence[Record], others: Sequence[Record], rules: Rules, votes: Mapping[Trained, int]
) -> Selection:
    left_out = [(record, REPEATED) for record in others]
    left_out += [(record, LIMITED) for record in unique if record["cell"]["limit"] is not None]
    whole = [record for record in unique if record["cell"]["limit"] is None]
    failed = tuple(record for record in whole if record["status"] == "failed")
    parts: dict[Setting, list[Record]] = defaultdict(list)
    for record in whole:
        if record["status"] == "failed":
            continue
        reason = _other_axis(record, rules, ratio)
        if reason:
            left_out.append((record, reason))
        else:
            parts[setting(record)].append(record)
    attacked, control = {}, {}
    for one, members in parts.items():
        kept, dropped = _one_variant(members, votes)
        left_out.extend(dropped)
        attacked[one] = tuple(record for record in kept if not is_control(record))
        control[one] = tuple(record for record in kept if is_control(record))
    gaps = tuple(record for record in failed if not is_control(record) and not _other_axis(record, rules, ratio))
    return Selection(attacked, control, failed, gaps, tuple(left_out))


Rules = Mapping[tuple[str, str, str], str]  # recipe, dataset, attack -> default label rule
Trained = tuple[Setting, str, str, str]  # setting, dataset, model, the model's options


def _other_axis(record: Record, rules: Rules, ratio: float) -> str:
    cell = record["cell"]
    if cell["target_label"] not in (None, TARGET_LABEL):
        return OTHER_TARGET
    if is_control(record):
        return ""  # nothing is poisoned: the label rule decides nothing
    if abs(cell["poison_ratio"] - ratio) > 1e-9:
        return OTHER_RATIO
    if cell["label_rule"] not in (None, rules.get(_rule_place(record))):
        return OTHER_RULE
    return ""


def _rule_place(record: Record) -> tuple[str, str, str]:
    dataset, _, attack, _ = names(record)
    return record["cell"]["recipe"], dataset, attack


def published_rule(recipe: str, dataset: str, attack: str) -> str | None:
    """Return the default label rule of one of the paper's attacks, or None for another attack.

    Stated here a second time (the attackers have it too) because a table must not change with what is installed.
    """
    if attack not in settings()["attacks"]:
        return None
    mixed = recipe == "paper" or dataset.startswith(("lingspam", "demo"))
    return "clean" if attack == "badnets" and not mixed else "mix"


def _usual_rules(records: Iterable[Record]) -> Rules:
    """Return the default label rule of each (recipe, dataset, attack): the published one, else that of most records."""
    seen: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for record in records:
        if record["cell"]["label_rule"] is not None and not is_control(record):
            seen[_rule_place(record)][record["cell"]["label_rule"]] += 1
    return {place: published_rule(*place) or _most_common(counts) for place, counts in seen.items()}


def _most_common(counts: Mapping[str, int]) -> str:
    return min(counts, key=lambda value: (-counts[value], value))


def _votes(records: Iterable[Record]) -> Mapping[Trained, int]:
    """Return how many cells, of whatever defense, attack and ratio, have each options of a model."""
    voters: dict[Trained, set[tuple[object, ...]]] = defaultdict(set)
    for record in records:
        if record["status"] == "ok":
            place = (setting(record), *names(record)[:2], _options(record, "model"))
            voters[place].add((_place(record), record["cell"]["poison_ratio"]))
    return {place: len(cells) for place, cells in voters.items()}


def _one_variant(
    records: Sequence[Record], votes: Mapping[Trained, int]
) -> tuple[list[Record], list[tuple[Record, str]]]:
    """Keep, of records in one setting, those with the most common options in each scope, and one per cell and seed.

    A cell counts once, however often it was run. A row's model options are those that most cells of the whole data set
    and model have, so that rows are trained alike and a defense that was also run with others keeps its place.
    """
    kept, dropped = list(records), []
    for kind, reason, scope in _OPTION_SCOPES:
        placed = [(record, scope(record), _options(record, kind)) for record in kept]
        cells: dict[tuple[str, ...], dict[str, set[tuple[object, ...]]]] = defaultdict(lambda: defaultdict(set))
        backing: dict[tuple[tuple[str, ...], str], int] = {}
        for record, place, options in placed:
            cells[place][options].add(_place(record))
            trained = (setting(record), *names(record)[:2], options)
            backing[place, options] = votes[trained] if kind == "model" else 0
        usual = {
            place: min(found, key=lambda one: (-backing[place, one], -len(found[one]), one))
            for place, found in cells.items()
        }
        dropped += [
            (record, reason if _source(options) == _source(usual[place]) else OTHER_PLUGIN)
            for record, place, options in placed
            if options != usual[place]
        ]
        kept = [record for record, place, options in placed if options == usual[place]]
    single: dict[tuple[object, ...], Record] = {}
    # Of a cell that was also run with an analysis looking on, the plain one stands.
    for record in sorted(kept, key=lambda item: (item["cell"].get("analysis") is not None, item["key"])):
        if single.setdefault(_place(record), record) is not record:
            dropped.append((record, REPEATED))
    return list(single.values()), dropped


def _place(record: Record) -> tuple[object, ...]:
    """Return what a table has one value of: a cell under attack or of the clean control, and a seed."""
    return *names(record), record["cell"]["seed"], is_control(record)


def _options(record: Record, kind: str) -> str:
    part = record["cell"][kind]
    return canonical([part.get("options") or {}, part.get("source") or ""])


def _source(options: str) -> str:
    """Return where a plug-in is from, of what `_options` says of it."""
    return json.loads(options)[1]
