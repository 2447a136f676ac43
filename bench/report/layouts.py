"""The shape of each mirrored table: its rows and columns are read off the published numbers, never typed."""

from __future__ import annotations

from dataclasses import dataclass

from bench.report.aggregate import Key
from bench.report.paper import published_table

TITLES = {
    1: "Parameter-efficient baselines",
    2: "End-to-end baselines",
    3: "Ablation of MuScleLoRA",
    4: "Baselines on a large language model",
    7: "Parameter-efficient baselines on larger models",
    8: "Ablation of MuScleLoRA on larger models",
    9: "End-to-end baselines on a larger model",
}
# Tables of one comparison: a paper model stands in its own table only, other models in each of them.
_FAMILIES = ((1, 7), (2, 4, 9), (3, 8))
# A table other than the first of its family is worth a page only if a model of the paper's was run.
HOME = {family[0] for family in _FAMILIES}
_END_TO_END = frozenset({"onion", "bki", "cube", "strip", "rap"})


@dataclass(frozen=True)
class Layout:
    """One mirrored table; every axis is in the order in which the paper prints it."""

    table: int
    title: str
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    attacks: tuple[str, ...]
    defenses: tuple[str, ...]
    checks: dict[str, tuple[bool, bool, bool]]  # defense -> MS, LR, GA; empty where the table has no check marks
    elsewhere: frozenset[str]  # models that the paper prints in another table of the same comparison

    @property
    def ablation(self) -> bool:
        """Tell whether the table has check marks and underlines (Tables 3 and 8)."""
        return bool(self.checks)

    @property
    def marked(self) -> bool:
        """Tell whether the lowest ASR is bold: the caption of every table but Table 4 says so."""
        return self.table != 4

    @property
    def attack_rows(self) -> bool:
        """Tell whether rows are attacks and column groups defenses (Table 1), or the other way round (the others)."""
        return self.table == 1

    @property
    def end_to_end(self) -> bool:
        """Tell whether the table compares end-to-end defenses, whose detectors have a second flag rule."""
        return bool(_END_TO_END & set(self.defenses))

    def has_cell(self, key: Key) -> bool:
        """Tell whether a cell (dataset, model, attack, defense) has a place in this table."""
        _, model, attack, defense = key
        return attack in self.attacks and defense in self.defenses and model not in self.elsewhere

    def worth_a_page(self, keys: set[Key]) -> bool:
        """Tell whether these cells fill some of the table: of its own models or, for the first of a family, of any."""
        special = set(self.defenses) & _END_TO_END or set(self.defenses)
        return any(
            self.has_cell(key) and key[3] in special and (key[1] in self.models or self.table in HOME) for key in keys
        )


def layout(table: int) -> Layout:
    """Return the layout of a mirrored table: 1, 2, 3, 4, 7, 8 or 9."""
    cells = published_table(table)
    datasets, models, attacks, defenses = (tuple(dict.fromkeys(key[axis] for key in cells)) for axis in range(4))
    checks = {key[3]: cell.checks for key, cell in cells.items() if cell.checks is not None}
    family = next(family for family in _FAMILIES if table in family)
    others = {key[1] for other in family if other != table for key in published_table(other)}
    return Layout(table, TITLES[table], datasets, models, attacks, defenses, checks, frozenset(others - set(models)))


def layouts() -> list[Layout]:
    """Return the layouts of all mirrored tables in order of their number."""
    return [layout(table) for table in sorted(TITLES)]
