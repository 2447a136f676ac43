"""The stages that hold no model: loading a data set, poisoning its training rows, triggering its test rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError, DataError
from bench.core.options import build
from bench.core.seeding import derived_seed, digest
from bench.engine import plugins, published
from bench.engine.artifacts import write_examples
from bench.engine.returned import poison_of
from bench.engine.work import Job, Workers


def _load(job: Job) -> dict[str, Any]:
    """Write the clean splits, and what a reader should know of the data set."""
    from bench.data import about, leaks_of, load_dataset

    spec = restored_dataset(job.content["dataset"])
    data = load_dataset(spec, job.machine.data_dir)
    limit = job.content["limit"]
    for split in ("train", "dev", "test"):
        examples, rows = data.split(split), data.rows[split]
        if split == "train" and limit is not None:
            examples, rows = examples[:limit], rows[:limit]
        write_examples(job.aside / f"{split}.jsonl", examples, rows)
    words = [len(example.text.split()) for example in data.train]
    return {
        "dataset": spec.name,
        "classes": len(data.classes),
        "class_names": list(data.classes),
        "train": len(data.train) if limit is None else min(limit, len(data.train)),
        "dev": len(data.dev),
        "test": len(data.test),
        "mean_words": sum(words) / len(words),
        # Of the published sets the leaks are known, and said; nobody has looked through the user's own.
        "leaks": about(spec.name).leaks or (leaks_of(data) if spec.format == "custom" else "") or None,
        "files": dict(data.files),
    }


def restored_dataset(content: Mapping[str, Any]) -> Any:
    """Return the data set spec that a part of a payload stands for.

    Raises:
        DataError: a custom data set whose rows are no longer those that were planned.
    """
    from bench.data.spec import DatasetSpec

    if content["place"]:
        return _restored_custom(content)
    return build(DatasetSpec, {**content["options"], "pins": content["pins"]}, "dataset", content["name"])


def _restored_custom(content: Mapping[str, Any]) -> Any:
    from bench.data import dataset_spec

    place = content["place"]
    spec = dataset_spec(place["source"], place["options"])
    if spec.identity() != content["options"]:
        raise DataError(f"Dataset {place['source']} has changed since the run began.", "Run the same command again.")
    return spec


def _attacker(job: Job, ratio: float = 0.0, rule: str = "mix") -> Any:
    """Return the attack bound to this cell's target and to a seed that no other axis touches."""
    from bench.data import load_bank
    from bench.data.generated import load_generated

    content = job.content
    attack = plugins.attacker(content["attack"])
    dataset = job.parent_payloads["load"]["content"]["dataset"]
    bank = None
    if attack.bank is not None:
        asked, folder, target = restored_dataset(dataset), job.machine.data_dir, content["target_label"]
        if attack.bank_file is None:
            bank = load_bank(asked, attack.bank, folder, target)
        else:
            bank = load_generated(asked, Path(attack.bank_file), folder, target, attack.bank_made_by)
    drawn_for = [dataset["name"], content["attack"]["name"], content["attack"]["options"]]
    who = digest(drawn_for, dataset["options"], content["target_label"], content["seed"])
    bound = attack.bound(
        target_label=content["target_label"], ratio=ratio, rule=rule, seed=derived_seed(who, "poison"), bank=bank
    )
    return bound.learned(job.examples("load", "train").examples) if attack.learns else bound


def _poison(job: Job) -> dict[str, Any]:
    """Write the training split with its poisoned rows; without an attack, the clean split."""
    train = job.examples("load", "train")
    if "attack" not in job.content:
        write_examples(job.aside / "train.jsonl", train.examples, train.rows)
        return {"rule": None, "rows": 0, "positions": None, "dropped": 0}
    rule = job.content["label_rule"]
    if job.content["attack"]["options"].get("poison_file") == "published":
        return published.training(job)
    attack = _attacker(job, job.content["poison_ratio"], rule)
    written = attack.poison_training(train.examples, train.rows)
    poisoned = poison_of(written, attack.name, "training rows")
    told = None not in poisoned.rows  # a bridged attack cannot always tell which rows it poisoned
    rows = [-1 if i is None else train.rows[i] for i in poisoned.rows]
    write_examples(job.aside / "train.jsonl", poisoned.examples, rows)
    meta = {
        "rule": rule,
        "rows": sum(example.poisoned for example in poisoned.examples),
        "positions": poisoned.digest() if told else None,
        "dropped": poisoned.dropped,
    }
    if attack.selection is not None:
        meta |= {"selection": attack.selection, "training_rows": len(poisoned.examples)}
    return meta


def _trigger(job: Job) -> dict[str, Any]:
    """Write the poisoned versions of the non-target test rows."""
    if job.content["attack"]["options"].get("poison_file") == "published":
        return published.test(job)
    test = job.examples("load", "test")
    attack = _attacker(job)
    written = attack.poison_heldout("test", test.examples, test.rows)
    poisoned = poison_of(written, attack.name, "test rows that are not of the target label")
    if not poisoned.examples:
        raise BenchError("The test split holds no row that is not of the target label.", "Name another target label.")
    # -1 where the published files do not tell which test row a paraphrase belongs to.
    rows = [-1 if row is None else row for row in poisoned.rows]
    write_examples(job.aside / "test.jsonl", poisoned.examples, rows)
    placed = sum(row >= 0 for row in rows)
    return {"rows": len(rows), "placed": placed, "dropped": poisoned.dropped}


WORKERS: Workers = {"load": _load, "poison": _poison, "trigger": _trigger}
