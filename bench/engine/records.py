"""The record of a cell: its whole spec, its metrics with counts, its cost, or why it failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.core import metrics
from bench.core.errors import BenchError
from bench.core.spec import Cell
from bench.engine.artifacts import read_arrays, read_meta
from bench.engine.chain import links_of
from bench.engine.record_files import SCHEMA_VERSION
from bench.engine.stages import CellStages, with_ancestors
from bench.engine.store import LostError, Store


def done_record(cell: Cell, stages: CellStages, store: Store, environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a cell whose stages are all in the store.

    Raises:
        LostError: one of them is not, or not whole.
    """
    store = _ReadOnce(store.root)
    predictions = read_arrays(store.file(stages.evaluate.key, "predictions.npz"))
    flags = _flags(stages, store)
    load, poison = _meta(store, stages.load), _meta(store, stages.poison)
    return {
        **_head(cell, stages, environment),
        "status": "ok",
        **_measured(cell, predictions, flags, load["classes"], _meta(store, stages.trigger)),
        "poison": poison,
        "cleansed": _cleansed(stages, store),
        "decided": _decided(stages, store),
        **_analysis(stages, store),
        "dataset_info": load,
        "knowledge": _knowledge(stages, store),
        "stand_in_rank": _training(stages, store).get("stand_in_rank"),  # None: what the defense says is what trained
        **_sharded(stages, store),
        "cost": _cost(stages, store),
        "environment": {**environment, **_versions(stages, store), **_device(stages, store)},
        "error": None,
    }


