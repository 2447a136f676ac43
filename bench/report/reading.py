"""Reading a rendered page: its headings, texts and tables, from which the other formats are written.

Markdown is the one source of a page, so LaTeX, CSV, JSON and HTML cannot say anything else than it does.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

UNDERLINE = ("<u>", "</u>")  # the only HTML that pages hold; anything else is text


@dataclass(frozen=True)
class Span:
    """A piece of a line with its marks."""

    text: str
    bold: bool = False
    underline: bool = False
    italic: bool = False
    code: bool = False
    link: str = ""


Line = tuple[Span, ...]


@dataclass(frozen=True)
class Heading:
    """A heading of level 1, 2 or 3."""

    level: int
    line: Line


@dataclass(frozen=True)
class Text:
    """A paragraph, or an item of a list."""

    line: Line
    item: bool = False


@dataclass(frozen=True)
class Grid:
    """A table: its first `labels` columns are left-aligned and name the row."""

    headers: tuple[Line, ...]
    rows: tuple[tuple[Line, ...], ...]
    labels: int


Part = Heading | Text | Grid


def plain(line: Line) -> str:
    """Return a line without its marks."""
    return "".join(span.text for span in line)


@functools.cache
def _parser() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table")


@functools.lru_cache(maxsize=32)  # the pages of a leaderboard: every format is made from the same reading
def read_page(page: str) -> tuple[Part, ...]:
    """Return the parts of a page in order."""
    return tuple(_parts(_parser().parse(page)))


def _parts(tokens: Sequence[Any]) -> Iterator[Part]:
    items = 0
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            yield Heading(int(token.tag[1:]), _line(tokens[place + 1]))
        elif token.type in ("list_item_open", "list_item_close"):
            items += token.nesting
        elif token.type == "paragraph_open":
            yield Text(_line(tokens[place + 1]), item=items > 0)
        elif token.type == "html_block":
            yield Text((Span(token.content.strip()),))
        elif token.type == "table_open":
            yield _grid(tokens[place:])


def _grid(tokens: Sequence[Any]) -> Grid:
    rows: list[list[Line]] = []
    left = 0
    for place, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append(_line(tokens[place + 1]))
            left += token.type == "th_open" and "left" in str(token.attrGet("style"))
        elif token.type == "table_close":
            break
    return Grid(tuple(rows[0]), tuple(tuple(row) for row in rows[1:]), left)


def _line(token: Any) -> Line:
    marks = Span("")
    spans: list[Span] = []
    for child in token.children or ():
        kind = child.type
        if kind in ("strong_open", "strong_close"):
            marks = replace(marks, bold=child.nesting > 0)
        elif kind in ("em_open", "em_close"):
            marks = replace(marks, italic=child.nesting > 0)
        elif kind in ("link_open", "link_close"):
            marks = replace(marks, link=str(child.attrGet("href") or ""))
        elif kind == "html_inline" and child.content in UNDERLINE:
            marks = replace(marks, underline=child.content == UNDERLINE[0])
        elif kind == "code_inline":
            spans.append(replace(marks, text=child.content, code=True))
        elif kind in ("softbreak", "hardbreak"):
            spans.append(replace(marks, text=" "))
        elif child.content:
            spans.append(replace(marks, text=child.content))
    return tuple(spans)
