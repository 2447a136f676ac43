"""The folder of a cluster of Ray that one run starts: its sockets and logs, deleted at its end or by the next run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX, LOCK = "bench-ray-", "run.lock"


class Session:
    """A new folder whose lock is held while the run lives; making one deletes those of runs that were killed."""

    def __init__(self, place: Path | None = None) -> None:
        """Make the folder in `place`: /tmp where there is one, since a socket's path has at most 103 to 107 bytes.

        Raises:
            OSError: it cannot be made.
        """
        place = place or Path("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir())
        sweep(place)
        self._lock: int | None = None
        # A sweep of another run may come between the two lines below.
        while self._lock is None or not (Path(self.folder) / LOCK).exists():
            self.folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=place)
            self._lock = _locked(Path(self.folder) / LOCK, os.O_CREAT)

    def end(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def sweep(place: Path) -> None:
    """Delete the folders below `place` that runs of this user have left behind: nobody holds their locks any more."""
    for folder in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.lstat().st_uid != os.getuid():
                continue
            lock = _locked(folder / LOCK)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _locked(path: Path, more: int = 0) -> int | None:
    """Return a file of an existing folder, locked, None where another process has it."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | more, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file
