"""A process that lives as if on another machine: its own name and clock, and locks that do not reach beyond it.

What NFS with `local_lock=all` or Lustre without `flock` does: each machine's locks are its own, or there are none.
Files are shared as they are; no cache of a client is imitated.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Any

from bench.engine import locks
from tests.engine.cheap import drive

SILENT, BEAT = 1.0, 0.1  # seconds, in place of 60 and 10


def live_on(name: str, ahead: float, own_locks: str | None) -> None:
    """Make this process one of the machine `name`, whose clock is `ahead` seconds before that of the file system.

    Its locks lie in the folder `own_locks`; None: it has none.
    """
    locks.SILENT, locks.BEAT = SILENT, BEAT
    locks.machine = lambda: name
    socket.gethostname = lambda: name
    true_time, true_flock, true_close = time.time, fcntl.flock, os.close
    time.time = lambda: true_time() + ahead
    pairs: dict[int, int] = {}

    def flock(file: int, kind: int) -> None:
        if own_locks is None:
            raise OSError(errno.ENOLCK, "No locks available")
        if file not in pairs:
            place = Path(own_locks) / f"{name}-{os.fstat(file).st_ino}"
            pairs[file] = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        true_flock(pairs[file], kind)

    def close(file: int) -> None:
        if file in pairs:
            true_close(pairs.pop(file))
        true_close(file)

    fcntl.flock, os.close = flock, close


def drive_on(name: str, ahead: float, own_locks: str | None, out: str, seeds: int, all_here: Any) -> None:
    """Run the cheap plan into a folder from a machine, once all are there who wait at the barrier."""
    live_on(name, ahead, own_locks)
    all_here.wait(60)
    drive(out, "inline", seeds)
