"""The script of the docs' screenshots: what a terminal picture holds, and that every picture of the docs is there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_a_terminal_picture_holds_command_and_output_and_loads_nothing(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("screenshots", ROOT / "docs" / "screenshots.py")
    screenshots = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(screenshots)
    command = "python -m bench run --grid no-such-grid"
    text = screenshots.printed(command, tmp_path)
    assert "Remedy:" in text and text.endswith("echo $?\n2")
    picture = screenshots.terminal_svg("error", command, text)
    assert "no-such-grid" in picture and picture == screenshots.terminal_svg("error", command, text)
    assert "@font-face" not in picture and not re.search(r'(href|src|url)\s*[=(]\s*["\']?http', picture)


def test_every_picture_of_the_docs_is_there() -> None:
    for page in sorted((ROOT / "docs").glob("*.md")):
        for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / name).is_file(), f"{page.name} shows {name}"
