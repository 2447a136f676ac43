"""Records as a run would leave them, built in memory from the few values that a test is about."""

from __future__ import annotations

import hashlib
import json
from typing import Any

DATASETS = {
    "sst2": {"classes": 2, "train": 6920, "dev": 872, "test": 1821, "mean_words": 19.3, "leaks": None},
    "hsol": {
        "classes": 2,
        "train": 5823,
        "dev": 2485,
        "test": 2485,
        "mean_words": 13.4,
        "leaks": "the published dev split is the test split.",
    },
    "agnews": {"classes": 4, "train": 20000, "dev": 2222, "test": 7600, "mean_words": 38.4, "leaks": None},
}
OTHER_DATASET = {"classes": 2, "train": 2000, "dev": 200, "test": 500, "mean_words": 18.0, "leaks": None}
ENVIRONMENT = {
    "python": "3.11.7",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "peft": "0.21.2",
    "bench": "0.1.0",
    "commit": "0123abc",
    "device": "cpu",
}
KNOWLEDGE = {"musclelora": 96, "ga": 96, "lora+ga": 96}
PARAMETERS = {"vanilla": 109_483_778, "lora": 294_912, "musclelora": 313_344}


def measured(counts: tuple[int, int] | None) -> dict[str, Any] | None:
    """Return the metric of a record for (hits, n), or None."""
    return None if counts is None else {"value": counts[0] / counts[1], "hits": counts[0], "n": counts[1]}


def record(
    dataset: str = "sst2",
    attack: str = "badnets",
    defense: str = "lora",
    model: str = "bert-base",
    seed: int = 0,
    ratio: float = 0.1,
    cacc: tuple[int, int] | None = (1600, 1821),
    asr: tuple[int, int] | None = (600, 912),
    *,
    floor: tuple[int, int] | None = (100, 912),
    flip: tuple[tuple[int, int], tuple[int, int]] | None = None,
    trained: bool = True,
    recipe: str = "released",
    precision: str = "fp32",
    rule: str | None = None,
    target: int = 1,
    limit: int | None = None,
    options: dict[str, dict[str, Any]] | None = None,
    info: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
    selection: int = 776,
    oracle: bool = False,
    train_seconds: float = 100.0,
    detection: tuple[tuple[int, int], tuple[int, int], float] | None = None,
    decided: list[dict[str, Any]] | None = None,
    method: int | None = None,
    error: tuple[str, str, str] | None = None,
) -> dict[str, Any]:
    """Return one whole record; counts are (hits, n).

    Args:
        flip: (CACC, ASR) counts under the flip rule, for detectors.
        detection: (FRR counts, FAR counts, AUROC) of a detector.
        decided: what the repairs chose.
        method: clean rows of the method, where not the defense's usual number.
        options: plugin axis ("dataset", "attack", "model", "defense") -> its options.
        error: (type, message, remedy) makes the record a failed one.
    """
    options = options or {}
    usual = "clean" if attack == "badnets" and recipe == "released" and not dataset.startswith("lingspam") else "mix"
    parts = {"dataset": dataset, "attack": attack, "model": model, "defense": defense}
    cell = {
        **{axis: {"name": name, "options": options.get(axis, {})} for axis, name in parts.items()},
        "poison_ratio": ratio,
        "label_rule": rule or usual,
        "target_label": target,
        "seed": seed,
        "recipe": recipe,
        "precision": precision,
        "limit": limit,
    }
    info = info or DATASETS.get(dataset, OTHER_DATASET)
    metrics = {"cacc": measured(cacc), "asr": measured(asr), "asr_floor": measured(floor)}
    flipped = {"cacc": measured(flip[0]), "asr": measured(flip[1]), "asr_floor": measured(floor)} if flip else None
    failed = error is not None
    rates = {"frr": None, "far": None, "auroc": None}
    if detection is not None:
        rates = {"frr": measured(detection[0]), "far": measured(detection[1]), "auroc": detection[2]}
    return {
        "schema_version": 1,
        "key": hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest()[:24],
        "status": "failed" if failed else "ok",
        "cell": cell,
        "dataset_info": info,
        "metrics": {**(dict.fromkeys(metrics) if failed else metrics), **rates},
        "metrics_flip": flipped,
        "trained": None if failed else trained,
        "poison": {"rule": cell["label_rule"], "rows": int(ratio * info["train"]), "positions": "0f0f", "dropped": 0},
        "decided": decided or [],
        "knowledge": {
            "method": KNOWLEDGE.get(defense, 0) if method is None else method,
            "selection": selection,
            "calibration": 0,
        },
        "cost": {
            "train_seconds": train_seconds,
            "total_seconds": train_seconds + 20.0,
            "trainable_parameters": PARAMETERS.get(defense, 1000),
            "peak_memory_mb": 900.0,
        },
        "environment": environment or ENVIRONMENT,
        "oracle": oracle,
        "asr_floor_missing": None if failed or floor else "no row map",
        "error": dict(zip(("type", "message", "remedy"), error, strict=True), traceback="", stage="load")
        if error
        else None,
    }


