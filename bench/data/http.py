"""Files over HTTP: resumed where they broke off, retried where that helps, refused where a web page comes instead."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.core.errors import DataError

ATTEMPTS = 5
FIRST_WAIT = 0.5  # seconds before the second attempt; doubled each time
LONGEST_WAIT = 30.0
CHUNK = 1 << 16
POINTER = b"version https://git-lfs"
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class _Again(Exception):
    """The transfer broke in a way that another attempt may mend."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Unreachable(DataError):
    """The server was not reached at all, so the next file need not be tried."""


class Mirror:
    """A folder behind an http(s) address.

    `timeout` is the longest silence in seconds before a transfer counts as broken; a slow one that goes on is left
    alone. A part file that is there is gone on with (Range), or begun anew where the server cannot.
    """

    def __init__(self, base: str, timeout: float, largest: int, absent: type[DataError]) -> None:
        self.base, self.timeout, self.largest, self.absent = base, timeout, largest, absent
        self.first_wait = FIRST_WAIT

    def get(self, path: str, part: Path) -> None:
        """Download the file.

        Raises:
            DataError: absent, refused, a web page, too large, or not whole after `ATTEMPTS` attempts.
        """
        address = self.base + quote(path)
        reason, reached = "", False
        for attempt in range(ATTEMPTS):
            have = part.stat().st_size if part.exists() else 0
            try:
                self._transfer(address, part, have)
                return
            except _Again as error:
                reason, reached, wait = str(error), True, error.wait
            except urllib.error.URLError as error:
                reason, wait = str(error.reason), 0.0
            except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
                reason, reached, wait = str(error) or type(error).__name__, True, 0.0
            if attempt < ATTEMPTS - 1:
                time.sleep(min(max(wait, self.first_wait * 2**attempt), LONGEST_WAIT))
        kind = DataError if reached else Unreachable
        raise kind(
            f"{address} did not arrive whole in {ATTEMPTS} attempts: {reason}.",
            "Run the same command again: it goes on where it was. Without a network, take the data with --from.",
        )

    def close(self) -> None:
        """Do nothing: no connection stays open."""

    def _transfer(self, address: str, part: Path, have: int) -> None:
        headers = {"User-Agent": "openbackdoor-bench", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            answer = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=self.timeout)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(address, part, error)
            raise
        with answer:
            _check_type(address, answer.headers.get_content_type())
            begin, total = self._extent(part, have, answer)
            # What was there is kept only where the server says that it goes on from exactly there.
            with part.open("ab" if begin else "wb") as stream:
                received = begin
                while chunk := answer.read1(CHUNK):
                    if received == 0:
                        _check_content(address, chunk)
                    received += len(chunk)
                    if received > self.largest:
                        raise DataError(
                            f"{address} has more than {self.largest >> 20} MiB: no data file is that large.",
                            "Check the address.",
                        )
                    stream.write(chunk)
        if total is not None and received < total:
            raise _Again(f"it broke off after {received} of {total} bytes")

    def _refused(self, address: str, part: Path, error: urllib.error.HTTPError) -> None:
        if error.code in (404, 410):
            raise self.absent(f"{address} does not exist (HTTP {error.code}).", "Name another --from.") from None
        if error.code == 416:  # nothing is left behind what is here: begin anew, or the file here was longer
            part.unlink(missing_ok=True)
            raise _Again("the part that was here is longer than the file") from None
        if error.code == 429 or error.code >= 500:
            given = error.headers.get("Retry-After", "")
            raise _Again(f"HTTP {error.code} {error.reason}", float(given) if given.isdigit() else 0.0) from None
        raise DataError(
            f"{address} was refused: HTTP {error.code} {error.reason}.", "Check the address, or take --from."
        ) from None

    def _extent(self, part: Path, have: int, answer: Any) -> tuple[int, int | None]:
        """Return where the answer begins in the file, and the size of the whole file if it says so."""
        length = answer.headers.get("Content-Length", "")
        if answer.status != 206:
            return 0, int(length) if length.isdigit() else None
        match = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        if match is None or int(match[1]) != have:
            part.unlink(missing_ok=True)
            raise _Again(f"it was asked for byte {have} and sent {answer.headers.get('Content-Range')!r}")
        return have, int(match[2]) if match[2].isdigit() else None


def _check_type(address: str, kind: str) -> None:
    if kind in ("text/html", "application/xhtml+xml"):
        raise _web_page(address)


def _check_content(address: str, start: bytes) -> None:
    head = start[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        raise _web_page(address)
    if head.startswith(POINTER):
        raise DataError(f"{address} is a pointer to large-file storage, not the file.", "Name another --from.")


def _web_page(address: str) -> DataError:
    return DataError(
        f"{address} sent a web page, not the data file.",
        "A proxy, a login page or a wrong address stands between; open it in a browser, or take the data with --from.",
    )
