"""Where the published files come from: their commit, an HTTP mirror, a folder, an archive. What arrives is not trusted.

A source writes the bytes of one relative path into a part file; `bench.data.fetch` compares them with the pin.
"""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from bench.core.errors import DataError, RequestError
from bench.data.http import Mirror

REPOSITORY = "https://raw.githubusercontent.com/ZrW00/MuScleLoRA/"
COMMIT = "6b116ee0901598510d13e8968fb781f21a5ec599"
PUBLISHED = f"{REPOSITORY}{COMMIT}/"

LARGEST = 64 * 2**20  # bytes of one file: the largest pinned one has 5 MB
TOTAL = 4 * 2**30  # bytes that the members of an archive may declare
MEMBERS = 200_000
DENSEST = 200  # a member that is more times its packed size is a bomb; the real files pack about 3 to 1
ZIP, TARS = (".zip",), (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
CHUNK = 1 << 16
# What the readers of damaged archives raise: OSError that of bz2 and gzip, RuntimeError that of an encrypted zip.
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)


class NotThere(DataError):
    """The source does not have this file; it may have others."""


class Source(Protocol):
    """Gives files by relative path."""

    def get(self, path: str, part: Path) -> None:
        """Write the file into `part`.

        Raises:
            NotThere: the source has no such file.
            DataError: it does not arrive, or is no data file.
        """

    def close(self) -> None:
        """Let go of what is open."""


def made_here(path: str) -> bool:
    """Tell whether a pinned file was made for this suite, so that the published commit does not have it."""
    name = PurePosixPath(path).name
    return path.startswith("index/") or name in ("train-poison-aligned.csv", "train-poison-partial.csv")


def source_of(name: str | None, wanted: Iterable[str], timeout: float) -> Source:
    """Return the source that `--from` names: a folder, an archive or an http(s) address; None is the published commit.

    Raises:
        RequestError: it is none of these.
        DataError: an archive that cannot be read, or is hostile.
    """
    if name is None:
        return Mirror(PUBLISHED, timeout, LARGEST, NotThere)
    if name.startswith(("http://", "https://")):
        if name.lower().rstrip("/").endswith((*ZIP, *TARS)):
            raise RequestError(
                f"--from {name} is the address of an archive, and files are fetched one by one.",
                "Download the archive yourself and name it with --from, or give the address of the unpacked folder.",
            )
        return Mirror(name.rstrip("/") + "/", timeout, LARGEST, NotThere)
    path = Path(name)
    if path.is_dir():
        return Folder(path)
    if path.is_file() and path.name.lower().endswith((*ZIP, *TARS)):
        return Archive(path, wanted)
    raise RequestError(
        f"--from {name} is no source: there is no such folder or {', '.join((*ZIP, *TARS))} file.",
        "Name a folder with datasets/ and poison_data/, an archive of one, or its http(s) address.",
    )


class Folder:
    """A copy of the data, mounted or unpacked."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, path: str, part: Path) -> None:
        """Copy the file."""
        try:
            with (self.root / path).open("rb") as given, part.open("wb") as taken:
                shutil.copyfileobj(_limited(given, path), taken, CHUNK)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotThere(f"{self.root} has no {path}.", "Name another --from.") from None
        except PermissionError as error:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}.", "Make it readable.") from None

    def close(self) -> None:
        """Do nothing: no file stays open."""


class Archive:
    """A zip or tar file whose members are read by name; nothing is ever unpacked to a name that it gives itself.

    A wanted file is the member of that path, with or without one folder above all of them, as GitHub adds it.

    Raises:
        DataError: it cannot be read; it holds a path that leaves its folder, a link or device in a wanted place,
            too many members, too much, or a member packed too densely.
    """

    def __init__(self, path: Path, wanted: Iterable[str]) -> None:
        self.path = path
        self._zipped = path.name.lower().endswith(ZIP)
        with self._reading("cannot be read"):
            self._open: Any = zipfile.ZipFile(path) if self._zipped else tarfile.open(path)
        try:
            with self._reading("cannot be read"):
                listed = map(_zip_member, self._open.infolist()) if self._zipped else map(_tar_member, self._open)
                self._members = self._checked(listed, set(wanted))
        except DataError:
            self.close()
            raise

    def close(self) -> None:
        """Close the archive."""
        self._open.close()

    def _bad(self, reason: str) -> DataError:
        return DataError(f"The archive {self.path} {reason}.", "Get it again from where it is published.")

    def _checked(self, members: Iterable[tuple[str, int, int, bool, Any]], wanted: set[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        total = 0
        for count, (name, size, packed, plain, member) in enumerate(members, start=1):
            total += size
            if count > MEMBERS or total > TOTAL:
                raise self._bad(f"unpacks to more than {MEMBERS} members or {TOTAL >> 30} GiB: it is not unpacked")
            parts = PurePosixPath(name.replace("\\", "/")).parts
            if name.startswith(("/", "\\")) or ".." in parts or (parts and ":" in parts[0]):
                raise self._bad(f"holds the path {name!r}, which leads out of it")
            for path in ("/".join(parts), "/".join(parts[1:])):
                if path not in wanted:
                    continue
                if not plain:
                    raise self._bad(f"holds {name!r} as a link or device, not as a file")
                if size > LARGEST or size > DENSEST * max(packed, 1024):
                    raise self._bad(f"holds {name!r} of {size} bytes packed into {packed}: no data file is like that")
                if path in found:
                    raise self._bad(f"holds {path} twice")
                found[path] = member
        return found

    def get(self, path: str, part: Path) -> None:
        """Unpack the file."""
        member = self._members.get(path)
        if member is None:
            raise NotThere(f"{self.path} has no {path}.", "Name another --from.")
        damaged = f"is damaged at {path}"
        with self._reading(damaged):
            given = self._open.open(member) if self._zipped else self._open.extractfile(member)
        with given, part.open("wb") as taken:
            stream = _limited(given, path)
            while True:
                with self._reading(damaged):  # the writing is not in it: a full disk is no fault of the archive
                    chunk = stream.read(CHUNK)
                if not chunk:
                    return
                taken.write(chunk)

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            raise self._bad(f"{what}: {error}") from error


def _zip_member(info: zipfile.ZipInfo) -> tuple[str, int, int, bool, Any]:
    kind = info.external_attr >> 28  # the Unix file type; 0 where the archive was not made on Unix, 8 a plain file
    return info.filename, info.file_size, info.compress_size, kind in (0, 8) and not info.is_dir(), info


def _tar_member(info: tarfile.TarInfo) -> tuple[str, int, int, bool, Any]:
    return info.name, info.size, info.size, info.isreg(), info


class _limited:
    """A stream that refuses to give more than `LARGEST` bytes, whatever its header declared."""

    def __init__(self, stream: IO[bytes], path: str) -> None:
        self.stream, self.path, self.given = stream, path, 0

    def read(self, size: int) -> bytes:
        chunk = self.stream.read(size)
        self.given += len(chunk)
        if self.given > LARGEST:
            raise DataError(
                f"{self.path} has more than {LARGEST >> 20} MiB: no data file is that large.", "Look at it."
            )
        return chunk
