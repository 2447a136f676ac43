"""How far a run is, read off its folder: what was asked for, what is done, who is at work, and at what pace."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.engine.locks import Claim, owner_of
from bench.engine.plan import Plan
from bench.engine.runner import Runner
from bench.engine.stages import WEIGHTS, Stage, with_ancestors
from bench.engine.store import JOURNAL, KEY, LOCKS, RUN, Store, write_json

REQUESTS = "requests.json"
NOTING = 5.0  # seconds in which any other run has noted its request
RECENT = 200  # stages of a kind that its pace is taken from


@dataclass
class Progress:
    """The cells and stages of a plan by what became of them; seconds are estimates."""

    cells: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    at_work: bool = False  # whether a run is
    running: list[tuple[Stage, Mapping[str, Any]]] = field(default_factory=list)
    left: list[Stage] = field(default_factory=list)  # those that run included
    seconds: float | None = None  # until the end at the pace so far; None where nothing tells

    @property
    def workers(self) -> int:
        """Return how many processes build what runs: one claims all members of a gang at once."""
        return len({_worker(owner) for _, owner in self.running})


def write_request(out: Path, grid: str, changes: Mapping[str, Any], data_dir: Path | None = None) -> None:
    """Note beside the store what was asked for, each request once: `bench status` plans it again.

    Where it was asked is noted too: a relative path means something only there.
    """
    place = {"folder": os.getcwd(), "data": None if data_dir is None else str(data_dir.resolve())}
    asked = {"grid": _place(grid), "changes": json.loads(json.dumps(dict(changes))), **place}
    with _alone(out / "store" / LOCKS / REQUESTS):  # another run may be noting its own
        known = read_requests(out)
        if asked not in known:
            others = [one for one in known if (one["grid"], one["changes"]) != (asked["grid"], asked["changes"])]
            write_json(out / REQUESTS, {"requests": [*others, asked]})


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the claim on a file for the length of a block, at most NOTING seconds after others have had it."""
    claim, until = Claim(path), time.monotonic() + NOTING
    while not claim.take() and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield
    finally:
        claim.drop()


def _place(grid: str) -> str:
    return str(Path(grid).resolve()) if os.path.isfile(grid) else grid


def read_requests(out: Path) -> list[dict[str, Any]]:
    """Return what was asked for into this folder so far; nothing where the note is missing or damaged."""
    try:
        found = json.loads((out / REQUESTS).read_text("utf-8"))["requests"]
        places = ({name: str(item[name]) if item.get(name) else None for name in ("folder", "data")} for item in found)
        asked = ({"grid": str(item["grid"]), "changes": dict(item["changes"])} for item in found)
        return [{**request, **place} for request, place in zip(asked, places, strict=True)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def look(plan: Plan, out: Path) -> Progress:
    """Return how far the plan is in the folder; nothing is changed there."""
    runner = Runner(plan, out, {}, read_only=True)
    todo = runner.todo()
    report = runner.report
    for key in (*plan.impossible, *tuple(todo.cells)):  # those that failed before their first stage
        record = runner.read(key)
        if record is not None and record["stages"] is None:
            runner.count(key, record)
            todo.cells.pop(key, None)
    due = with_ancestors(stage for stages in todo.cells.values() for stage in stages.last())
    left = [stage for stage in due if stage.key in todo.stages]
    progress = Progress(report.cells, report.done, dict(report.failed), left=left)
    owners = dict(claims(runner.store))
    progress.at_work = at_work(runner.store)
    progress.running = [(s, owners[s.key]) for s in progress.left if _is_built(s, owners.get(s.key), runner.store)]
    progress.seconds = _remaining(progress, _paces(runner.store))
    return progress


def _is_built(stage: Stage, owner: Mapping[str, Any] | None, store: Store) -> bool:
    """Tell whether who holds the claim on a stage builds it: who only reads it signs nothing, and it is there."""
    # Looked for after the claims were: it may have been finished since it was found missing.
    return bool(owner) and not store.has(stage.key, weights=stage.kind in WEIGHTS)


def at_work(store: Store) -> bool:
    """Tell whether a run holds the folder, or somebody builds in it: a worker may outlive its run, or be far away."""
    return owner_of(store.root / LOCKS / RUN) is not None or any(True for _ in claims(store))


def claims(store: Store) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the keys of the stages that somebody builds or reads now, and who builds; nobody's name for who reads."""
    folder = store.root / LOCKS
    for path in folder.iterdir() if folder.is_dir() else ():
        owner = owner_of(path) if KEY.fullmatch(path.name) else None
        if owner is not None:
            yield path.name, owner


def _paces(store: Store) -> dict[str, float]:
    """Return the mean seconds of the latest stages of each kind, from the journals of all machines."""
    seconds: dict[str, list[float]] = {}
    folder = store.root / JOURNAL
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
        for text in path.read_text("utf-8", "replace").splitlines():
            try:
                line = json.loads(text)
                if line["what"] == "built":
                    seconds.setdefault(str(line["kind"]), []).append(float(line["seconds"]))
            except (ValueError, KeyError, TypeError):
                continue  # two machines wrote at once
    return {kind: sum(values[-RECENT:]) / len(values[-RECENT:]) for kind, values in seconds.items()}


def _remaining(progress: Progress, paces: Mapping[str, float]) -> float | None:
    """Return the seconds until the end: the work left over the workers seen, at least the longest way through it."""
    if not progress.left or not progress.at_work:
        return 0.0 if not progress.left else None
    kinds = {stage.kind for stage in progress.left}
    mean = sum(paces.values()) / len(paces) if paces else None
    if mean is None or ("train" in kinds and "train" not in paces):
        return None
    # A worker claims all members of a gang at once, and a journal says of each its share of the time.
    held = Counter(_worker(owner) for _, owner in progress.running)
    since = {
        stage.key: (time.time() - float(owner.get("since", time.time()))) / held[_worker(owner)]
        for stage, owner in progress.running
    }
    costs = {s.key: max(0.0, paces.get(s.kind, mean) - since.get(s.key, 0.0)) for s in progress.left}
    longest: dict[str, float] = {}
    for stage in with_ancestors(progress.left):
        before = max((longest.get(parent.key, 0.0) for parent in stage.parents.values()), default=0.0)
        longest[stage.key] = before + costs.get(stage.key, 0.0)
    return max(sum(costs.values()) / max(1, progress.workers), *longest.values())


def _worker(owner: Mapping[str, Any]) -> tuple[Any, Any]:
    return owner.get("host"), owner.get("pid")
