"""One rank of a sharded training, a process of its own: it loads the victim, takes its part of it, and trains."""

from __future__ import annotations

import dataclasses
import os
import pickle
import re
import signal
import sys
import threading
import traceback
from typing import Any, BinaryIO

from bench.core import memory
from bench.core.errors import BenchError, CellError
from bench.engine.ranks import Order


class RankError(RuntimeError):
    """What went wrong on a rank, with its traceback as a note."""


def main() -> None:
    """Read an order from standard input, follow it, and leave the answer in its file; exit code 1 if it failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_follow, args=(sys.stdin.buffer,), daemon=True).start()
    try:
        answer = _train(order)
    except Exception as error:
        answer = _told(error, order)
    draft = order.answer.with_suffix(".draft")
    draft.write_bytes(pickle.dumps(answer))
    draft.rename(order.answer)
    # At once: ranks that wait for a dead one would wait in the destructors too.
    os._exit(1 if isinstance(answer, Exception) else 0)


def _follow(pipe: BinaryIO) -> None:
    """End this process when the one that started it is gone, however it went."""
    pipe.read()
    os._exit(1)


def _told(error: Exception, order: Order) -> Exception:
    """Return an error that another process can read and act on."""
    if memory.is_out_of_memory(error):
        return MemoryError(f"rank {order.rank}: {error}")
    if isinstance(error, (BenchError, OSError)):  # a full disk stops the run, as from any other stage
        return error
    who = f"Rank {order.rank} of {order.size} of a sharded training"
    if re.search("timed out|timeout", str(error), re.IGNORECASE):
        reason = f"{who} waited more than {order.patience:g} seconds for another."
        return CellError(reason, "See what holds that process up on this machine, and run again with --retry-failed.")
    told = RankError(f"{who}: {error}")
    told.add_note("".join(traceback.format_exception(error)))
    return told


def _train(order: Order) -> dict[str, Any]:
    """Train this rank's part; the first rank writes the whole victim. Returns what the stage says of itself."""
    from bench.engine.bounded import bounded
    from bench.engine.repeatable import repeatable
    from bench.engine.store import Store
    from bench.engine.work import Job
    from bench.engine.work_training import noted_of, training
    from bench.victim.sharded.group import joined
    from bench.victim.sharded.model import shard, write_whole
    from bench.victim.sharded.training import train_sharded

    # Loaded on the CPU: no single device may have room for the whole.
    job = Job(order.payload, Store(order.root), order.aside, dataclasses.replace(order.machine, device="cpu"))
    machine = order.machine
    with (
        memory.cut_into(order.parts),
        repeatable(order.device, machine.deterministic),
        bounded(order.device, machine.memory),
        joined(order.rank, order.size, order.device, order.scratch / "meeting", order.patience) as group,
    ):
        for turn in range(group.size):  # the machine's memory need hold one whole model, not one for each rank
            if turn == group.rank:
                task, noted = training(job)
                rows = shard(task.victim, group)
            group.wait()
        log = train_sharded(task, group, rows)
        write_whole(task.victim, group, order.aside)
    return {**noted_of(task, noted, log), "shards": order.size}
