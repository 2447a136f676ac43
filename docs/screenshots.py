"""Makes the screenshots of the docs: `python docs/screenshots.py [terminal] [site]`, from the root of a checkout.

The terminal ones are SVG of what the commands really print; the site ones are PNG, in a headless Chromium, of the site
that the published records make with this code.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "screenshots"
WIDTH, WIDEST = 112, 160  # columns: a wide table gets a wide window
SMOKE = "--attacks badnets --defenders vanilla,lora --poison-ratios 0.1 --limit 64 --set model.max_steps=3"
TERMINAL = {
    "run": f"python -m bench run --grid demo {SMOKE}",
    "plan": "python -m bench plan --grid table2",
    "check": "python -m bench check",
    "error": "python -m bench run --grid demo --defenders vanilla,musclelor",
}
# name -> (page of the site, colour scheme, width and height of the window)
SITE = {
    "board": ("board", "light", (1280, 760)),
    "table1": ("table1", "dark", (1280, 760)),
    "scatter": ("scatter", "light", (1280, 900)),
    "cells": ("cells", "dark", (1280, 760)),
    "cell": ("cell", "light", (1280, 760)),
    "narrow": ("board", "dark", (390, 760)),
}


def printed(command: str, folder: Path) -> str:
    """Run a command in a folder and return what it prints, output and errors together; its exit code is shown too."""
    words = [sys.executable, *shlex.split(command)[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": str(WIDTH)}
    done = subprocess.run(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900
    )
    return f"{done.stdout.rstrip()}\n$ echo $?\n{done.returncode}"


def terminal_svg(title: str, command: str, text: str) -> str:
    """Return a terminal window with a command and its output as SVG that loads nothing."""
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.console import Console
    from rich.text import Text

    width = max(WIDTH, min(WIDEST, max(len(line) for line in text.splitlines()) + 1))
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(Text.assemble(("$ ", "green"), (command, "bold")))
    console.print(Text(text))
    # rich names web fonts: the reader's own monospace does as well, and needs no request.
    plain = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(title=title, code_format=plain, unique_id=f"bench-{title}")


def terminal() -> None:
    """Write the SVG of each command."""
    with tempfile.TemporaryDirectory() as folder:
        for name, command in TERMINAL.items():
            text = printed(command, Path(folder)).replace(folder, ".")
            (OUT / f"{name}.svg").write_text(terminal_svg(name, command, text), encoding="utf-8")


def site() -> None:
    """Write the PNG of each page of the published site."""
    sys.path.insert(0, str(ROOT))
    from bench.report.records import load_records
    from bench.report.render import render
    from bench.report.site.build import site as site_of
    from tests.report.chromium import browser

    records = load_records(ROOT / "leaderboard" / "records.jsonl")
    built = site_of(records, render(records, every_table=True))["site/index.html"]
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        index = Path(folder) / "index.html"
        index.write_text(built, encoding="utf-8")
        for name, (page_name, scheme, (width, height)) in SITE.items():
            context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
            page = context.new_page()
            page.goto(f"{index.as_uri()}#{'cells' if page_name == 'cell' else page_name}")
            if page_name == "cell":
                page.locator("#cells-table tbody a").first.click()
            if name == "narrow":  # past the legend
                page.locator("#board h3").first.evaluate("(heading) => heading.scrollIntoView()")
            page.screenshot(path=OUT / f"site-{name}.png")
            context.close()


def main() -> None:
    """Write the screenshots that are named, or all."""
    OUT.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or ("terminal", "site"):
        {"terminal": terminal, "site": site}[name]()


if __name__ == "__main__":
    main()
