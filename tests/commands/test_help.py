"""`--help` and `--version`: what every command says of itself fits its line, and nothing heavy is imported for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "datasets", "pandas", "numpy", "pydantic", "sklearn", "matplotlib", "yaml")


@pytest.mark.parametrize("group", [[], ["data"]])
def test_the_line_of_every_command_is_a_whole_sentence(group: list[str]) -> None:
    result = CliRunner().invoke(app, [*group, "--help"], env={"COLUMNS": "80"})
    commands = result.stdout.partition("Commands:")[2].strip().splitlines()
    assert result.exit_code == 0 and len(commands) >= 3
    assert all(line.endswith(".") and not line.endswith("...") for line in commands), result.stdout


def test_every_axis_says_what_is_written_there() -> None:
    text = " ".join(CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).stdout.split())
    for said in ("chains as e-pur>fine-mixing", "hub:ID@COMMIT", "table files, folders or hub:ID", "clean, dirty, mix"):
        assert said in text


def test_the_version_is_told_with_what_a_report_needs() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.startswith("bench ") and "python 3." in result.stdout and "torch" in result.stdout


def test_help_imports_no_heavy_package() -> None:
    script = f"import sys, bench.cli; assert not set({HEAVY!r}) & set(sys.modules), set({HEAVY!r}) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