DEFENSES = ("vanilla", "lora", "adapter", "prefix", "musclelora", "ga", "mslr", "lora+ga", "onion", "strip", "bki")
ATTACKS = ("badnets", "addsent", "hiddenkiller", "stylebkd")


def board_records() -> list[dict[str, Any]]:
    """Return the records behind the golden pages: two models of the paper, one other, controls, gaps and oddities."""
    records = []
    for place, defense in enumerate(DEFENSES):
        for column, attack in enumerate(ATTACKS):
            for seed in (0, 1, 2):
                hits = 900 - 70 * place - 11 * column - 5 * seed
                flip = ((1500, 1821), (300, 912)) if defense == "strip" else None
                rates = ((18, 1821), (456, 912), 0.75 + seed / 100) if defense == "strip" else None
                counts = {"cacc": (1660 - 9 * place - seed, 1821), "asr": (hits, 912), "flip": flip, "detection": rates}
                records.append(record(attack=attack, defense=defense, seed=seed, **counts))
            larger = {"cacc": (1700 - 9 * place, 1821), "asr": (880 - 60 * place, 912)}
            records.append(record(attack=attack, defense=defense, model="bert-large", **larger))
    records = [one for one in records if not _is(one, "bert-base", "addsent", "lora", 2)]  # two of three seeds
    records = [one for one in records if not _is(one, "bert-base", "stylebkd", "prefix", None)]  # missing
    records.append(record(attack="stylebkd", defense="prefix", seed=0, error=_NO_BANK))
    for defense, hits in (("vanilla", 880), ("lora", 300), ("musclelora", 90)):
        small = {"model": "minilm-l6", "dataset": "sst2-2k", "defense": defense}
        for attack in ATTACKS:
            asr = (hits + len(attack), 912)
            trained = (defense, attack) != ("musclelora", "badnets")
            records.append(record(attack=attack, **small, asr=asr, trained=trained))
            records.append(record(attack=attack, **small, ratio=0, cacc=(1600 + hits // 10, 1821), asr=(60, 912)))
    hsol = {"dataset": "hsol", "cacc": (2290, 2485), "floor": None}
    records += [record(**hsol, defense=name, asr=(hits, 1242)) for name, hits in (("vanilla", 1200), ("lora", 300))]
    bf16 = {"precision": "bf16", "attack": "addsent"}
    records += [record(**bf16, defense=name, asr=(hits, 912)) for name, hits in (("vanilla", 900), ("musclelora", 50))]
    records += repairs()
    records.append(record(limit=64, seed=7))
    records.append(record(ratio=0.2, seed=7))
    records.append(record(dataset="lingspam", attack="stylebkd", defense="lora", error=_NO_BANK))
    return records


def repairs() -> list[dict[str, Any]]:
    """Return the rows of the Fine-mixing board, and rows of an equal budget of 96, on one small model."""
    small = {"model": "minilm-l6", "dataset": "sst2-2k"}
    records = []
    for place, defense in enumerate(("fine-tuning", "fine-pruning", "fine-mixing", "e-pur>fine-mixing")):
        for seed in (0, 1):
            best = 0.8 if seed == 0 else 0.7  # at seed 1 no candidate reaches what is needed
            tried = {"rho": 0.3 + 0.2 * seed, "needed": 0.75, "accuracies": {"0.1": 0.6, "0.3": best}}
            chosen = [tried] if defense.endswith("fine-mixing") else None
            counts = {"cacc": (1500 - place, 1821), "asr": (700 - 90 * place, 912), "method": 64}
            records.append(record(**small, defense=defense, seed=seed, decided=chosen, **counts))
    for defense, hits in (("fine-mixing", 200), ("musclelora", 95)):
        fixed = {"defense": {"clean_budget": 96}}
        counts = {"cacc": (1400, 1821), "asr": (hits, 912), "method": 48 if defense == "fine-mixing" else 96}
        records.append(record(**small, defense=defense, options=fixed, **counts))
    return records


_NO_BANK = ("CellError", "There is no published StyleBkd training bank for lingspam.", "Generate a bank.")


def _is(one: dict[str, Any], model: str, attack: str, defense: str, seed: int | None) -> bool:
    cell = one["cell"]
    found = (cell["model"]["name"], cell["attack"]["name"], cell["defense"]["name"])
    return found == (model, attack, defense) and seed in (None, cell["seed"])
