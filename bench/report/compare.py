"""Comparing two runs or two records: what changed, with paired tests over stored predictions and over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from bench.core.errors import BenchError, RequestError
from bench.core.metrics import with_flags
from bench.core.paired import mcnemar, sign_flip
from bench.engine.artifacts import read_arrays
from bench.engine.store import Store
from bench.report.records import PLUGINS, Record, canonical, metric
from bench.report.references import Reference

METRICS = ("cacc", "asr", "asr_floor", "frr", "far")
TESTED = ("cacc", "asr")


@dataclass(frozen=True)
class Hits:
    """Per test example of a cell: right on clean rows, taken for the target on poisoned ones; and what they are."""

    clean: np.ndarray  # bool [n_test]
    poisoned: np.ndarray  # bool [n_poisoned]
    labels: np.ndarray
    rows: np.ndarray  # of each poisoned example; -1 where the published files do not tell
    load: str
    trigger: str


def compare_references(first: Reference, second: Reference) -> dict[str, Any]:
    """Return what differs between the records of two references, as JSON values; rates are fractions.

    Cells are matched by everything but the axes that a reference fixes; a single record is matched with a single one
    whatever differs. `difference` is the second minus the first.

    Raises:
        RequestError: no cell is matched, or two cells of one side are alike.
    """
    varied = first.fixed | second.fixed
    left, right = _by_match(first, varied), _by_match(second, varied)
    if len(first.records) == len(second.records) == 1:
        left, right = {"": first.records[0]}, {"": second.records[0]}
    common = sorted((match for match in left if match in right), key=lambda match: _place(left[match]))
    if not common:
        raise RequestError(
            f"No cell of {first.text!r} is in {second.text!r}.",
            "Fix the axis in which they differ: RUN#defense=lora RUN#defense=musclelora.",
        )
    pairs = [(left[match], right[match]) for match in common]
    return {
        "first": first.text,
        "second": second.text,
        "only_first": [title(record) for match, record in left.items() if match not in right],
        "only_second": [title(record) for match, record in right.items() if match not in left],
        "cells": [_compared(one, other, first, second) for one, other in pairs],
        "seeds": _over_seeds(pairs),
    }


def title(record: Record) -> str:
    """Return the cell of a record in one line of words."""
    cell = record["cell"]
    names = " / ".join(cell[axis]["name"] for axis in PLUGINS)
    return f"{names} @ {cell['poison_ratio']:g} ({cell['label_rule']}), seed {cell['seed']}"


def _place(record: Record) -> tuple[Any, ...]:
    """Return by what cells are put in order: names, ratio, seed."""
    cell = record["cell"]
    return (*(cell[axis]["name"] for axis in PLUGINS), cell["poison_ratio"], cell["seed"], record["key"])


def _by_match(reference: Reference, varied: Iterable[str]) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for record in reference.records:
        match = canonical({name: value for name, value in record["cell"].items() if name not in varied})
        if match in found:
            apart = ", ".join(differences(found[match]["cell"], record["cell"])) or ", ".join(sorted(varied))
            pair = " and ".join(each["key"][:12] for each in (found[match], record))
            raise RequestError(
                f"{reference.text!r} holds two cells that differ only in {apart}: {pair}.",
                "Name one of them by its key: RUN#KEY.",
            )
        found[match] = record
    return found


def _compared(one: Record, other: Record, first: Reference, second: Reference) -> dict[str, Any]:
    content: dict[str, Any] = {
        "title": title(one),
        "first": one["key"],
        "second": other["key"],
        "status": [one["status"], other["status"]],
        "differs": differences(one["cell"], other["cell"]),
        "metrics": {name: _change(one, other, name) for name in METRICS},
        "tests": {},
        "no_test": "",
    }
    if "failed" in content["status"]:
        content["no_test"] = "a cell failed"
        return content
    try:
        hits, others = _hits(one, first), _hits(other, second)
    except BenchError as error:
        content["no_test"] = error.problem
        return content
    reasons = []
    for name, pair, reason in (
        ("cacc", (hits.clean, others.clean), _unlike_clean(hits, others)),
        ("asr", (hits.poisoned, others.poisoned), _unlike_poisoned(one, other, hits, others)),
    ):
        if reason:
            reasons.append(f"{name.upper()}: {reason}")
        else:
            content["tests"][name] = _mcnemar(*pair)
    content["no_test"] = "; ".join(reasons)
    return content


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the leaves in which two JSON values differ, by dotted path: [value here, value there]."""
    left, right = dict(_leaves(one)), dict(_leaves(other))
    paths = sorted({*left, *right})
    return {path: [left.get(path), right.get(path)] for path in paths if left.get(path) != right.get(path)}


