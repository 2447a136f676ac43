"""Records as others read them: flat rows, a pandas frame, a `datasets` data set, Every Eval Ever files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bench.core.metrics import wilson
from bench.report.records import AXES, PLUGINS, Record

RATES = ("cacc", "asr", "asr_floor", "frr", "far")
COSTS = ("train_seconds", "total_seconds", "peak_memory_mb", "trainable_parameters", "samples_per_second")
USES = ("method", "selection", "calibration")
PLACES = ("bench", "python", "torch", "transformers", "peft", "device", "machine", "commit")
INTEGERS = {"target_label", "seed", "limit", "trainable_parameters", "poisoned_rows"}
SCHEMA = "0.3.0"  # of Every Eval Ever: github.com/evaleval/every_eval_ever, schemas/eval.schema.json
SUITE = "openbackdoor-bench"
WORDS = {
    "cacc": ("Clean accuracy", "accuracy", "Share of clean test rows classified rightly", False),
    "asr": (
        "Attack success rate",
        "attack_success_rate",
        "Share of poisoned non-target rows taken for the target",
        True,
    ),
    "asr_floor": ("Attack success floor", "attack_success_floor", "The same share without the trigger", True),
    "frr": ("False rejection rate", "false_rejection_rate", "Share of clean test rows that the defense flags", True),
    "far": ("False acceptance rate", "false_acceptance_rate", "Share of poisoned rows that the defense passes", True),
}


def flat(record: Record) -> dict[str, Any]:
    """Return a record as one row of numbers, texts and None; rates are fractions, options are JSON texts.

    Every row has the same columns in the same order. `flip_*` are the rates under the rule behind the paper's tables.
    """
    cell, metrics, flip = record["cell"], record.get("metrics") or {}, record.get("metrics_flip") or {}
    row: dict[str, Any] = {"key": record["key"], "status": record["status"]}
    for axis in PLUGINS:
        row[axis] = cell[axis]["name"]
        row[f"{axis}_options"] = json.dumps(cell[axis].get("options", {}), sort_keys=True, ensure_ascii=False)
    row |= {axis: cell[axis] for axis in AXES}
    row |= {"analysis": None, "analysis_options": None} | _analysis(cell)
    for name in RATES:
        rate = metrics.get(name) or {}
        row |= {name: rate.get("value"), f"{name}_hits": rate.get("hits"), f"{name}_n": rate.get("n")}
    row["auroc"] = metrics.get("auroc")
    row |= {f"flip_{name}": (flip.get(name) or {}).get("value") for name in ("cacc", "asr")}
    row |= {"trained": record.get("trained"), "oracle": record.get("oracle")}
    row["poisoned_rows"] = (record.get("poison") or {}).get("rows")
    row |= {f"clean_{use}": (record.get("knowledge") or {}).get(use) for use in USES}
    row |= {name: (record.get("cost") or {}).get(name) for name in COSTS}
    row |= {name: (record.get("environment") or {}).get(name) for name in PLACES}
    row["error"] = (record.get("error") or {}).get("message")
    return row


def columns() -> dict[str, str]:
    """Return the columns of `flat` and the type of each: string, bool, int64 or float64; any of them may be null."""
    kinds = {"key": "string", "status": "string"}
    for axis in PLUGINS:
        kinds |= {axis: "string", f"{axis}_options": "string"}
    texts = {"label_rule", "recipe", "precision"}
    kinds |= {axis: "string" if axis in texts else "int64" if axis in INTEGERS else "float64" for axis in AXES}
    kinds |= {"analysis": "string", "analysis_options": "string"}
    for name in RATES:
        kinds |= {name: "float64", f"{name}_hits": "int64", f"{name}_n": "int64"}
    kinds |= {"auroc": "float64", "flip_cacc": "float64", "flip_asr": "float64", "trained": "bool", "oracle": "bool"}
    kinds |= {"poisoned_rows": "int64", **{f"clean_{use}": "int64" for use in USES}}
    kinds |= {name: "int64" if name in INTEGERS else "float64" for name in COSTS}
    return {**kinds, **{name: "string" for name in PLACES}, "error": "string"}


def to_pandas(records: Iterable[Record]) -> Any:
    """Return a `pandas.DataFrame` with a row per record, in nullable types: a missing number is NA, not 0."""
    import pandas

    kinds = {"string": "string", "bool": "boolean", "int64": "Int64", "float64": "Float64"}
    rows = [flat(record) for record in records]
    return pandas.DataFrame(
        {name: pandas.array([row[name] for row in rows], dtype=kinds[kind]) for name, kind in columns().items()}
    )


def to_dataset(records: Iterable[Record]) -> Any:
    """Return a `datasets.Dataset` with a row per record."""
    import datasets

    rows = [flat(record) for record in records]
    features = datasets.Features({name: datasets.Value(kind) for name, kind in columns().items()})
    return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in columns()}, features=features)


def to_every_eval_ever(records: Iterable[Record], retrieved: int) -> dict[str, dict[str, Any]]:
    """Return the successful records as Every Eval Ever logs (schema 0.3.0), by the path that its data store wants.

    One log is one cell: a model, trained and evaluated under one attack and one defense. `retrieved` is Unix time in
    seconds. What the schema has no field for (attack, defense, options, counts) stands in `additional_details` as text.
    """
    done = [record for record in records if record["status"] == "ok"]
    return {_path(record): _log(record, retrieved) for record in done}


def _path(record: Record) -> str:
    developer, _, name = _model_id(record).partition("/")
    digits = hashlib.sha256(record["key"].encode()).hexdigest()
    name_of_file = "-".join((digits[:8], digits[8:12], f"4{digits[13:16]}", f"8{digits[17:20]}", digits[20:32]))
    return f"data/{SUITE}/{_safe(developer)}/{_safe(name)}/{name_of_file}.json"


def _safe(name: str) -> str:
    """Return a name as one part of a path: nothing in it leads elsewhere."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in name)
    return kept.lstrip(".") or "unknown"


