"""One training by several processes of this machine: started here, watched, and ended together."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError, CellError
from bench.core.memory import cut, free
from bench.core.processes import ENVIRONMENT
from bench.engine.sharding import shards_of, too_few
from bench.engine.work import Job

PATIENCE = 1800.0  # seconds that a rank waits for another: for its turn to load a model, most of all
GRACE = 2.0  # seconds in which the ranks that one failure brings down may say why
LOOK = 0.05  # seconds between looks at the ranks
ENTRY = "from bench.engine.rank import main; main()"


@dataclasses.dataclass(frozen=True)
class Order:
    """What one rank is to do."""

    payload: Mapping[str, Any]
    root: Path
    aside: Path
    machine: Any
    rank: int
    device: str
    size: int
    parts: int  # into how many batches are cut
    scratch: Path  # where the ranks meet and leave what they have to say
    patience: float

    @property
    def answer(self) -> Path:
        """The file that this rank leaves: what it returns, or how it failed."""
        return self.scratch / f"answer-{self.rank}"

    @property
    def errors(self) -> Path:
        """The file that takes what this rank's process writes as it dies."""
        return self.scratch / f"errors-{self.rank}"


def train_by_ranks(job: Job, patience: float = PATIENCE) -> dict[str, Any]:
    """Build a training stage by one process for each of its devices; return what the stage says of itself.

    However this ends, none of the processes is left; they also end, by themselves, when this process is killed.

    Raises:
        CellError: this worker has too few devices, a rank refused, died or waited too long for the others.
        MemoryError: memory ran out on a rank.
    """
    if "analysis" in job.content:
        raise CellError("No analysis can look on at a sharded training.", "Leave model.shards out.")
    size = shards_of(job.content)
    devices = job.machine.devices or (job.machine.device,)
    reason = too_few(size, devices, job.content["model"]["name"])
    if reason is not None:
        raise reason
    devices = ("cpu",) * size if job.machine.device == "cpu" else devices
    free()  # what this process keeps for later would be missing on the first device
    with tempfile.TemporaryDirectory(prefix="bench-ranks-") as scratch:
        shared = {"parts": cut(), "scratch": Path(scratch), "patience": patience, "size": size}
        made = [
            Order(job.payload, job.store.root.resolve(), job.aside.resolve(), job.machine, rank, device, **shared)
            for rank, device in zip(range(size), devices, strict=False)
        ]
        return _outcome(made, _run(made))


def _run(orders: Sequence[Order]) -> dict[int, int]:
    """Run the ranks until all have ended or one has failed; return the exit codes of those that ended, in order."""
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    with contextlib.ExitStack() as stack:
        ranks = []
        for order in orders:
            errors = stack.enter_context(order.errors.open("wb"))
            rank = subprocess.Popen(
                [sys.executable, "-c", ENTRY],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                start_new_session=True,  # an interrupt at the keyboard is for the run, not for them
            )
            stack.callback(_end, rank)
            ranks.append(rank)
        for rank, order in zip(ranks, orders, strict=True):
            with contextlib.suppress(BrokenPipeError):  # it has died already, and is found so below
                pickle.dump(order, rank.stdin)
                rank.stdin.flush()  # and left open: its end tells the rank that this process is gone
        until, ended = math.inf, {}
        while len(ended) < len(ranks) and time.monotonic() < until:
            time.sleep(LOOK)
            for number, rank in enumerate(ranks):
                if number not in ended and rank.poll() is not None:
                    ended[number] = rank.returncode
            if any(ended.values()):
                until = min(until, time.monotonic() + GRACE)
        return ended


def _end(rank: subprocess.Popen) -> None:
    """Kill a rank, stopped or not, and wait for its end."""
    rank.kill()
    rank.wait()
    with contextlib.suppress(BrokenPipeError):
        rank.stdin.close()


def _outcome(orders: Sequence[Order], ended: Mapping[int, int]) -> dict[str, Any]:
    """Return what the first rank has to say, or raise why one failed: the failures of the others follow from it."""
    answers = [pickle.loads(order.answer.read_bytes()) if order.answer.is_file() else None for order in orders]
    if len(ended) == len(orders) and not any(ended.values()):
        return answers[0]
    failures = [answers[number] for number in ended if isinstance(answers[number], Exception)]
    for kind in (MemoryError, BenchError, OSError):
        for failure in failures:
            if isinstance(failure, kind):
                raise failure
    for number, code in ended.items():
        if code and answers[number] is None:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            said = orders[number].errors.read_text(errors="replace").strip().splitlines() if code > 0 else []
            raise CellError(
                f"Rank {number} of {len(orders)} of a sharded training {how}{': ' + said[-1] if said else ''}.",
                "It may have run out of the machine's memory: run with fewer --workers and --retry-failed.",
            )
    if failures:
        raise failures[0]
    raise CellError("A sharded training ended without an answer.", "Run it again with --retry-failed.")
