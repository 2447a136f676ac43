"""Printing what anybody may have written: names of files, folders and models cannot steer the terminal."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console

from bench.core.errors import printable


class PlainConsole(Console):
    """A console that shows control and direction marks in texts as escapes."""

    def print(
        self,
        *objects: Any,
        sep: str = " ",
        end: str = "\n",
        style: Any = None,
        markup: bool | None = None,
        highlight: bool | None = None,
    ) -> None:
        """Print as rich does, each text without such marks."""
        shown = (printable(item) if isinstance(item, str) else item for item in objects)
        super().print(*shown, sep=sep, end=end, style=style, markup=markup, highlight=highlight)


def refuse(problem: str, remedy: str) -> int:
    """Print an error as one sentence and a remedy; return exit code 2."""
    for word, text in (("Error", problem), ("Remedy", remedy)):
        if text:
            typer.echo(f"{word}: {printable(text)}".replace("\n", "\\n"), err=True)
    return 2


def refuse_file(error: OSError) -> int:
    """Print that a file or folder cannot be used, and why; return exit code 2."""
    what = error.filename if isinstance(error.filename, str) else "A file"
    return refuse(f"{what} cannot be used: {error.strerror or error}.", "Name another path, or make it usable.")