def failed_record(
    cell: Cell, stages: CellStages | None, environment: Mapping[str, Any], error: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the record of a cell that failed, with the reason and the remedy."""
    empty = {"cacc": None, "asr": None, "asr_floor": None, "frr": None, "far": None, "auroc": None}
    return {
        **_head(cell, stages, environment),
        "status": "failed",
        "metrics": empty,
        "metrics_flip": None,
        "trained": None,
        "environment": dict(environment),
        "error": dict(error),
    }


def error_of(error: BaseException, stage: str, trace: str | None = None) -> dict[str, Any]:
    """Return an error as it stands in a record, where half a character, as in the name of a file, is its escape."""
    expected = isinstance(error, BenchError)
    said = {
        "type": type(error).__name__,
        "message": error.problem if expected else str(error) or type(error).__name__,
        "remedy": error.remedy if expected else "",
        "stage": stage,
        "traceback": None if expected else trace,
    }
    return {name: text and text.encode("utf-8", "backslashreplace").decode("utf-8") for name, text in said.items()}


def _head(cell: Cell, stages: CellStages | None, environment: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "key": cell.key,
        "cell": cell.json(),
        **({"read_from": cell.dataset.read_from} if cell.dataset.read_from else {}),
        "oracle": any(defense.oracle for _, defense in links_of(cell.defense)),
        "stages": None if stages is None else [[stage.kind, stage.key] for stage in with_ancestors(stages.last())],
    }


def _measured(
    cell: Cell,
    predictions: Mapping[str, np.ndarray],
    flags: Mapping[str, np.ndarray] | None,
    classes: int,
    trigger: Mapping,
) -> dict[str, Any]:
    clean, poisoned = predictions["clean"].argmax(axis=1), predictions["poisoned"].argmax(axis=1)
    labels, rows = predictions["labels"], predictions["rows"]
    rules = {}
    for rule in ("reject", "flip"):
        if flags is None:
            rules[rule] = (clean, poisoned)
        elif rule == "reject" or classes == 2:
            rules[rule] = (
                metrics.with_flags(clean, flags["clean"], rule, classes),
                metrics.with_flags(poisoned, flags["poisoned"], rule, classes),
            )
    measured = {rule: _rates(pair, labels, rows, cell.target_label) for rule, pair in rules.items()}
    detection = {"frr": None, "far": None, "auroc": None}
    if flags is not None:
        everything = np.concatenate([flags["clean"], flags["poisoned"]])
        truth = np.concatenate([np.zeros(len(clean), int), np.ones(len(poisoned), int)])
        detection = {**detection, **metrics.detection_rates(everything, truth)}
        if "clean_scores" in flags:
            scores = np.concatenate([flags["clean_scores"], flags["poisoned_scores"]])
            detection["auroc"] = metrics.auroc(scores, truth)
    unknown = "the published files do not tell which test row a paraphrase belongs to"
    reason = None if trigger["placed"] else unknown
    return {
        "metrics": {**measured["reject"], **detection},
        "metrics_flip": measured.get("flip") if flags is not None else None,
        "asr_floor_missing": reason,
        # By what the cell does to clean inputs, flags included: a detector that rejects them all has no ASR either.
        "trained": metrics.trained(measured["reject"]["cacc"]["value"], labels),
    }


def _flags(stages: CellStages, store: _ReadOnce) -> dict[str, np.ndarray] | None:
    """Return the flags of the detector; of several in a chain, an example is flagged if any of them flags it."""
    found = [read_arrays(store.file(stage.key, "flags.npz")) for stage in stages.detect]
    if len(found) < 2:
        return found[0] if found else None
    return {part: np.max([flags[part] for flags in found], axis=0) for part in ("clean", "poisoned")}


def _rates(pair: tuple[np.ndarray, np.ndarray], labels: np.ndarray, rows: np.ndarray, target: int) -> dict[str, Any]:
    clean, poisoned = pair
    floor = metrics.attack_success(clean[rows[rows >= 0]], target)  # over the rows whose source is known
    return {
        "cacc": metrics.accuracy(clean, labels),
        "asr": metrics.attack_success(poisoned, target),
        "asr_floor": floor,
    }


class _ReadOnce(Store):
    """The store for the length of one record: each manifest and each meta.json is read and checked once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._manifests: dict[str, dict[str, Any]] = {}
        self._metas: dict[str, dict[str, Any]] = {}

    def manifest(self, key: str) -> dict[str, Any] | None:
        """Return the manifest of a stage as it was when first found."""
        found = self._manifests.get(key) or super().manifest(key)
        if found is not None:
            self._manifests[key] = found
        return found

    def meta(self, key: str) -> dict[str, Any]:
        """Return what a stage says of itself."""
        if key not in self._metas:
            self._metas[key] = read_meta(self.file(key, "meta.json").parent)
        return self._metas[key]


def _meta(store: _ReadOnce, stage: Any) -> dict[str, Any]:
    return store.meta(stage.key)


def _decided(stages: CellStages, store: _ReadOnce) -> list[dict[str, Any]]:
    """Return what the repairs of this cell decided on their own."""
    return [
        note
        for stage in with_ancestors(stages.last())
        if stage.kind == "repair"
        for note in _meta(store, stage)["decided"]
    ]


def _analysis(stages: CellStages, store: _ReadOnce) -> dict[str, Any]:
    """Return what looked on at the training of this cell found, nothing where nothing did."""
    found = [_meta(store, stage).get("analysis") for stage in with_ancestors([stages.victim]) if stage.kind == "train"]
    return {"analysis": found[-1]} if found[-1] is not None else {}


def _sharded(stages: CellStages, store: _ReadOnce) -> dict[str, int]:
    """Return over how many devices the victim's training was spread, nothing where it was on one."""
    found = _training(stages, store).get("shards")
    return {} if found is None else {"shards": found}


def _knowledge(stages: CellStages, store: _ReadOnce) -> dict[str, int]:
    total = {"method": 0, "selection": 0, "calibration": 0}
    end = 0  # of the rows of the pool that some stage calibrated on
    for stage in with_ancestors(stages.last()):
        if "data" in stage.parents or "victim" in stage.parents or stage.kind == "filter":
            known = _meta(store, stage).get("knowledge", {})
            # The same rows serve several stages of one cell: they are counted once, each for its closest use.
            for use in ("method", "selection"):
                total[use] = max(total[use], known.get(use, 0))
            if known.get("calibration"):
                end = max(end, max(known["method"], stage.content.get("taken", 0)) + known["calibration"])
    return {**total, "calibration": max(0, end - total["method"])}


def _cost(stages: CellStages, store: _ReadOnce) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    for stage in with_ancestors(stages.last()):
        manifest = store.manifest(stage.key)
        if manifest is None:
            raise LostError(stage.key, f"Stage {stage.key} is not in the store.")
        seconds[stage.kind] = seconds.get(stage.kind, 0.0) + manifest["seconds"]
    log = _training(stages, store)["log"]
    return {
        "train_seconds": seconds["train"],
        "total_seconds": sum(seconds.values()),
        "seconds": seconds,
        "trainable_parameters": log["trainable_parameters"],
        "peak_memory_mb": log["peak_memory_mb"],
        "samples_per_second": log["samples_per_second"],
        "selection_accuracies": log["selection"],
        "steps": log["steps"],
        "batches_cut": max(_meta(store, stage).get("batches_cut", 1) for stage in with_ancestors(stages.last())),
    }


def _training(stages: CellStages, store: _ReadOnce) -> dict[str, Any]:
    victim = stages.victim
    while victim.kind != "train":
        victim = victim.parents["victim"]
    return _meta(store, victim)


def _versions(stages: CellStages, store: _ReadOnce) -> dict[str, str]:
    found: dict[str, str] = {}
    for stage in with_ancestors(stages.last()):
        found |= _meta(store, stage).get("versions", {})
    return found


def _device(stages: CellStages, store: _ReadOnce) -> dict[str, str]:
    manifest = store.manifest(stages.evaluate.key)
    return {"device": manifest["device"] if manifest else "?"}


def _cleansed(stages: CellStages, store: _ReadOnce) -> dict[str, int] | None:
    """Return how many rows the cleansers of this cell removed together, None where it has none."""
    found = [_meta(store, stage) for stage in with_ancestors(stages.last()) if stage.kind == "cleanse"]
    return {count: sum(meta[count] for meta in found) for count in ("removed", "removed_poisoned")} if found else None
