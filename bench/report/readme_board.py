"""The board that README.md shows: the first block of leaderboard/README.md, between two marks, copied by a program."""

from __future__ import annotations

from bench.core.errors import RequestError
from bench.report.markdown import DASH, table

BEGIN, END = "<!-- board -->", "<!-- end of board -->"
RESULTS = ("CACC", "ASR", "Average rank")
SHOWN = ("Defense", "Seeds", "Clean samples", *RESULTS)
ORDER = "The best average rank by ASR first."


def with_board(readme: str, leaderboard: str) -> str:
    """Return the text of README.md with the board between its marks written again.

    Raises:
        RequestError: one of the marks is missing.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise RequestError(f"README.md does not hold {BEGIN} and {END} once.", "Put them around the board.")
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{_board(leaderboard)}\n{END}{tail}"


def _board(leaderboard: str) -> str:
    lines = leaderboard.split("\n")
    start = next((place for place, line in enumerate(lines) if line.startswith("|")), None)
    if start is None:
        return "No results yet."
    title = next(line.removeprefix("## ") for line in reversed(lines[:start]) if line.startswith("## "))
    block = [line for line in lines[start:] if line.startswith("|") or not line]
    rows = [_cells(line) for line in block[: block.index("")] if line]
    shown = [place for place, name in enumerate(rows[0]) if name in SHOWN]
    results = [place for place, name in enumerate(rows[0]) if name in RESULTS]
    # A row without any result is left to the leaderboard.
    kept = [row for row in rows[2:] if {row[place] for place in results} != {DASH}]
    picked = [[row[place] for place in shown] for row in [rows[0], *kept]]
    attacks = next((line for line in lines[:start] if line.startswith("Attacks: ")), "")
    return f"{title}. {attacks} {ORDER}\n\n{table(picked[0], picked[1:], 1)}"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
