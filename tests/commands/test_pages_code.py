"""The code of README.md and CONTRIBUTING.md: run as it stands there, from an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from tests.tiny import tiny_model

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```python\n# (\w+)\.py\n(.*?)```", re.DOTALL)
pytestmark = pytest.mark.slow


def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return what makes a run tiny: a random model of two layers, one step, one attack and no control."""
    model = str(tiny_model(tmp_path_factory, "bert"))
    return ["--models", model, "--attacks", "badnets", "--poison-ratios", "0.1", "--set", "model.max_steps=1"]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_a_page_alone_leads_to_a_custom_defense_on_the_board(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    ((module, code),) = BLOCK.findall(text)
    assert len(code.splitlines()) <= 30
    (command,) = re.findall(rf"^    python -m (bench run .*{module}:\w+.*)$", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"{module}.py").write_text(f"# {module}.py\n{code}", encoding="utf-8")
    asked = shlex.split(command.removeprefix("bench "))
    result = CliRunner().invoke(app, [*asked, *small(tmp_path_factory), "--engine", "inline"])
    assert result.exit_code == 0, result.output
    assert "2 of 2 cells done, 0 failed" in result.output
    board = (tmp_path / "runs" / "demo" / "tables" / "README.md").read_text(encoding="utf-8")
    name = re.search(r'^    name = "([\w-]+)"$', code, re.MULTILINE)[1]
    assert re.search(rf"^\| \W*{name}", board, re.MULTILINE | re.IGNORECASE), board
