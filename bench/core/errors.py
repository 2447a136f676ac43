"""Errors that a user reads: one sentence with the value and the rule, and a remedy."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

Found = TypeVar("Found")


class BenchError(Exception):
    """An expected failure: `problem` names the value and the rule, `remedy` says what to do."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}".strip()


class RequestError(BenchError, ValueError):
    """The request is wrong as a whole: nothing is run and the exit code is 2."""


class DataError(BenchError):
    """A data file is missing, altered or unreadable."""


class CellError(BenchError):
    """One cell cannot be: it becomes a failed record and the other cells run.

    `away`: for want of files that decide the keys of its stages; it can be once they are back.
    """

    def __init__(self, problem: str, remedy: str = "", away: bool = False) -> None:
        super().__init__(problem, remedy)
        self.away = away


def unknown(kind: str, name: object, valid: Iterable[str]) -> RequestError:
    """Return the error for a name that does not exist, with the nearest names that do."""
    names = sorted(map(str, valid))
    lower = {item.casefold(): item for item in reversed(names)}
    close = difflib.get_close_matches(str(name).casefold(), lower, n=1, cutoff=0.5)
    remedy = f"Did you mean {lower[close[0]]!r}?" if close else "There are: " + (", ".join(names) or "none") + "."
    return RequestError(f"There is no {kind} named {str(name)!r}.", remedy)


def tried(act: Callable[[], Found]) -> Found | Exception:
    """Return what `act` returns, or the error that it raises: where one of several may fail without the others."""
    try:
        return act()
    except Exception as error:
        return error


def reason_of(error: Mapping[str, Any], *, remedy: bool = True) -> str:
    """Return why a cell failed, as its record says it: with the kind of error where nobody had expected one."""
    kind, message = str(error.get("type") or ""), str(error.get("message") or "")
    sudden = f"{kind}: " if error.get("traceback") and message != kind else ""
    return f"{sudden}{message} {(error.get('remedy') or '') if remedy else ''}".strip()


def printable(text: str, most: int = 2000) -> str:
    """Return text that a terminal shows as it is: control and direction marks escaped, the middle of a long one cut."""
    if len(text) > most:
        text = f"{text[: most // 2]} ... {text[-most // 2 :]}"
    return "".join(letter if letter.isprintable() or letter == "\n" else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
