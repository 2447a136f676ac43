"""Markdown: escaping of what comes from records, numbers, marks and pipe tables."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from tabulate import tabulate

DASH = "—"
DAGGER = "†"
_SPECIAL = re.compile(r"([\\`*_\[\]|~$!])")


def escape(text: object) -> str:
    """Return text as one line that Markdown and HTML show literally: no markup, table bars or control characters."""
    line = " ".join(str(text).split())
    line = "".join(letter if letter.isprintable() else "\ufffd" for letter in line)
    return _SPECIAL.sub(r"\\\1", html.escape(line, quote=False))


def shorten(text: str, length: int = 300) -> str:
    """Return text of at most `length` characters, cut with an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def percent(fraction: float | None) -> str:
    """Return a fraction as percent with two decimals and no sign on zero, or an em dash."""
    if fraction is None:
        return DASH
    text = f"{100 * fraction:.2f}"
    return "0.00" if text == "-0.00" else text


def printed(fraction: float | None) -> float | None:
    """Return a fraction as the number a reader sees (percent, two decimals), by which cells are compared."""
    return None if fraction is None else float(percent(fraction))


def marked(text: str, mark: str) -> str:
    """Return text in bold or underlined, or as it is, for the marks "bold", "underline" and ""."""
    return {"bold": f"**{text}**", "underline": f"<u>{text}</u>", "": text}[mark]


def number(value: float, decimals: int = 0) -> str:
    """Return a number with thousands separated by commas."""
    return f"{value:,.{decimals}f}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], labels: int) -> str:
    """Return a pipe table whose first `labels` columns are left-aligned and whose others are right-aligned."""
    align = ["left"] * labels + ["right"] * (len(headers) - labels)
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True, colalign=align if rows else None)


def listed(items: Sequence[str], most: int = 12) -> str:
    """Return items joined by semicolons, and after `most` of them how many more there are."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return "; ".join([*items[:most], *more])
