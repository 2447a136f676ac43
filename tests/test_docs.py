"""All Markdown of the repository: every relative link leads to a file, every command that it quotes parses."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from bench.cli import app
from bench.engine.grid import load_grid

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "report" / "golden"  # pages of a leaderboard that lacks one file
PAGES = [
    page
    for folder in ("", "docs", "docs/measured", "leaderboard", "bench", "tests")
    for page in sorted((ROOT / folder).glob("**/*.md" if folder in ("bench", "tests") else "*.md"))
    if FIXTURES not in page.parents
]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
WEB = ("https://", "http://", "#", "mailto:")


@functools.cache
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def quoted(content: str) -> Iterator[tuple[str, bool]]:
    """Yield the commands of a page (what follows `bench`), and whether each stands whole or is only mentioned."""
    content = content.replace("\\\n", " ")
    for line in re.findall(r"^    (.*python -m bench .*)$", content, re.MULTILINE):
        for part in re.sub(r"\s+#\s.*", "", line).split("&&"):
            if "python -m bench " in part:
                yield part.partition("python -m bench ")[2], True
    for code in re.findall(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)", content):
        found = re.fullmatch(r"(python -m )?bench ([a-z-]+ ?.*)", code.replace("\n", " "))
        if found:
            yield found[2], bool(found[1])


def parse(command: str) -> dict[str, Any]:
    """Return the parameters of a command, as the command line reads them; nothing is run."""
    words = shlex.split(command.replace("[", "").replace("]", "") if "[--" in command else command)
    group: Any = typer.main.get_command(app)
    context = group.make_context("bench", [words[0]], resilient_parsing=True)
    while words and hasattr(group, "commands"):
        name, group = words[0], group.commands[words[0]]
        words = words[1:]
        context = group.make_context(name, list(words), parent=context, resilient_parsing=hasattr(group, "commands"))
    return context.params


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)
    targets = [target for target in LINK.findall(prose) if not target.startswith(WEB)]
    assert [target for target in targets if not (page.parent / target.partition("#")[0]).exists()] == []


def test_every_quoted_command_parses() -> None:
    wrong, whole = [], 0
    for page in PAGES:
        for command, complete in quoted(text(page)):
            whole += complete
            try:
                given = parse(command)
                if given.get("grid") not in (None, "NAME"):
                    load_grid(given["grid"])
            except Exception as error:
                if complete or type(error).__name__ not in ("MissingParameter", "BadParameter"):
                    wrong.append(f"{page.relative_to(ROOT)}: bench {command}: {error!r}")
    assert wrong == []
    assert whole > 50


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        ("rnu --grid demo", "KeyError"),
        ("run --grids demo", "NoSuchOption"),
        ("new defender", "MissingParameter"),
        ("run", "MissingParameter"),
        ("speed --steps many", "BadParameter"),
    ],
)
def test_a_wrong_command_does_not_parse(command: str, refusal: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - typer carries its own copy of click's exceptions
        parse(command)
    assert type(caught.value).__name__ == refusal
