"""Where the tables of the site lead: a row to its cells, a number to the cell behind it, or to its seeds."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from bench.report.paper import printed_name
from bench.report.selection import POISON_RATIO, Selection, Setting

_HEADING = re.compile(r"(.*) \(recipe (.*), ([^,]*)\)", re.DOTALL)
DEFENSE = ("Method", "Defense", "Detector")  # the headers over a row's defense
_AXES = {"Dataset": 0, "Model": 1, "Attack": 2, **dict.fromkeys(DEFENSE, 3)}
_KINDS = ("datasets", "models", "attacks", "defenses")
_NAMES = ("dataset", "model", "attack", "defense")
_METRIC = re.compile(r" (?:CACC|ASR|rank|FRR|FAR|AUROC)$")


class Links:
    """The targets of what tables show of a selection; a text that two identifiers print leads nowhere."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        keys = {key for one in selection.settings for key in selection.cells(one)}
        self._rows = {(one, *key[:2], key[3]) for one in selection.settings for key in selection.cells(one)}
        self._printed = [_by_text(kind, {key[place] for key in keys}) for place, kind in enumerate(_KINDS)]
        pairs: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for dataset, model, *_ in keys:
            pairs[f"{printed_name('datasets', dataset)}, {printed_name('models', model)}"].add((dataset, model))
        self._pairs = {text: found.pop() for text, found in pairs.items() if len(found) == 1}

    def row(self, heading: str, labels: Mapping[str, str]) -> str:
        """Return the target of a row, or "": the table of cells, narrowed to those of its data set, model and defense.

        Args:
            heading: the heading of level 2 above the table.
            labels: header -> text of the columns that name the row.
        """
        one, (dataset, model, _, defense) = self._place(heading, labels)
        return table_of(one, dataset, model, "", defense) if (one, dataset, model, defense) in self._rows else ""

    def number(self, heading: str, labels: Mapping[str, str], header: str) -> str:
        """Return the target of a number, or "": the cell, or where it is a mean over seeds the table of them."""
        one, place = self._place(heading, labels)
        missing = 2 if not place[2] else 3
        texts = (header, header.removeprefix("ASR "), _METRIC.sub("", header))
        place[missing] = next((name for text in texts if (name := self._printed[missing].get(text))), place[missing])
        cell = self._selection.cells(one).get((place[0], place[1], place[2], place[3]))
        if cell is None:
            return ""
        if len(cell.keys) == 1:
            return f"#cell={cell.keys[0]}"
        return table_of(one, *place, keys=cell.keys)

    def _place(self, heading: str, labels: Mapping[str, str]) -> tuple[Setting, list[str]]:
        """Return the setting and what is known of (data set, model, attack, defense), "" where it is not."""
        found = _HEADING.fullmatch(heading)
        place = ["", "", "", ""]
        if found is None:
            return ("", ""), place
        what, recipe, precision = found.groups()
        place[:2] = self._pairs.get(what, ("", self._printed[1].get(what, "")))
        for header, text in labels.items():
            if header in _AXES:
                place[_AXES[header]] = self._printed[_AXES[header]].get(text.removesuffix(" (oracle)"), "")
        return (recipe, precision), place


def _by_text(kind: str, identifiers: set[str]) -> dict[str, str]:
    found: dict[str, set[str]] = defaultdict(set)
    for name in identifiers:
        for ablation in (False, True):
            found[printed_name(kind, name, ablation)].add(name)
    return {text: names.pop() for text, names in found.items() if len(names) == 1}


def table_of(one: Setting, dataset: str, model: str, attack: str, defense: str, keys: Sequence[str] = ()) -> str:
    """Return the target of the table of cells, narrowed to these names, "" for any, at the tables' poison ratio.

    Args:
        keys: where given, to these records alone: the same names may have others, with other options.
    """
    chosen = dict(zip(_NAMES, (dataset, model, attack, defense), strict=True))
    query = {**chosen, "ratio": f"{POISON_RATIO:g}", "recipe": one[0], "precision": one[1]}
    query |= {"keys": ".".join(key[:8] for key in keys)}
    return "#cells?" + urlencode({name: value for name, value in query.items() if value})
