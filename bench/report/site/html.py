"""A rendered page as HTML: escaped, with the numbers by which its columns sort."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Sequence

from bench.report.markdown import DASH
from bench.report.reading import Grid, Heading, Line, Part, Text, plain
from bench.report.site.links import DEFENSE, Links

_NUMBER = re.compile(r"-?[\d,]*\.?\d+")


def escape(text: object) -> str:
    """Return text that HTML shows as it stands, in an element or an attribute."""
    return html.escape(str(text), quote=True)


def section(parts: Sequence[Part], name: str, links: Links | None = None) -> str:
    """Return the HTML of a page's parts; headings move one level down, since the site's title is above them.

    Args:
        links: where rows and numbers lead; None for a page of which nothing leads to a cell.
    """
    lines = []
    caption = block = ""
    for is_item, group in itertools.groupby(parts, key=lambda part: isinstance(part, Text) and part.item):
        members = list(group)
        if is_item:
            items = "".join(f"<li>{_line(part.line)}</li>" for part in members if isinstance(part, Text))
            lines.append(f"<ul>{items}</ul>")
            continue
        for part in members:
            if isinstance(part, Heading):
                caption = plain(part.line)
                block = caption if part.level < 3 else block
                focus = f' id="{escape(name)}-title" tabindex="-1"' if part.level == 1 else ""
                lines.append(f"<h{part.level + 1}{focus}>{_line(part.line)}</h{part.level + 1}>")
            elif isinstance(part, Text):
                lines.append(f"<p>{_line(part.line)}</p>")
            else:
                lines.append(_table(part, caption, block, links))
    return "\n".join(lines)


def _table(grid: Grid, caption: str, block: str, links: Links | None) -> str:
    head = "".join(
        f'<th scope="col"{"" if place < grid.labels else " class=number"}>{_line(header)}</th>'
        for place, header in enumerate(grid.headers)
    )
    headers = [plain(header) for header in grid.headers]
    body, hint = [], ""
    for row in grid.rows:
        named = {header: plain(cell) for header, cell in zip(headers[: grid.labels], row, strict=False)}
        target = links.row(block, named) if links else ""
        labels = [
            _anchor(_line(cell), target if header in DEFENSE else "") for header, cell in zip(named, row, strict=False)
        ]
        cells = [f'<th scope="row">{label}</th>' for label in labels[:1]]
        cells += [f"<td>{label}</td>" for label in labels[1:]]
        for header, cell in zip(headers[grid.labels :], row[grid.labels :], strict=True):
            target = links.number(block, named, header) if links and plain(cell) != DASH else ""
            cells.append(f'<td class=number data-order="{_order(cell)}">{_anchor(_line(cell), target)}</td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    if any("<a class=cell" in row for row in body):
        hint = ". A name or number leads to its cells"
    return (
        f'<div class=scroll tabindex=0 role=region aria-label="{escape(caption)}"><table class=board>'
        f"<caption>{escape(caption)}{hint}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _order(line: Line) -> str:
    """Return the first number of a cell, by which it sorts, or "" for a dash; brackets hold the paper's number."""
    found = _NUMBER.match(plain(line))
    return found.group().replace(",", "") if found else ""


def _line(line: Line) -> str:
    shown = []
    for span in line:
        text = escape(span.text)
        for tag, on in (("code", span.code), ("em", span.italic), ("u", span.underline), ("strong", span.bold)):
            text = f"<{tag}>{text}</{tag}>" if on else text
        shown.append(f'<a href="{escape(_target(span.link))}">{text}</a>' if span.link else text)
    return "".join(shown)


def _anchor(content: str, target: str) -> str:
    return f'<a class=cell href="{escape(target)}">{content}</a>' if target else content


def _target(link: str) -> str:
    """Return a page's section for a link to its file; other links only where they lead to a web page."""
    if link.endswith(".md") and "/" not in link:
        return "#board" if link == "README.md" else f"#{link.removesuffix('.md')}"
    return link if link.startswith("https://") else "#board"