def _leaves(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else str(name))
    else:
        yield path, value


def _change(one: Record, other: Record, name: str) -> dict[str, float | None]:
    values = metric(one, name), metric(other, name)
    difference = None if None in values else values[1] - values[0]
    return {"first": values[0], "second": values[1], "difference": difference}


def _mcnemar(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    first_only, second_only = int(np.sum(one & ~other)), int(np.sum(~one & other))
    p = mcnemar(first_only, second_only)
    return {"n": len(one), "first_only": first_only, "second_only": second_only, "p": p}


def _hits(record: Record, reference: Reference) -> Hits:
    """Return the hits of a record under the rule `reject`, from its stored predictions and flags.

    Raises:
        BenchError: the predictions are not here.
    """
    if reference.store is None:
        raise RequestError("the predictions are not beside these records (published ones have none)")
    store, stages = Store(reference.store, read_only=True), _stages(record)
    if "evaluate" not in stages:
        raise RequestError("the record names no stages")
    found = _arrays(store.open(stages["evaluate"][-1]) / "predictions.npz", ("clean", "poisoned", "labels", "rows"))
    flags = [_arrays(store.open(key) / "flags.npz", ("clean", "poisoned")) for key in stages.get("detect", ())]
    predicted = {part: found[part].argmax(axis=1) for part in ("clean", "poisoned")}
    for part in predicted:
        for each in flags:
            predicted[part] = with_flags(predicted[part], each[part], "reject", 0)
    return Hits(
        clean=predicted["clean"] == found["labels"],
        poisoned=predicted["poisoned"] == record["cell"]["target_label"],
        labels=found["labels"],
        rows=found["rows"],
        load=stages["load"][-1],
        trigger=stages["trigger"][-1],
    )


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the arrays of a file of numbers; pickled ones are never loaded."""
    try:
        found = read_arrays(path)
        return {name: found[name] for name in names}
    except (OSError, ValueError, KeyError, BadZipFile):
        raise RequestError(f"the stored {path.name} cannot be read") from None


def _stages(record: Record) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    stages = record.get("stages") or []
    for kind, key in stages.items() if isinstance(stages, Mapping) else stages:
        found.setdefault(kind, []).append(key)
    return found


def _unlike_clean(one: Hits, other: Hits) -> str:
    return "" if one.load == other.load else "the test rows are not the same"


def _unlike_poisoned(one: Record, other: Record, hits: Hits, others: Hits) -> str:
    if one["cell"]["target_label"] != other["cell"]["target_label"]:
        return "the target labels differ"
    if hits.trigger == others.trigger:
        return ""
    placed = hits.load == others.load and np.array_equal(hits.rows, others.rows) and bool((hits.rows >= 0).all())
    return "" if placed else "the poisoned rows do not come from the same test rows"


def _over_seeds(pairs: Sequence[tuple[Record, Record]]) -> list[dict[str, Any]]:
    """Return a paired test over seeds for every group of cells that differ in the seed alone."""
    groups: dict[str, list[tuple[Record, Record]]] = {}
    for one, other in pairs:
        if one["status"] == other["status"] == "ok" and one["cell"]["seed"] == other["cell"]["seed"]:
            cells = [{**record["cell"], "seed": None} for record in (one, other)]
            groups.setdefault(canonical(cells), []).append((one, other))
    return [_group(group) for group in groups.values() if len(group) > 1]


def _group(group: list[tuple[Record, Record]]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "title": title(group[0][0]).rpartition(",")[0],
        "seeds": sorted(one["cell"]["seed"] for one, _ in group),
    }
    for name in TESTED:
        changes = [_change(one, other, name)["difference"] for one, other in group]
        if None not in changes:
            content[name] = {"mean_difference": float(np.mean(changes)), "p": sign_flip(changes)}
    return content
