"""How long the stages of a plan take on this machine, from what was measured here: no torch, nothing is run.

A stage takes its units times a rate. Units are rows trained on for `train`, texts predicted for `evaluate`, texts
looked at for what a defense does besides. A rate is known from an earlier run of the same kind of stage in the output
folder, or from a calibration (`bench.engine.calibration`); where neither is, what a defense does besides training is
assumed to take PREDICTIONS times a prediction for each text, and the estimate says how much of it is assumed.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError
from bench.core.spec import Part
from bench.engine.stages import Stage
from bench.engine.work_data import restored_dataset

PREDICTIONS = 10  # for each text that a defense looks at, where nothing was measured
STEPPING, PREDICTING, LOADING = "one row trained on", "one text predicted", "one victim loaded"  # what is calibrated
LIGHT = ("load", "poison", "trigger")  # kinds that no model takes part in
LIGHT_SECONDS = 0.5  # of such a stage, where nothing was measured
Rates = dict[str, float]  # seconds for a unit, by `rate_name`


@dataclass(frozen=True)
class Sizes:
    """Rows of the splits of a data set."""

    train: int
    dev: int
    test: int
    classes: int


@dataclass
class Estimate:
    """Seconds by kind of stage, done one after the other; how many stages are not in them; what part is assumed."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    stages: Counter = field(default_factory=Counter)
    unknown: Counter = field(default_factory=Counter)
    assumed: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of all stages with an estimate."""
        return sum(self.seconds.values())

    def wall(self, workers: int) -> float:
        """Return the seconds that pass when so many workers are never idle."""
        return self.total / workers


def rate_name(kind: str, content: Mapping[str, Any], dataset: str, device: str) -> str:
    """Return what a rate is known under: kind, data set, model and its batches, defense, precision, device."""
    model, defense = content.get("model"), content.get("defense")
    options = _options(model)
    names = [kind, dataset, _name(model), options.get("batch_size"), options.get("max_length"), _name(defense)]
    spread = [f"{options['shards']} shards"] if "shards" in options else []
    return "|".join(str(item) for item in (*names, content.get("precision"), device, *spread))


def _name(part: Any) -> str:
    return part["name"] if isinstance(part, Mapping) else part.name if isinstance(part, Part) else ""


def _options(part: Any) -> Mapping[str, Any]:
    return part["options"] if isinstance(part, Mapping) else part.options if isinstance(part, Part) else {}


def units(kind: str, model: Mapping[str, Any], sizes: Sizes, texts: str | None = None) -> float:
    """Return how much a stage has to do: rows trained on, texts predicted, texts looked at; 1 without a model.

    `texts` says which of the test texts: the clean ones, the poisoned ones, or, as None, both.
    """
    if kind in LIGHT:
        return 1.0
    if kind == "cleanse":
        return float(sizes.train)
    if kind in ("train", "repair"):
        batch = model["batch_size"]
        steps = -(-sizes.train // batch) * model["epochs"]
        return float(min(steps, model.get("max_steps") or steps) * batch)
    # The clean test split, and the poisoned versions of its rows that are not of the target label.
    poisoned = sizes.test * (sizes.classes - 1) / sizes.classes
    return {"clean": float(sizes.test), "poisoned": poisoned}.get(texts or "", sizes.test + poisoned)


class Sized:
    """Reads each data set of a plan once; None for one that is not here."""

    def __init__(self, data_dir: Path | None) -> None:
        self.data_dir = data_dir
        self._found: dict[str, Sizes | None] = {}

    def of(self, stage: Stage) -> Sizes | None:
        """Return the sizes of the data set that a stage is made from, its limit heeded."""
        load = stage
        while load.kind != "load":
            load = load.parents["load"] if "load" in load.parents else next(iter(load.parents.values()))
        part, limit = load.content["dataset"], load.content["limit"]
        if part.pinned not in self._found:
            self._found[part.pinned] = self._read(part)
        found = self._found[part.pinned]
        if found is None or limit is None:
            return found
        return Sizes(min(limit, found.train), found.dev, found.test, found.classes)

    def _read(self, part: Part) -> Sizes | None:
        from bench.data import load_dataset

        try:
            data = load_dataset(restored_dataset(part.payload()), self.data_dir)
        except BenchError:
            return None
        return Sizes(len(data.train), len(data.dev), len(data.test), len(data.classes))


def dataset_of(stage: Stage) -> str:
    """Return the name of the data set that a stage is made from."""
    while stage.kind != "load":
        stage = stage.parents["load"] if "load" in stage.parents else next(iter(stage.parents.values()))
    return stage.content["dataset"].name


def model_of(stage: Stage) -> Part | None:
    """Return the model that a stage works with: its own, or that of the victim that it was given."""
    if "model" in stage.content:
        return stage.content["model"]
    return model_of(stage.parents["victim"]) if "victim" in stage.parents else None


def estimate(stages: Iterable[Stage], rates: Mapping[str, float], sized: Sized, device: str) -> Estimate:
    """Return how long the stages take by rates that were measured."""
    found = Estimate()
    for stage in stages:
        found.stages[stage.kind] += 1
        seconds, assumed = _seconds(stage, rates, sized, device)
        if seconds is None:
            found.unknown[stage.kind] += 1
            continue
        found.seconds[stage.kind] += seconds
        found.assumed += seconds if assumed else 0.0
    return found


def _seconds(stage: Stage, rates: Mapping[str, float], sized: Sized, device: str) -> tuple[float | None, bool]:
    """Return the seconds of a stage, None where they cannot be told, and whether they are assumed."""
    model = model_of(stage)
    content = {**stage.content, **({"model": model} if model is not None else {})}
    known = rates.get(rate_name(stage.kind, content, dataset_of(stage), device))
    if stage.kind in LIGHT:
        return (LIGHT_SECONDS, True) if known is None else (known, False)
    sizes = sized.of(stage)
    if sizes is None:
        return None, False
    count = units(stage.kind, _options(model), sizes, content.get("texts"))
    if known is not None:
        return known * count, False
    calibrated = {kind: rates.get(rate_name(kind, content, dataset_of(stage), device)) for kind in (STEPPING,)}
    plain = {"model": model, "precision": content.get("precision", "fp32")}
    for kind in (PREDICTING, LOADING):
        calibrated[kind] = rates.get(rate_name(kind, plain, dataset_of(stage), device))
    predicting, loading, stepping = (calibrated[kind] for kind in (PREDICTING, LOADING, STEPPING))
    if predicting is None or loading is None or (stage.kind == "train" and stepping is None):
        return None, False
    if stage.kind == "train":
        # Half of the clean dev rows choose the checkpoint, after each epoch unless the model says otherwise.
        options = _options(model)
        looks = options.get("evaluations") or options["epochs"]
        return loading + stepping * count + predicting * looks * sizes.dev / 2, False
    if stage.kind == "evaluate":
        return loading + predicting * count, False
    return loading + predicting * PREDICTIONS * count, True


def rates_of_runs(out: Path, device: str) -> Rates:
    """Return the median seconds for a unit of the stages that stand in an output folder, by `rate_name`."""
    manifests = {path.parent.name: _json(path) for path in (out / "store").glob("??/*/manifest.json")}
    seen: dict[str, list[float]] = defaultdict(list)
    for own, manifest in manifests.items():
        if manifest is None or manifest["device"].partition(":")[0] != device.partition(":")[0]:
            continue
        load = (own, manifest) if manifest["kind"] == "load" else _ancestor(manifest, "load", manifests)
        if load is None:
            continue
        key, loaded = load
        meta = _json(out / "store" / key[:2] / key / "meta.json")
        if meta is None:
            continue
        model = _model_of(manifest, manifests)
        content = {**manifest["content"], **({"model": model} if model else {})}
        sizes = Sizes(meta["train"], meta["dev"], meta["test"], meta["classes"])
        name = rate_name(manifest["kind"], content, loaded["content"]["dataset"]["name"], device)
        count = units(manifest["kind"], _options(model), sizes, content.get("texts"))
        seen[name].append(manifest["seconds"] / count)
    return {name: statistics.median(values) for name, values in seen.items()}


def _ancestor(
    manifest: Mapping[str, Any], kind: str, manifests: Mapping[str, Any]
) -> tuple[str, Mapping[str, Any]] | None:
    for key in manifest["parents"].values():
        above = manifests.get(key)
        if above is not None:
            found = (key, above) if above["kind"] == kind else _ancestor(above, kind, manifests)
            if found is not None:
                return found
    return None


def _model_of(manifest: Mapping[str, Any], manifests: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if "model" in manifest["content"]:
        return manifest["content"]["model"]
    above = manifests.get(manifest["parents"].get("victim", ""))
    return _model_of(above, manifests) if above is not None else None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
