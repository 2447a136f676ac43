"""Reading a rendered page back: its pipe tables as lists of rows, by heading."""

from __future__ import annotations

import re

Row = dict[str, str]


def tables(page: str) -> list[tuple[str, list[Row]]]:
    """Return (the nearest heading of level 2 or 3 above, rows by column name) of each pipe table of a page."""
    found: list[tuple[str, list[Row]]] = []
    heading, lines = "", []
    for line in [*page.split("\n"), ""]:
        if line.startswith("|"):
            lines.append(split(line))
            continue
        if lines:
            found.append((heading, [dict(zip(lines[0], row, strict=True)) for row in lines[2:]]))
            lines = []
        if line.startswith("#"):
            heading = line.lstrip("# ")
    return found


def split(line: str) -> list[str]:
    """Return the cells of a table line; an escaped bar is no border."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def rows(page: str, heading: str) -> list[Row]:
    """Return the rows of the first table under a heading."""
    return next(content for title, content in tables(page) if title == heading)


def row(page: str, heading: str, **labels: str) -> Row:
    """Return the one row under a heading with these labels (Dataset, Method ...)."""
    (found,) = [one for one in rows(page, heading) if all(one[name] == value for name, value in labels.items())]
    return found
