"""`bench docs`: the pages that are written from the code, and the board in README.md."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from bench.core.errors import RequestError
from bench.report.readme_board import with_board
from bench.report.reference_pages import reference_pages


def write_docs(to: Path, console: Console) -> int:
    """Write attackers.md, defenders.md and grids.md, and in a checkout the board of the README.md beside the folder.

    Raises:
        RequestError: the folder cannot be written, or README.md has lost its marks.
    """
    pages = {to / name: text for name, text in reference_pages().items()}
    readme, board = to.resolve().parent / "README.md", to.resolve().parent / "leaderboard" / "README.md"
    try:
        if board.is_file() and readme.is_file():
            pages[readme] = with_board(readme.read_text(encoding="utf-8"), board.read_text(encoding="utf-8"))
        to.mkdir(parents=True, exist_ok=True)
        for path, text in pages.items():
            path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise RequestError(f"{to} cannot be written: {error.strerror}.", "Name a folder that can be.") from None
    for path in pages:
        console.print(f"written: {path}", markup=False, highlight=False)
    return 0
