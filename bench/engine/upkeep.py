"""What a run's folder holds that no record needs: leftovers of dead workers, damaged stages, weights, old stages."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.spec import Part
from bench.engine.locks import Claim, owner_of
from bench.engine.plan import Plan
from bench.engine.record_files import read_record
from bench.engine.runner import Runner
from bench.engine.store import DAMAGED, DRAFTS, KEY, LOCKS, RUN, WEIGHTS_FILE, Store, StoreError

LEFTOVERS, SPOILT, WEIGHT, OLD, UNFINISHED = (
    "leftovers of workers that died",
    "damaged stages and records that were set aside",
    "weights that nothing is going to be made from",
    "stages that no record and no request has",
    "what an unfinished run would go on from",
)


@dataclass(frozen=True)
class Freeable:
    """A file or folder that can go; of a finished stage with `weights` the weights alone. `size` in bytes."""

    why: str
    path: Path
    size: int
    key: str = ""
    weights: bool = False


def run_claim(out: Path, shared: bool) -> Claim:
    """Return the claim on a whole folder: shared by runs, exclusive to clean."""
    return Claim(out / "store" / LOCKS / RUN, shared)


def freeable(out: Path, plan: Plan) -> list[Freeable]:
    """Return all that can go from a folder; `plan` is that of everything that was asked for into it.

    A stage that a record lists stays, without its weights: the record can be made again from it. While something that
    was asked for is `unread`, what would be built from it has other keys: what no other plan has counts as unfinished,
    and so does what was made from `other_originals` than stand in the data folder now.
    """
    store = Store(out / "store", read_only=True)
    found = [*_leftovers(out, store)]
    found += [Freeable(SPOILT, path, _size(path)) for path in _entries(store.root / DAMAGED)]
    listed = _listed(out)
    todo = Runner(plan, out, {}, read_only=True).todo()
    planned = {stage.key for stage in plan.unique()}
    unsure, others = bool(unread(plan)), other_originals(out, plan)
    readers = {parent.key for stage in todo.stages.values() for parent in stage.parents.values()}
    for path in _stages(store):
        key = path.name
        kept, uncertain = key in listed, unsure or key in others
        if not kept and key not in planned:
            found.append(Freeable(UNFINISHED if uncertain else OLD, path, _size(path), key))
        elif not kept:
            found.append(Freeable(UNFINISHED, path, _size(path), key))
        elif (path / WEIGHTS_FILE).is_file():
            why = UNFINISHED if uncertain or key in readers else WEIGHT
            found.append(Freeable(why, path, (path / WEIGHTS_FILE).stat().st_size, key, weights=True))
    return found


def _stages(store: Store) -> Iterator[Path]:
    for folder in _entries(store.root):
        for path in _entries(folder) if len(folder.name) == 2 else ():
            if KEY.fullmatch(path.name):
                yield path


def other_originals(out: Path, plan: Plan) -> dict[str, str]:
    """Return the keys of stages made from the other of two files that may stand in the data folder, with its path.

    A published original and what was rebuilt in its place make other keys: with the file these stages come back.
    """
    store = Store(out / "store", read_only=True)
    loads = [stage.content["dataset"] for stage in plan.unique() if stage.kind == "load"]
    pins = {dataset.identity: dataset.pins for dataset in loads if dataset.options.get("originals")}
    found: dict[str, str] = {}

    def other(key: str) -> str:
        if key not in found:
            manifest = store.manifest(key) or {}
            dataset = manifest.get("content", {}).get("dataset")
            above = [other(parent) for parent in manifest.get("parents", {}).values()]
            found[key] = next(filter(None, above), "") if dataset is None else _replaced(dataset, pins)
        return found[key]

    # Nothing is read where no data set of the plan has such a file.
    return {path.name: other(path.name) for path in _stages(store) if other(path.name)} if pins else {}


def _replaced(dataset: Mapping[str, Any], pins: Mapping[str, Mapping[str, str]]) -> str:
    """Return the file with an original that a data set, as it stands in a manifest, was read from with other bytes."""
    then = dataset["pins"]
    now = pins.get(Part(dataset["name"], dataset["options"]).identity, then)
    return next((path for path in dataset["options"].get("originals", ()) if then.get(path) != now.get(path)), "")


def unread(plan: Plan) -> list[str]:
    """Return a sentence on each model, bank and file of a defense that decides keys and cannot be read now."""
    found = []
    for cell in plan.cells.values():
        if "weights" not in cell.model.pins:
            found.append(f"Model {cell.model.options.get('path') or cell.model.name} cannot be read.")
        if "bank_file" in cell.attack.place and "bank" not in cell.attack.pins:
            found.append(f"Bank {cell.attack.place['bank_file']} cannot be read.")
    found += (error.problem for error in plan.impossible.values() if error.away)
    return list(dict.fromkeys(found))


def _leftovers(out: Path, store: Store) -> Iterator[Freeable]:
    for path in _entries(store.root / DRAFTS):
        if owner_of(store.root / LOCKS / path.name.partition(".")[0]) is None:
            yield Freeable(LEFTOVERS, path, _size(path))
    for path in _entries(store.root / LOCKS):
        if path.name != RUN and owner_of(path) is None:
            yield Freeable(LEFTOVERS, path, _size(path))
    for path in [*(out / "records").glob(".*"), *out.glob(".*.json.*"), *store.root.glob("??/*/.*")]:
        yield Freeable(LEFTOVERS, path, _size(path))


def _listed(out: Path) -> set[str]:
    """Return the keys of the stages that the records are made from."""
    keys: set[str] = set()
    for path in (out / "records").glob("*.json"):
        with contextlib.suppress(StoreError, TypeError, ValueError):
            record = read_record(path)
            keys.update(str(key) for _, key in (record or {}).get("stages") or ())
    return keys


def free(out: Path, item: Freeable) -> int:
    """Delete one thing and return its size; a stage disappears from the store at once, not file by file."""
    store = Store(out / "store")
    if item.weights:
        return store.release(item.key)
    path = item.path
    if item.key:
        store.set_aside(item.key)
        for path in (store.root / DAMAGED).glob(f"{item.key}.*"):
            shutil.rmtree(path, ignore_errors=True)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return item.size


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _size(path: Path) -> int:
    """Return the bytes of a file or of all files below a folder; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)
