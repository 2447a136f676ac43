"""What a file system over a network does that a disk does not: it forgets late, loses handles, keeps its own clock."""

from __future__ import annotations

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

TRIES = 5  # how often a file is opened whose handle the server does not know any more
Result = TypeVar("Result")


def is_stale(error: OSError) -> bool:
    """Tell whether a file was removed or replaced by another machine between its opening and its use."""
    return error.errno == errno.ESTALE


def steadily(act: Callable[[], Result]) -> Result:
    """Return what `act` returns; `act` opens a file, and is called again while that file goes stale in its hands.

    Raises:
        OSError: it went stale TRIES times, or whatever else `act` raises.
    """
    for _ in range(TRIES - 1):
        try:
            return act()
        except OSError as error:
            if not is_stale(error):
                raise
    return act()


def ask_again(*folders: Path) -> None:
    """Make this machine ask the server what is in these folders.

    A client of NFS remembers for up to a minute that a name was not there. Opening a folder compares its state with
    that of the server, and what was remembered goes if it has changed. On a disk it costs some microseconds.
    """
    for folder in folders:
        with contextlib.suppress(OSError):
            os.scandir(folder).close()


def clock(folder: Path) -> float:
    """Return the time, in seconds since 1970, by the clock that dates the files of a folder.

    On NFS that is the server's clock, so that an age does not depend on the clocks of two machines. Where no file can
    be made it is this machine's.
    """
    probe = folder / f".clock.{uuid.uuid4().hex}"
    try:
        file = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            return os.fstat(file).st_mtime
        finally:
            os.close(file)
            probe.unlink()
    except OSError:
        return time.time()
