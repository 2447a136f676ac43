"""Who builds what: a claim on one stage that ends with the process that holds it, and says whose it is.

A claim is an exclusive `flock` on a small file. On one machine the kernel gives it up the moment its owner dies, so
that a stage is taken over at once and never built by two. On a network file system two things hold. Where the server
passes locks on (NFS version 4, and 3 with its lock manager), the same is true, once the server has noticed a machine
that died. Where locks are local to a machine or missing, the owner's sign of life counts, a new time on the file every
BEAT seconds: a claim of another machine is taken over after SILENT seconds without one, as seen by one process, or by
a process that has just come (a job of Slurm) after twice as many by the clock of the file system. Only there can two
workers that start within the same instant build one stage; the first rename into the store still wins, and the other is
thrown away. No process identifier of another machine means anything here, and no two machines' clocks are compared.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from bench.engine.network_files import TRIES, clock, is_stale

BEAT = 10.0  # seconds between two signs of life
SILENT = 60.0  # seconds without one after which the owner, on another machine, is taken for dead
LOOKS = 3  # how often a claim is tried: `bench status` finds out who holds a file by locking it for an instant
GLANCE = 0.005  # seconds between two tries
SETTLE = 0.05  # seconds after which one of two that claimed without locks reads the name of the other
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

# Signs of life as seen from here, on this machine's own clock: path -> what was seen, and when first.
_seen: dict[str, tuple[tuple[str, int], float]] = {}
_beating: set[Path] = set()  # the files of the claims that this process holds
_beater: tuple[int, threading.Thread] | None = None  # who gives their signs of life, and in which process


@functools.cache
def machine() -> str:
    """Return what tells this running kernel from any other: containers on one host share it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return f"{socket.gethostname()}.{uuid.getnode():x}"


class Claim:
    """A claim on one file: exclusive to build or delete, shared to read what must not be deleted meanwhile."""

    def __init__(self, path: Path, shared: bool = False) -> None:
        self.path, self.shared = path, shared
        self.sure = True  # whether the kernel vouches that nobody else is at work
        self._file: int | None = None
        self._signed = True
        self._token = uuid.uuid4().hex

    def take(self) -> bool:
        """Take the claim and tell whether it was free.

        Raises:
            OSError: the file cannot be made.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self._lock()
        for _ in range(LOOKS - 1):
            if file is None:
                time.sleep(GLANCE)
                file = self._lock()
        if file is None:
            return False
        mine = False
        try:
            mine = self.shared or not (self._held_elsewhere(file) or not self._sign(file))
        except OSError as error:
            if not is_stale(error):  # another machine, where locks do not reach it, has just removed the file
                raise
        finally:
            if not mine:
                _close(file)
        if not mine:
            return False
        self._file = file
        if not self.shared:
            _alive(self.path)
        return True

    def drop(self) -> None:
        """Give the claim up; the file goes with the last who holds it."""
        file, self._file = self._file, None
        if file is not None:
            if not self.shared:  # one that was never taken, or only shared, leaves the holder's signs of life alone
                _beating.discard(self.path)
            # Unlinked while locked, so that nobody who waits for this very file takes it unawares.
            with contextlib.suppress(OSError):
                if self._is_ours(file):
                    self.path.unlink(missing_ok=True)
            _close(file)

    def _is_ours(self, file: int) -> bool:
        """Tell whether nobody else holds the file, now that this claim ends."""
        if not self.shared:
            owner = _owner(os.pread(file, 4096, 0))
            return not self._signed or (owner is not None and owner["token"] == self._token)
        if not self.sure:
            return False
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self._in_place(file)

    def _in_place(self, file: int) -> bool:
        """Tell whether the open file is the one that has the name now: its last owner may have removed it."""
        try:
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def __enter__(self) -> bool:
        return self.take()

    def __exit__(self, *reason: object) -> None:
        self.drop()

    def _lock(self) -> int | None:
        """Return the open and locked file, None where another process has it."""
        kind, stale = fcntl.LOCK_SH if self.shared else fcntl.LOCK_EX, 0
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                if self._in_place(file):
                    return file
            except BlockingIOError:
                _close(file)
                return None
            except OSError as error:
                if error.errno in NO_LOCKS:
                    self.sure = False
                    return file
                stale += is_stale(error)  # removed from another machine
                if not is_stale(error) or stale == TRIES:
                    _close(file)
                    raise
            _close(file)

    def _held_elsewhere(self, file: int) -> bool:
        """Tell whether a living owner stands in the file although the lock was free, or says nothing."""
        owner = _owner(os.pread(file, 4096, 0))
        if owner is None or (self.sure and owner["machine"] == machine()):
            return False
        self.sure = False
        sign = (owner["token"], os.fstat(file).st_mtime_ns)
        before = _seen.get(str(self.path))
        if before is None or before[0] != sign:
            _seen[str(self.path)] = (sign, time.monotonic())
            return _age(self.path, file) < 2 * SILENT
        return time.monotonic() - before[1] < SILENT

    def _sign(self, file: int) -> bool:
        """Write the owner into the file; where nothing vouches for the lock, look whether another did so too."""
        owner = {"machine": machine(), "host": socket.gethostname(), "pid": os.getpid(), "token": self._token}
        content = json.dumps({**owner, "since": time.time()}).encode()
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, content, 0)
        except OSError:
            if not self.sure:
                raise
            self._signed = False  # a full disk: the kernel knows whose the lock is, if nobody else does
        if self.sure:
            return True
        time.sleep(SETTLE)
        found = _owner(os.pread(file, 4096, 0))
        return found is not None and found["token"] == self._token and self._in_place(file)


def _close(file: int) -> None:
    """Close a file; what NFS says only now, that its disk is full say, is no news of a claim."""
    with contextlib.suppress(OSError):
        os.close(file)


def _age(path: Path, file: int) -> float:
    """Return the seconds since the last sign of life in a file, by the clock of the file system."""
    return clock(path.parent) - os.fstat(file).st_mtime


def _alive(path: Path) -> None:
    """Give signs of life for a claim from now on, from one thread for all claims of this process."""
    global _beater
    _beating.add(path)
    if _beater is None or _beater[0] != os.getpid() or not _beater[1].is_alive():
        thread = threading.Thread(target=_beat, name="claims", daemon=True)
        _beater = (os.getpid(), thread)
        thread.start()


def _beat() -> None:
    while True:
        time.sleep(BEAT)
        for path in tuple(_beating):
            with contextlib.suppress(OSError):
                os.utime(path)


def _owner(content: bytes) -> dict[str, Any] | None:
    try:
        owner = json.loads(content)
        return owner if isinstance(owner, dict) and {"machine", "token"} <= owner.keys() else None
    except ValueError:
        return None


def owner_of(path: Path) -> dict[str, Any] | None:
    """Return who holds the claim on a file as far as can be told from here, None where it is free."""
    try:
        file = _opened(path)
    except OSError:
        return None
    owner = None
    try:
        try:
            owner = _owner(os.pread(file, 4096, 0))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return owner or {}
        except OSError as error:
            if is_stale(error):
                return None  # it has just been removed from another machine
        else:
            if owner is None or owner["machine"] == machine():
                return None
        return owner if owner is not None and _age(path, file) < SILENT else None
    finally:
        _close(file)


def _opened(path: Path) -> int:
    """Return a file opened as locks on NFS want it, or only to be read where somebody else's run is looked at."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
