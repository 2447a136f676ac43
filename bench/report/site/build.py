"""Putting the site together: pages, plots, cells, style and scripts in one file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files

from bench.report.ledger import Ledger
from bench.report.reading import Heading, Part, Text, plain, read_page
from bench.report.records import Record
from bench.report.site.curves import curves
from bench.report.site.data import script_json, site_data
from bench.report.site.html import escape, section
from bench.report.site.links import Links
from bench.report.site.scatter import scatters

FOLDER = "site"
LIBRARY = "datatables-3.1.5"
ELSEWHERE = ("equal-budget.md",)  # shows cells that the selection of the other pages does not hold
NO_CURVES = "No cell was run at two poison ratios yet: <code>--poison-ratios 0,0.05,0.1,0.2</code> makes the curves."
NO_SCATTER = "There is no record to show yet."


def site(records: Sequence[Record] | Ledger, pages: Mapping[str, str]) -> dict[str, str]:
    """Return file name -> text of the site: `site/index.html`, and the licence of the library that it carries.

    Args:
        records: what the cells, plots and curves show.
        pages: file name -> Markdown, the board first, as `render` returns them.
    """
    ledger = Ledger.of(records)
    content = {name: [part for part in read_page(page) if not _in_menu(part)] for name, page in pages.items()}
    names = {name: "board" if name == "README.md" else name.removesuffix(".md") for name in pages}
    titles = {
        names[name]: next(plain(part.line) for part in parts if isinstance(part, Heading))
        for name, parts in content.items()
    }
    links = Links(ledger.selection)
    sections = "\n".join(
        f'<section id="{escape(names[name])}" aria-labelledby="{escape(names[name])}-title">'
        f"{section(parts, names[name], None if name in ELSEWHERE else links)}</section>"
        for name, parts in content.items()
    )
    links = "".join(f'<li><a href="#{escape(name)}">{escape(_short(title))}</a></li>' for name, title in titles.items())
    style, script, library = _asset("site.css"), _asset("site.js"), _asset(f"vendor/{LIBRARY}.min.js")
    values = {
        "POLICY": _policy(style, library, script),
        "STYLE": style,
        "LINKS": links,
        "SECTIONS": sections,
        "SCATTER": _choice("scatter", scatters(ledger.selection)) or f"<p>{NO_SCATTER}</p>",
        "RATIOS": _choice("ratios", curves(ledger)) or f"<p>{NO_CURVES}</p>",
        "COUNT": str(len(ledger.unique)),
        "DATA": script_json(site_data(ledger.unique)),
        "LIBRARY": library,
        "SCRIPT": script,
    }
    page = _asset("page.html")
    # The template is cut at its marks before anything is put in, so that no content can hold a mark.
    pieces = page.split("@@")
    text = "".join(values[piece] if place % 2 else piece for place, piece in enumerate(pieces))
    return {f"{FOLDER}/index.html": text, f"{FOLDER}/{LIBRARY}.LICENSE.txt": _asset(f"vendor/{LIBRARY}.LICENSE.txt")}


def _in_menu(part: Part) -> bool:
    """Tell whether a part is an item that only links to another page: the site's menu has it."""
    return isinstance(part, Text) and part.item and all(span.link.endswith(".md") for span in part.line)


def _asset(name: str) -> str:
    return (files("bench.report.site") / "assets" / name).read_text(encoding="utf-8")


def _short(title: str) -> str:
    return title.partition(":")[0]


def _policy(style: str, *scripts: str) -> str:
    """Return a content security policy that allows these texts and nothing else: no request leaves the page."""
    allowed = " ".join(_digest(script) for script in scripts)
    return f"default-src 'none'; script-src {allowed}; style-src {_digest(style)}; base-uri 'none'; form-action 'none'"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _choice(name: str, plots: Sequence[tuple[str, str]]) -> str:
    """Return a menu of plots and the plots; the script shows the chosen one, without it all are shown."""
    if not plots:
        return ""
    options = "".join(f'<option value="{place}">{escape(title)}</option>' for place, (title, _) in enumerate(plots))
    shown = "\n".join(f'<div class=plot data-place="{place}">{figure}</div>' for place, (_, figure) in enumerate(plots))
    menu = f'<select id="{name}-choice" data-plots="{name}">{options}</select>'
    return f'<p class=choice><label for="{name}-choice">Show</label> {menu}</p>{shown}'
