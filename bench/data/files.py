"""Reading pinned files: a file is what its checksum says, or the read fails."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from bench.core.errors import DataError

FETCH = "Run `bench data fetch --data DIR`, or name the folder of the published data with --data or BENCH_DATA."


def sha256(content: bytes) -> str:
    """Return the sha256 of `content` as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def git_blob(content: bytes) -> str:
    """Return the id that git gives a file with this content, as 40 hexadecimal digits."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def read_bytes(path: Path, remedy: str) -> bytes:
    """Return the content of a file.

    Raises:
        DataError: it does not exist or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"The data file {path} does not exist.", remedy) from None
    except OSError as error:
        raise DataError(f"The data file {path} cannot be read: {error.strerror}.", remedy) from None


class PinnedFiles:
    """The pinned files of one data set in a folder; `read` keeps the sha256 of every file it gave out.

    pins: relative path -> sha256. originals: relative path -> git blob id of the published file that may
    stand there in place of the rebuilt one.
    """

    def __init__(self, folder: Path | None, pins: Mapping[str, str], originals: Mapping[str, str], name: str) -> None:
        if folder is None:
            raise DataError(f"Dataset {name!r} is read from files, and no data folder was given.", FETCH)
        self.folder = Path(folder)
        self.pins = pins
        self.originals = originals
        self.digests: dict[str, str] = {}
        self.published: set[str] = set()  # paths where the published original stands instead of the rebuilt file

    def read(self, path: str) -> str:
        """Return the text of a file (UTF-8, line ends as they are) after comparing it with its pin.

        Raises:
            DataError: missing, altered or without a pin.
        """
        content = read_bytes(self.folder / path, FETCH)
        self.digests[path] = sha256(content)
        if not self._known(path, content):
            raise DataError(
                f"The data file {self.folder / path} is altered: its sha256 is {self.digests[path]}, "
                f"the pinned one is {self.pins.get(path, 'missing')}.",
                "Remove the file and run `bench data fetch`, or name your own data as a custom dataset.",
            )
        return content.decode("utf-8")

    def _known(self, path: str, content: bytes) -> bool:
        if self.digests[path] == self.pins.get(path):
            return True
        if path in self.originals and git_blob(content) == self.originals[path]:
            self.published.add(path)
            return True
        return False
