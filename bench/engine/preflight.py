"""What can be known before anything runs: data, weights, device, folder. A wrong request stops here."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError, CellError, DataError, RequestError
from bench.core.spec import Part
from bench.engine import plugins
from bench.engine.plan import Plan
from bench.engine.sharding import groups_of, shards_of, too_few
from bench.engine.stages import Stage, with_ancestors
from bench.engine.todo import Todo
from bench.engine.work_data import restored_dataset

MEMORY_PER_WORKER = 1.5e9  # bytes: torch, a small model, its gradients and moments


def check_folder(out: Path) -> None:
    """Make the output folder.

    Raises:
        RequestError: it cannot be made or written, or its disk is full.
    """
    probe = out / f".probe.{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"x" * 4096)
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)  # on a full disk it is there, and empty
    except OSError as error:
        raise RequestError(f"--out {out} cannot be written: {error.strerror}.", "Name a folder that can be.") from None


@contextlib.contextmanager
def made(out: Path) -> Iterator[None]:
    """Make the output folder; where a request is refused within the block, remove again what was made and is empty.

    Raises:
        RequestError: it cannot be made or written, or its disk is full.
    """
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    check_folder(out)
    try:
        yield
    except RequestError:
        below = sorted(out.rglob("*"), reverse=True) if out in new else ()
        for folder in (*below, *new):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def choose_device(name: str) -> list[str]:
    """Return the devices to use: `auto` takes every GPU, and the CPU where there is none.

    Raises:
        RequestError: no such device.
    """
    if name == "cpu" or (name == "auto" and not has_nvidia()):
        return ["cpu"]
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [f"cuda:{number}" for number in range(count)]
    if name == "auto":
        return devices or ["cpu"]
    if name == "cuda" and devices:
        return devices
    if name in devices:
        return [name]
    there = ", ".join(["cpu", *devices])
    raise RequestError(f"There is no device {name!r}.", f"This machine has: {there}.")


def has_nvidia() -> bool:
    """Tell whether this machine has an NVIDIA GPU, without importing torch."""
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def default_workers(devices: list[str], shards: int = 1) -> int:
    """Return one worker per GPU, or one per core as far as memory goes; each of them has `shards` GPUs or cores."""
    if devices != ["cpu"]:
        return len(groups_of(devices, shards))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores, int(memory // MEMORY_PER_WORKER)) // shards)


def unreachable(todo: Todo, data_dir: Path | None, devices: Sequence[str] | None = None) -> dict[str, CellError]:
    """Return the cells to do whose data or weights are not here, or too few devices to train them, with the reason.

    Args:
        devices: those of this machine; None where the workers are on other machines.
    """
    reasons: dict[str, BenchError | None] = {}
    found = {}
    # Of these cells alone: a finished one may share a training that is due again for another, and needs nothing itself.
    for key, stages in todo.cells.items():
        for stage in with_ancestors(stages.last()):
            if stage.key in todo.stages:
                error = _reason(stage, data_dir, reasons) or _too_few(stage, devices)
                if error is not None:
                    found[key] = CellError(error.problem, error.remedy)
                    break
    return found


def _reason(stage: Stage, data_dir: Path | None, reasons: dict[str, BenchError | None]) -> BenchError | None:
    part = stage.content.get({"load": "dataset", "train": "model"}.get(stage.kind, ""))
    if not isinstance(part, Part):
        return None
    if part.pinned not in reasons:
        try:
            _check_data(part, data_dir) if stage.kind == "load" else _check_model(part)
            reasons[part.pinned] = None
        except BenchError as error:
            reasons[part.pinned] = error
    return reasons[part.pinned]


def _too_few(stage: Stage, devices: Sequence[str] | None) -> CellError | None:
    if stage.kind != "train" or devices is None:
        return None
    return too_few(shards_of(stage.content), devices, stage.content["model"].name)


def _check_data(part: Part, data_dir: Path | None) -> None:
    from bench.data import load_dataset

    load_dataset(restored_dataset(part.payload()), data_dir)


def _check_model(part: Part) -> None:
    from bench.victim.loading import checked_folder

    checked_folder(plugins.model(part))


def all_fail(plan: Plan, found: Mapping[str, CellError]) -> BenchError | None:
    """Return the first reason if no cell of the plan can run, None if one can."""
    reasons: dict[str, Any] = {**plan.impossible, **found}
    if plan.cells and all(key in reasons for key in plan.cells):
        return next(iter(reasons.values()))
    return None


def data_folder(given: str | None) -> Path | None:
    """Return the data folder of `--data` or of BENCH_DATA, None where neither is set.

    Raises:
        DataError: it is set, and no folder.
    """
    name = given or os.environ.get("BENCH_DATA")
    if not name:
        return None
    folder = Path(name)
    if not folder.is_dir():
        raise DataError(
            f"The data folder {name} does not exist.", "Name the folder that holds datasets/ and poison_data/."
        )
    return folder
