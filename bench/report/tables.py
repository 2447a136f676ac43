"""Tables 1, 2, 3, 4, 7, 8 and 9: the paper's rows and columns, ours and the paper's numbers side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.report.aggregate import Cell, Key, comparable_asr, marks, ranks
from bench.report.control import control_table
from bench.report.footer import notes
from bench.report.layouts import Layout
from bench.report.markdown import DASH, escape, marked, table
from bench.report.paper import SOURCE, order, printed_name, published
from bench.report.records import Record, names
from bench.report.selection import DEFAULT, Selection, Setting, is_control, setting
from bench.report.values import beside, bounds, dagger, value

Group = tuple[str, str]  # dataset, model: the rows that are compared with each other
LEGEND = (
    "CACC (higher is better) and ASR (lower is better) in percent; "
    "`ours ± deviation over seeds (the paper's, ours minus the paper's)`; "
    f"{DASH} is a missing cell."
)
BOLD_LEGEND = " **Bold** is the lowest ASR of a comparison, ours among ours and the paper's among the paper's."
INTERVALS = (
    "95 % intervals in percent: Wilson's for one seed; for several, a bootstrap of the seeds and of the test samples. "
    "Rank by ASR among the methods of a comparison that were run, 1 for the lowest; ties share their mean rank."
)
UNDERLINE_LEGEND = " <u>Underlined</u> is the second lowest."


@dataclass(frozen=True)
class Block:
    """One Markdown table of a page: its heading, the groups that are its rows, and whether a column names the model."""

    heading: str
    groups: tuple[Group, ...]
    model_column: bool


def mirrored_table(layout: Layout, selection: Selection) -> str:
    """Return the page of a mirrored table."""
    legend = LEGEND + (BOLD_LEGEND if layout.marked else "") + (UNDERLINE_LEGEND if layout.ablation else "")
    parts = [f"# Table {layout.table}: {layout.title}", f"Mirrors Table {layout.table} of {SOURCE}.", legend]
    for one in settings_of(selection):
        shown, flipped = selection.cells(one), selection.cells(one, "metrics_flip")
        for block in blocks(layout, selection, one):
            parts += [f"## {block.heading}", _grid(layout, block, shown)]
            parts += _gains(layout, block, shown)
            parts += _intervals(layout, block, shown)
            parts += _flips(layout, block, flipped)
            parts += control_table(
                block.groups, layout.attacks, layout.defenses, shown, selection.control.get(one, ()), layout.ablation
            )
    relevant = [record for record in selection.taken() if belongs(layout, record)]
    failed = [record for record in selection.gaps if belongs(layout, record)]
    left_out = [reason for record, reason in selection.left_out if belongs(layout, record)]
    return "\n\n".join([*parts, "## Notes", notes(relevant, failed, left_out, layout.ablation)]) + "\n"


def settings_of(selection: Selection) -> list[Setting]:
    """Return the settings that a page shows: the default first, whether or not it has a record."""
    return [DEFAULT, *(one for one in selection.settings if one != DEFAULT)]


def belongs(layout: Layout, record: Record) -> bool:
    """Tell whether a record has to do with a table: one of its cells, or a clean control of one of its rows."""
    dataset, model, attack, defense = names(record)
    return layout.has_cell((dataset, model, layout.attacks[0] if is_control(record) else attack, defense))


def blocks(layout: Layout, selection: Selection, one: Setting) -> list[Block]:
    """Return the paper's block (its datasets, then others that were run), then one block per other model."""
    tried = [*selection.attacked.get(one, ()), *(record for record in selection.gaps if setting(record) == one)]
    found = {names(record)[:2] for record in tried if belongs(layout, record)}
    if one == DEFAULT:
        own = [(dataset, model) for dataset in layout.datasets for model in layout.models]
    else:
        own = [(dataset, model) for dataset, model in _sorted(layout, found) if model in layout.models]
        own = [group for group in own if group[0] in layout.datasets]
    extra = [group for group in _sorted(layout, found) if group[1] in layout.models and group not in own]
    blocks = []
    if own or extra:
        models = order("models", {group[1] for group in own + extra})
        blocks.append(Block(_heading(models, one), (*own, *extra), len(layout.models) > 1))
    for model in order("models", {group[1] for group in found} - set(layout.models)):
        groups = tuple(group for group in _sorted(layout, found) if group[1] == model)
        blocks.append(Block(_heading([model], one), groups, False))
    return blocks


def _heading(models: Sequence[str], one: Setting) -> str:
    shown = ", ".join(escape(printed_name("models", model)) for model in models)
    return f"{shown} (recipe {escape(one[0])}, {escape(one[1])})"


def _sorted(layout: Layout, groups: Iterable[Group]) -> list[Group]:
    groups = set(groups)
    models = order("models", {group[1] for group in groups})
    others = {group[0] for group in groups} - set(layout.datasets)
    known = [*layout.datasets, *order("datasets", others)]
    return sorted(groups, key=lambda group: (known.index(group[0]), models.index(group[1])))


