"""A generated paraphrase bank on disk: a journal that is only ever appended to, so that a crash loses one batch.

Each line is the first 16 hexadecimal digits of the sha256 of its JSON, a space, and the JSON:

    {"bank": 1, "made_by": {...}}            first line: the paraphraser with its revision and every option
    {"text": "...", "units": ["...", ...]}   a text, and the sentences that it was cut into
    {"unit": "...", "said": "..."}           the paraphrase of a sentence
    {"unit": "...", "failed": "reason"}      a sentence that has none
    {"batch": 32, "seconds": 1.5, ...}       what a batch took

A batch is written and flushed to the disk (fsync) as a whole; a half-written end is cut off when the bank is next
opened. A bank holds the work of one paraphraser with one set of options: that and the text are the key of an entry.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from bench.core.errors import DataError, RequestError
from bench.core.seeding import digest

FORMAT = 1
MADE = "python -m bench data paraphrase"


@dataclass
class Content:
    """What a bank holds, by text; `size` is the length in bytes of its whole lines, `torn` of the broken end."""

    made_by: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)  # text -> its sentences
    said: dict[str, str] = field(default_factory=dict)  # sentence -> paraphrase
    failed: dict[str, str] = field(default_factory=dict)  # sentence -> why there is none
    sentences: int = 0  # of all batches: those paraphrased or failed
    seconds: float = 0.0  # that the batches took
    size: int = 0
    torn: int = 0

    def pending(self) -> list[str]:
        """Return the sentences without an entry, each once, in the order of their texts."""
        units = dict.fromkeys(unit for units in self.texts.values() for unit in units)
        return [unit for unit in units if unit not in self.said and unit not in self.failed]

    def paraphrase(self, text: str) -> str | None:
        """Return the paraphrase of a whole text; None where no sentence of it has one.

        A sentence without one stands as it was among the others.

        Raises:
            KeyError: the text, or a sentence of it, has no entry yet.
        """
        units = self.texts[text]
        for unit in units:
            if unit not in self.said and unit not in self.failed:
                raise KeyError(unit)
        if not any(unit in self.said for unit in units):
            return None
        return " ".join(self.said.get(unit, unit) for unit in units)

    def reasons(self) -> Counter[str]:
        """Return how many sentences failed, by reason."""
        return Counter(self.failed.values())

    def speed(self) -> float | None:
        """Return sentences per second over all batches; None before the first."""
        return self.sentences / self.seconds if self.seconds else None

    def take(self, entry: Mapping[str, Any]) -> None:
        """Take the content of one line."""
        if "said" in entry:
            self.said[entry["unit"]] = entry["said"]
        elif "failed" in entry:
            self.failed[entry["unit"]] = entry["failed"]
        elif "units" in entry:
            self.texts[entry["text"]] = tuple(entry["units"])
        elif "batch" in entry:
            self.sentences += entry["batch"]
            self.seconds += entry["seconds"]


def identity_digest(made_by: Mapping[str, Any]) -> str:
    """Return the digest of a paraphraser with its revision and options: what tells one bank from another."""
    return digest("paraphraser", dict(made_by))


def read_bank(path: Path) -> Content:
    """Return what a bank holds, less a half-written end.

    Raises:
        DataError: it does not exist, cannot be read, is no bank, or is damaged before its end.
    """
    try:
        if path.exists() and not path.is_file():  # a device may have no end
            raise DataError(f"{path} is no paraphrase bank: it is a folder or a device.", "Name a file.")
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"The paraphrase bank {path} does not exist.", f"Make it: {MADE}.") from None
    except OSError as error:
        raise DataError(f"The paraphrase bank {path} cannot be read: {error.strerror}.", "Name another.") from None
    content = Content()
    broken: int | None = None
    place = number = 0
    while place < len(data):
        number += 1
        end = data.find(b"\n", place) + 1 or len(data)
        entry = _entry(data[place:end])
        if number == 1 and (entry is None or entry.get("bank") != FORMAT):
            raise DataError(f"{path} is no paraphrase bank of format {FORMAT}.", f"Make one: {MADE}.")
        if entry is None:
            broken = broken or number
        elif broken is not None:
            raise DataError(
                f"The paraphrase bank {path} is damaged at line {broken}: its checksum is wrong; whole lines follow.",
                "Restore it from a copy; deleting the damaged line has its sentence paraphrased again.",
            )
        else:
            content.size = end
            if number == 1:
                content.made_by = entry["made_by"]
            content.take(entry)
        place = end
    if number == 0:
        raise DataError(f"{path} is no paraphrase bank: it is empty.", f"Remove it and make one: {MADE}.")
    content.torn = len(data) - content.size
    return content


def _line(entry: Mapping[str, Any]) -> bytes:
    body = json.dumps(entry, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    return hashlib.sha256(body).hexdigest()[:16].encode() + b" " + body + b"\n"


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return the content of a line, None where it is not whole."""
    body = line[17:-1]
    if line[-1:] != b"\n" or line[:17] != hashlib.sha256(body).hexdigest()[:16].encode() + b" ":
        return None
    return json.loads(body)