def _model_id(record: Record) -> str:
    model = record["cell"]["model"]
    hub = (model.get("options") or {}).get("hub")
    name = hub if isinstance(hub, str) and "/" in hub else f"local/{model['name']}"
    return name


def _log(record: Record, retrieved: int) -> dict[str, Any]:
    cell, model = record["cell"], record["cell"]["model"]
    identifier = _model_id(record)
    details = {
        "deployment_type": "self_deployed",
        "model_availability": "open_weights",
        "intentionally_backdoored": "true" if cell["poison_ratio"] else "false",
        "model_options": _text(model.get("options", {})),
    }
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{SUITE}-{record['key']}/{identifier}/{retrieved}",
        "retrieved_timestamp": str(retrieved),
        "source_metadata": {
            "source_name": SUITE,
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "third_party",
        },
        "eval_library": {"name": SUITE, "version": _version(record), "additional_details": _place(record)},
        "model_info": {"name": model["name"], "id": identifier, "additional_details": details},
        "evaluation_results": [
            _result(record, name)
            for name in RATES
            if ((record.get("metrics") or {}).get(name) or {}).get("value") is not None
        ],
    }


def _result(record: Record, name: str) -> dict[str, Any]:
    cell, rate = record["cell"], record["metrics"][name]
    title, kind, about, lower = WORDS[name]
    low, high = wilson(rate["hits"], rate["n"])
    where = f"{cell['dataset']['name']} / {cell['attack']['name']} / {cell['defense']['name']}"
    return {
        "evaluation_result_id": f"{record['key']}.{name}",
        "evaluation_name": where,
        "source_data": {
            "dataset_name": cell["dataset"]["name"],
            "source_type": "other",
            "additional_details": {"split": "test", "options": _text(cell["dataset"].get("options", {}))},
        },
        "metric_config": {
            "evaluation_description": f"{about}.",
            "metric_id": "accuracy" if name == "cacc" else f"{SUITE}.{name}",
            "metric_name": title,
            "metric_kind": kind,
            "metric_unit": "proportion",
            "lower_is_better": lower,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
        },
        "score_details": {
            "score": rate["value"],
            "details": {"hits": str(rate["hits"]), "n": str(rate["n"]), "trained": _text(record.get("trained"))},
            "uncertainty": {
                "confidence_interval": {"lower": low, "upper": high, "confidence_level": 0.95, "method": "wilson"},
                "num_samples": rate["n"],
            },
        },
        "generation_config": {"additional_details": _setting(cell)},
    }


def _setting(cell: Mapping[str, Any]) -> dict[str, str]:
    parts = {axis: cell[axis]["name"] for axis in ("attack", "defense")}
    options = {f"{axis}_options": _text(cell[axis].get("options", {})) for axis in ("attack", "defense")}
    return {**parts, **options, **{axis: _text(cell[axis]) for axis in AXES}, **_analysis(cell)}


def _analysis(cell: Mapping[str, Any]) -> dict[str, str]:
    """Return what watches the cell's training, which is another cell than the same one unwatched; {} for nothing."""
    found = cell.get("analysis")
    return {"analysis": found["name"], "analysis_options": _text(found.get("options", {}))} if found else {}


def _place(record: Record) -> dict[str, str]:
    environment = record.get("environment") or {}
    return {name: str(environment[name]) for name in PLACES if environment.get(name) is not None}


def _version(record: Record) -> str:
    said = (record.get("environment") or {}).get("bench")
    if said:
        return str(said)
    try:
        return version(SUITE)
    except PackageNotFoundError:
        return "unknown"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