def _grid(layout: Layout, block: Block, shown: Mapping[Key, Cell]) -> str:
    texts: dict[Key, tuple[str, str]] = {}
    for dataset, model in block.groups:
        for attack in layout.attacks:
            keys = [(dataset, model, attack, defense) for defense in layout.defenses]
            printed = [published(layout.table, *key) for key in keys]
            present = sum(key in shown for key in keys) if layout.marked else 0
            ours = marks([comparable_asr(shown.get(key)) for key in keys], present, layout.ablation)
            present = len(keys) if layout.marked else 0
            papers = marks([pair and pair[1] / 100 for pair in printed], present, layout.ablation)
            for key, pair, mark, paper_mark in zip(keys, printed, ours, papers, strict=True):
                texts[key] = _pair(shown.get(key), pair, mark, paper_mark)
    return _table(layout, block, layout.defenses, ("CACC", "ASR"), lambda key: texts[key])


def _pair(cell: Cell | None, printed: tuple[float, float] | None, mark: str, paper_mark: str) -> tuple[str, str]:
    cacc, asr = (DASH, DASH) if cell is None else (value(cell.cacc), marked(value(cell.asr), mark) + dagger(cell))
    if printed is None:
        return cacc, asr
    ours = (None, None) if cell is None else (cell.cacc, cell.asr)
    best = marked(f"{printed[1]:.2f}", paper_mark)
    return beside(cacc, ours[0], printed[0]), beside(asr, ours[1], printed[1], best)


def asr_ranks(layout: Layout, block: Block, shown: Mapping[Key, Cell]) -> dict[Key, float | None]:
    """Return the rank of each cell by ASR among the methods of its data set, model and attack, 1 for the lowest."""
    found: dict[Key, float | None] = {}
    for dataset, model in block.groups:
        for attack in layout.attacks:
            keys = [(dataset, model, attack, defense) for defense in layout.defenses]
            found |= dict(zip(keys, ranks([comparable_asr(shown.get(key)) for key in keys]), strict=True))
    return found


def _intervals(layout: Layout, block: Block, shown: Mapping[Key, Cell]) -> list[str]:
    mine = {key: cell for key, cell in shown.items() if key[:2] in block.groups and layout.has_cell(key)}
    if not mine:
        return []
    groups = tuple(group for group in block.groups if any(key[:2] == group for key in mine))
    place = asr_ranks(layout, block, mine)

    def text(key: Key) -> tuple[str, str, str]:
        cell = mine.get(key)
        if cell is None:
            return DASH, DASH, DASH
        rank = place[key]
        return bounds(cell.cacc_counts), bounds(cell.asr_counts), DASH if rank is None else f"{rank:g}"

    narrowed = Block(block.heading, groups, block.model_column)
    parts = _table(layout, narrowed, layout.defenses, ("CACC", "ASR", "rank"), text)
    return ["### Intervals and ranks", INTERVALS, parts]


def _gains(layout: Layout, block: Block, shown: Mapping[Key, Cell]) -> list[str]:
    mine = {key: cell for key, cell in shown.items() if key[:2] in block.groups and layout.has_cell(key)}
    if not mine:
        return []
    groups = tuple(group for group in block.groups if any(key[:2] == group for key in mine))

    def text(key: Key) -> tuple[str]:
        cell = mine.get(key)
        return (DASH,) if cell is None else (value(cell.gain) + dagger(cell),)

    title = "### ASR minus floor"
    what = "Percentage points of ASR beyond the share of the same samples taken for the target without the trigger."
    narrowed = Block(block.heading, groups, block.model_column)
    return [title, what, _table(layout, narrowed, layout.defenses, ("",), text)]


def _flips(layout: Layout, block: Block, flipped: Mapping[Key, Cell]) -> list[str]:
    mine = {key: cell for key, cell in flipped.items() if key[:2] in block.groups and layout.has_cell(key)}
    if not mine or not layout.end_to_end:
        return []
    groups = tuple(group for group in block.groups if any(key[:2] == group for key in mine))
    defenses = tuple(name for name in layout.defenses if any(key[3] == name for key in mine))
    what = "A flagged input counts as its flipped label, the paper's rule; in the tables above it counts as rejected."

    def text(key: Key) -> tuple[str, str]:
        return _pair(mine.get(key), published(layout.table, *key), "", "")

    narrowed = Block(block.heading, groups, block.model_column)
    return ["### Detectors under the flip rule", what, _table(layout, narrowed, defenses, ("CACC", "ASR"), text)]


def _table(
    layout: Layout,
    block: Block,
    defenses: Sequence[str],
    metrics: tuple[str, ...],
    text: Callable[[Key], tuple[str, ...]],
) -> str:
    """Return the Markdown of a block; `text` gives the metrics' texts of a cell (dataset, model, attack, defense)."""
    attacks = layout.attacks
    lines, columns = (attacks, defenses) if layout.attack_rows else (defenses, attacks)
    line_kind, column_kind = ("attacks", "defenses") if layout.attack_rows else ("defenses", "attacks")
    labels = ["Dataset", *(["Model"] if block.model_column else []), "Attack" if layout.attack_rows else "Method"]
    labels += ["MS", "LR", "GA"] if layout.ablation else []
    headers = [f"{escape(printed_name(column_kind, name))} {metric}".strip() for name in columns for metric in metrics]
    rows = []
    for dataset, model in block.groups:
        for line in lines:
            row = [escape(printed_name("datasets", dataset))]
            row += [escape(printed_name("models", model))] if block.model_column else []
            row.append(escape(printed_name(line_kind, line, layout.ablation)))
            row += ["✓" if check else "" for check in layout.checks[line]] if layout.ablation else []
            for column in columns:
                attack, defense = (line, column) if layout.attack_rows else (column, line)
                row += text((dataset, model, attack, defense))
            rows.append(row)
    return table([*labels, *headers], rows, len(labels))