class Journal:
    """A bank that is open for appending; `content` is what it holds, kept up to date."""

    def __init__(self, path: Path, stream: IO[bytes], content: Content) -> None:
        self.path, self._stream, self.content = path, stream, content

    def append(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Write entries and flush them to the disk: afterwards they outlive the process and the power.

        Raises:
            DataError: they cannot be written, the disk is full, say; the bank is then as it was before.
        """
        data = b"".join(map(_line, entries))
        try:
            written = 0
            while written < len(data):
                written += os.write(self._stream.fileno(), data[written:])
            os.fsync(self._stream.fileno())
        except OSError as error:
            os.ftruncate(self._stream.fileno(), self.content.size)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise DataError(
                f"The paraphrase bank {self.path} cannot be written: {error.strerror}.",
                f"{'Free disk space' if full else 'Make it writable'} and run the same command again: "
                "all that was written before is kept.",
            ) from error
        self.content.size += len(data)
        for entry in entries:
            self.content.take(entry)


@contextmanager
def open_bank(path: Path, made_by: Mapping[str, Any]) -> Iterator[Journal]:
    """Open a bank for appending, or begin it; a half-written end is cut off. One process at a time.

    Raises:
        RequestError: it was made by another paraphraser or with other options, or another process has it.
        DataError: it is damaged, is no bank, or cannot be written.
    """
    made_by = json.loads(json.dumps(made_by))
    if path.exists() and not path.is_file():
        raise RequestError(f"--bank {path} is a folder or a device.", "Name a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("ab")
    except OSError as error:
        raise DataError(
            f"The paraphrase bank {path} cannot be opened: {error.strerror}.", "Name a file that can be written."
        ) from error
    with stream:
        _lock(path, stream)
        yield _begun(path, stream, made_by)


def _begun(path: Path, stream: IO[bytes], made_by: dict[str, Any]) -> Journal:
    """Return the journal of a bank: a new one, or what is there less its half-written end."""
    header = {"bank": FORMAT, "made_by": made_by}
    if _line(header)[:-1].startswith(path.read_bytes()):  # empty, or killed within its first line
        os.ftruncate(stream.fileno(), 0)
        journal = Journal(path, stream, Content(made_by=made_by))
        journal.append([header])
        _flush_folder(path.parent)
        return journal
    content = read_bank(path)
    _check_same(path, content.made_by, made_by)
    if content.torn:
        os.ftruncate(stream.fileno(), content.size)
    return Journal(path, stream, content)


def _check_same(path: Path, there: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    other = [name for name in sorted({*there, *asked}) if there.get(name) != asked.get(name)]
    if other:
        said = "; ".join(f"{name} {there.get(name)!r}, not {asked.get(name)!r}" for name in other)
        raise RequestError(
            f"The paraphrase bank {path} was made with {said}.",
            "Give the same options to go on with it, or name another file; this one is left as it is.",
        )


def _lock(path: Path, stream: IO[bytes]) -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RequestError(f"Another process is writing the paraphrase bank {path}.", "Wait for it.") from None


def _flush_folder(folder: Path) -> None:
    """Make the name of a new file outlive the power, where folders can be opened."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def entries_of(texts: Iterable[tuple[str, Sequence[str]]]) -> list[dict[str, Any]]:
    """Return the lines that say into which sentences texts were cut."""
    return [{"text": text, "units": list(units)} for text, units in texts]
