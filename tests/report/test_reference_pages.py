"""The pages of docs/ that are written from the code: current, whole, and readable Markdown."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.core.options import option_names
from bench.core.registry import ATTACKERS, DEFENDERS, own_plugins
from bench.engine.expand import expand
from bench.engine.grid import grid_names, load_grid
from bench.report.reference_pages import reference_pages

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", ["attackers.md", "defenders.md", "grids.md"])
def test_a_page_is_current(name: str) -> None:
    said = "run: python -m bench docs"
    assert (DOCS / name).read_text(encoding="utf-8") == reference_pages()[name], said


def test_every_plugin_option_and_grid_is_there() -> None:
    pages = reference_pages()
    for family, page in ((ATTACKERS, "attackers.md"), (DEFENDERS, "defenders.md")):
        sections = dict(part.split("\n", 1) for part in pages[page].split("\n## ")[1:])
        assert set(sections) == set(own_plugins(family))
        for name, plugin in own_plugins(family).items():
            for option in option_names(plugin):
                assert f"| `{option}` " in sections[name]
    assert [part.split("\n")[0] for part in pages["grids.md"].split("\n## ")[1:]] == list(grid_names())


@pytest.mark.parametrize(
    ("page", "plugin", "option", "default"),
    [
        ("attackers.md", "badnets", "draw", "from the recipe"),
        ("attackers.md", "stylebkd", "bank_file", "left open"),
        ("defenders.md", "vanilla", "clean_budget", "left open"),
        ("defenders.md", "fine-mixing", "rho", "left open"),
        ("defenders.md", "fine-mixing", "learning_rate", "from the model file"),
        ("defenders.md", "fine-mixing", "epochs", "10"),
        ("defenders.md", "bki", "epochs", "left open"),
        ("defenders.md", "cube", "epochs", "1"),
        ("defenders.md", "lora", "train_head", "from the recipe"),
        ("defenders.md", "musclelora", "scales", "from the model file and the recipe"),
        ("defenders.md", "onion", "quantile", "left open"),
    ],
)
def test_an_open_default_names_what_fills_it_if_anything_does(
    page: str, plugin: str, option: str, default: str
) -> None:
    section = reference_pages()[page].split(f"\n## {plugin}\n")[1].split("\n## ")[0]
    (row,) = [line for line in section.split("\n") if line.startswith(f"| `{option}` ")]
    assert row.split("|")[3].strip() == default


@pytest.mark.parametrize(
    ("name", "needs"),
    [("onion", "none"), ("e-pur", "threshold"), ("rap", "threshold"), ("vanilla", "none"), ("lora", "none")],
)
def test_the_overview_says_which_clean_rows_a_defense_needs_as_it_comes(name: str, needs: str) -> None:
    (row,) = [line for line in reference_pages()["defenders.md"].split("\n") if line.startswith(f"| [{name}](")]
    assert row.split("|")[3].strip() == needs


@pytest.mark.parametrize("name", [name for name in grid_names() if load_grid(name).sweep or load_grid(name).analysis])
def test_the_rows_of_a_grid_with_a_sweep_or_an_analysis_say_what_it_expands_to(name: str) -> None:
    section = reference_pages()["grids.md"].split(f"\n## {name}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in section.split("\n") if line.startswith("|")][2:]
    grid = load_grid(name)
    assert math.prod(values.count("`") // 2 for _, values in rows) == len(expand(grid.blocks()).cells)
    assert dict(rows).get("analysis") == (f"`{grid.analysis}`" if grid.analysis else None)


def test_every_link_and_table_of_a_page_holds() -> None:
    from markdown_it import MarkdownIt

    for name, text in reference_pages().items():
        tokens = MarkdownIt("commonmark").enable("table").parse(text)
        headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
        anchors = {"".join(c for c in title.lower() if c.isalnum() or c in "-_") for title in headings}
        inline = [child for token in tokens if token.type == "inline" for child in token.children]
        links = [child.attrs["href"] for child in inline if child.type == "link_open"]
        assert {link.removeprefix("#") for link in links if link.startswith("#")} <= anchors, name
        assert not [child for child in inline if child.type == "html_inline"], name


def test_the_command_writes_them_into_any_folder(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["docs", "--to", str(tmp_path / "pages")]).exit_code == 0
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "pages").iterdir()}
    assert written == reference_pages()
    (tmp_path / "file").write_text("in the way")
    result = CliRunner().invoke(app, ["docs", "--to", str(tmp_path / "file")])
    assert result.exit_code == 2 and "cannot be written" in result.stderr
