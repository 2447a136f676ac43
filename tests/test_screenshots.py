"""The script of the docs' screenshots: what a terminal picture holds, and that every picture of the docs is there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.report import chromium

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


def test_without_a_browser_its_tests_say_how_they_are_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chromium.missing().endswith(f"apt-get install chromium, then {chromium.AGAIN}")
    assert (ROOT / chromium.AGAIN.rpartition(" ")[2]).is_file()
    for name in ("docs/leaderboard.md", "CONTRIBUTING.md"):
        assert chromium.AGAIN in (ROOT / name).read_text(encoding="utf-8"), name
    (tmp_path / "google-chrome").write_text("#!/bin/sh\n")
    (tmp_path / "google-chrome").chmod(0o755)
    assert chromium.executable() == str(tmp_path / "google-chrome")
