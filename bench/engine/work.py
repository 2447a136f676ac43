"""What each stage does: reads its parents' folders, writes its own. Runs in a worker."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from bench.core import memory
from bench.core.errors import BenchError, DataError
from bench.core.options import build
from bench.core.seeding import derived_seed, digest
from bench.engine import plugins, published
from bench.engine.artifacts import Numbered, read_examples, read_meta, write_examples
from bench.engine.returned import poison_of
from bench.engine.stages import VERSION, WEIGHTS
from bench.engine.store import UNWRITABLE, BusyError, Store, unwritable, write_json


@dataclass(frozen=True)
class Machine:
    """Where a stage runs, where the data lie, and by which loop it trains: ours but where `bench speed` compares."""

    data_dir: Path | None
    device: str = "cpu"
    deterministic: bool = False
    memory: float | None = None  # bytes of a GPU that one worker may take; None: all of it
    loop: Literal["ours", "reference", "published"] = "ours"
    devices: tuple[str, ...] = ()  # of this worker, `device` first: a sharded training spreads over them


class Built(NamedTuple):
    """A finished stage: its manifest, and whether it was built now or found in the store."""

    manifest: dict[str, Any]
    now: bool


class Job:
    """One stage being built: its content, its parents' folders, and an empty folder to fill."""

    def __init__(self, payload: Mapping[str, Any], store: Store, aside: Path, machine: Machine) -> None:
        self.payload = payload
        self.kind: str = payload["kind"]
        self.content: Mapping[str, Any] = payload["content"]
        self.identity: str = payload["identity"]
        self.parent_payloads = payload["parent_payloads"]
        self.parents = {
            role: store.open(key, weights=self.parent_payloads[role]["kind"] in WEIGHTS)
            for role, key in payload["parents"].items()
        }
        self.store, self.aside, self.machine = store, aside, machine

    def seed(self, name: str) -> int:
        """Return the seed of one named use in this stage."""
        return derived_seed(self.identity, name)

    def examples(self, role: str, file: str) -> Numbered:
        """Return examples that a parent wrote."""
        return read_examples(self.parents[role] / f"{file}.jsonl")

    def meta(self, role: str) -> dict[str, Any]:
        """Return what a parent says of itself."""
        return read_meta(self.parents[role])


Worker = Callable[[Job], dict[str, Any]]
Workers = Mapping[str, Worker]
NONE: Workers = MappingProxyType({})


def execute(payload: Mapping[str, Any], root: Path, machine: Machine, workers: Workers = NONE) -> Built:
    """Build one stage unless it is in the store; `workers` stand in for what does a kind of stage.

    Raises:
        BusyError: another worker is building it.
        LostError: a parent is not in the store, or damaged.
        UnwritableError: the disk is full or read-only.
        BenchError: what the stage itself reports, with its remedy.
    """
    store, key, kind = Store(root), payload["key"], payload["kind"]
    with claimed(store, payload), writing(store):
        manifest = standing(store, payload)
        if manifest is not None:
            return Built(manifest, False)
        store.forget_drafts(key)
        started = time.perf_counter()
        with store.draft(key) as aside:
            work = workers.get(kind) or _worker(kind)
            job = Job(payload, store, aside, machine)
            meta, cut = memory.with_smaller_batches(lambda: work(job), lambda: _emptied(aside))
            write_json(aside / "meta.json", meta if cut == 1 else {**meta, "batches_cut": cut})
            return Built(store.finish(key, aside, manifest_of(payload, machine, time.perf_counter() - started)), True)


def standing(store: Store, payload: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of a stage that is in the store with all that is needed of it, else None.

    Raises:
        BusyError: another run has built the stage and released its weights since this one asked for it (`again` false
            in the payload), so that who asked has to look again whether anything still needs them.
    """
    manifest = store.look(payload["key"])
    if manifest is None or payload["kind"] not in WEIGHTS or not manifest.get("released"):
        return manifest
    if not payload.get("again", True):
        raise BusyError(f"Stage {payload['key']} was built and its weights were released meanwhile.", "Look again.")
    return None


def manifest_of(payload: Mapping[str, Any], machine: Machine, seconds: float) -> dict[str, Any]:
    """Return what a stage's manifest says besides the digests of its files."""
    return {
        "kind": payload["kind"],
        "version": VERSION[payload["kind"]],
        "content": payload["content"],
        "parents": dict(payload["parents"]),
        "seconds": seconds,
        "device": machine.device,
    }


@contextlib.contextmanager
def claimed(store: Store, payload: Mapping[str, Any]) -> Iterator[None]:
    """Hold the claim on a stage, and keep the weights of its parents from being released meanwhile."""
    with contextlib.ExitStack() as held:
        with writing(store):
            free = held.enter_context(store.claim(payload["key"]))
            for role, key in payload["parents"].items():
                if payload["parent_payloads"][role]["kind"] in WEIGHTS:
                    # Not free: another run is building or releasing them. Without the claim they could go meanwhile.
                    free = held.enter_context(store.claim(key, shared=True)) and free
        if not free:
            raise BusyError(f"Stage {payload['key']}, or what it is made from, is in other hands.", "Wait for it.")
        yield


@contextlib.contextmanager
def writing(store: Store) -> Iterator[None]:
    """Turn what a full or read-only disk raises, from whichever library, into an error that says so.

    An error that names a file elsewhere, a cache of a plug-in's own say, is left as it is: it fails its stage alone.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE or not _is_of(store, error):
            raise
        raise unwritable(f"The store {store.root}", error) from error
    except Exception as error:
        # safetensors has an error of its own, which names the number of the system's.
        found = re.search(r"os error (\d+)", str(error))
        if isinstance(error, BenchError) or found is None or int(found[1]) not in UNWRITABLE:
            raise
        raise unwritable(f"The store {store.root}", OSError(int(found[1]), os.strerror(int(found[1])))) from error


def _is_of(store: Store, error: OSError) -> bool:
    """Tell whether an error of the system is of the store: it names a file in it, or none, as a full disk does."""
    names = [name for name in (error.filename, error.filename2) if isinstance(name, (str, bytes, os.PathLike))]
    return not names or any(Path(os.fsdecode(name)).resolve().is_relative_to(store.root.resolve()) for name in names)


def _emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _worker(kind: str) -> Worker:
    if kind in ("load", "poison", "trigger"):
        return {"load": _load, "poison": _poison, "trigger": _trigger}[kind]
    from bench.engine import work_victim
    from bench.engine.bounded import bounded
    from bench.engine.repeatable import repeatable

    def work(job: Job) -> dict[str, Any]:
        machine = job.machine
        with repeatable(machine.device, machine.deterministic), bounded(machine.device, machine.memory):
            return work_victim.WORKERS[kind](job)

    return work


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
