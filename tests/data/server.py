"""A local HTTP server whose answers are written out request by request, so that every way of failing can be had."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """One answer: its content, and how it goes wrong."""

    content: bytes = b""
    status: int = 200
    kind: str = "text/plain; charset=utf-8"
    ranges: bool = True  # whether a Range is honoured
    break_after: int | None = None  # bytes sent before the connection is closed, Content-Length promising all
    silence: float = 0.0  # seconds without a byte, after `break_after` bytes
    shift: int = 0  # added to the place that a partial answer says it begins at
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Server:
    """What is served, and what was asked: (path, Range header or None) in order."""

    base: str = ""
    answers: dict[str, Sequence[Answer]] = field(default_factory=dict)  # path -> one for each request, the last for all
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def ranges(self, path: str) -> list[str | None]:
        """Return the Range headers of the requests for a path, in order."""
        return [given for asked, given in self.asked if asked == path]


@contextmanager
def serving() -> Iterator[Server]:
    """Serve on a free port of this machine until the block ends."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, wanted = self.path.lstrip("/"), self.headers.get("Range")
            place = len(server.ranges(path))
            server.asked.append((path, wanted))
            script = server.answers.get(path, (Answer(status=404),))
            _answer(self, script[min(place, len(script) - 1)], wanted)

        def log_message(self, *arguments: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.base = f"http://127.0.0.1:{listener.server_port}/"
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, answer: Answer, wanted: str | None) -> None:
    begin, status = 0, answer.status
    if wanted and answer.ranges and status == 200:
        begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
        status = 206 if begin < len(answer.content) else 416
    body = b"" if status == 416 else answer.content[begin:]
    handler.send_response(status)
    handler.send_header("Content-Type", answer.kind)
    handler.send_header("Content-Length", str(len(body)))
    if status == 206:
        end, size = len(answer.content) - 1, len(answer.content)
        handler.send_header("Content-Range", f"bytes {begin + answer.shift}-{end}/{size}")
    for name, value in answer.headers:
        handler.send_header(name, value)
    handler.end_headers()
    if answer.break_after is not None:
        handler.wfile.write(body[: answer.break_after])
        handler.wfile.flush()
        time.sleep(answer.silence)
        handler.close_connection = True
    else:
        handler.wfile.write(body)
