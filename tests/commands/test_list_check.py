"""`bench list` and `bench check`."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

import pytest
from typer.testing import CliRunner

import attackers.openbackdoor
import defenders.openbackdoor
from bench.cli import app
from bench.core import registry
from bench.core.registry import ATTACKERS, DEFENDERS, names

FOLDERS = {"datasets": "datasets", "models": "models", "grids": "grids"}


def expected(kind: str) -> set[str]:
    if kind in FOLDERS:
        return {item.name.removesuffix(".yaml") for item in (files("configs") / kind).iterdir() if "yaml" in item.name}
    bridged = {"attackers": attackers.openbackdoor, "defenders": defenders.openbackdoor}[kind].NAMES
    own = names({"attackers": ATTACKERS, "defenders": DEFENDERS}[kind])
    return {*own, *(f"openbackdoor:{name}" for name in bridged)}


@pytest.mark.parametrize("kind", ["attackers", "defenders", "datasets", "models", "grids"])
def test_list_has_one_line_for_each_name_that_exists(kind: str) -> None:
    result = CliRunner().invoke(app, ["list", kind])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert {line.split()[0] for line in lines} == expected(kind) and len(lines) == len(expected(kind))
    assert all(len(line.split()) > 2 for line in lines)


def test_list_without_a_kind_lists_all_of_them_under_headings() -> None:
    result = CliRunner().invoke(app, ["list"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    headings = [line for line in lines if line.endswith(":") and " " not in line]
    assert headings == ["attackers:", "defenders:", "datasets:", "models:", "grids:"]
    listed = {line.split()[0] for line in lines if line.startswith("  ")}
    assert listed == {name for kind in headings for name in expected(kind.rstrip(":"))}


def test_list_names_the_stage_the_work_and_the_defaults() -> None:
    lines = {line.split()[0]: line for line in CliRunner().invoke(app, ["list", "defenders"]).stdout.splitlines()}
    assert "[detect] STRIP (Gao et al." in lines["strip"] and "repeat=5, swap_ratio=0.25" in lines["strip"]
    assert "[repair]" in lines["fine-mixing"] and "Zhang et al." in lines["fine-mixing"]
    attackers = CliRunner().invoke(app, ["list", "attackers"]).stdout
    assert "(Gu et al. 2017" in attackers and "triggers=[cf, mn, bb, tq], num_triggers=4" in attackers
    assert "Socher et al. 2013" in CliRunner().invoke(app, ["list", "datasets"]).stdout


def test_a_broken_package_of_somebody_else_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_entry_points", lambda family: {"theirs": {"no_such_module:Thing"}})
    result = CliRunner().invoke(app, ["list", "defenders"])
    assert result.exit_code == 0 and "\nmusclelora" in result.stdout
    assert "No module named 'no_such_module'" in next(x for x in result.stdout.splitlines() if x.startswith("theirs"))


def test_list_of_something_else_is_refused() -> None:
    assert CliRunner().invoke(app, ["list", "tables"]).exit_code == 2
    result = CliRunner().invoke(app, ["list", "defender"])
    assert result.exit_code == 2 and "Did you mean 'defenders'?" in result.stderr


def test_check_names_packages_devices_data_and_models_with_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_DATA", raising=False)
    result = CliRunner().invoke(app, ["check"])
    assert result.exit_code == 0, result.output
    for word in ("torch", "transformers", "peft", "devices", "model minilm-l6", "model bert-base", "OpenBackdoor"):
        assert word in result.stdout
    assert "no folder given  ->  name it with --data or BENCH_DATA" in result.stdout


def test_check_of_a_wrong_folder_names_a_few_files_and_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "my data"
    folder.mkdir()
    lines = CliRunner().invoke(app, ["check", "--data", str(folder)], env={"COLUMNS": "400"}).stdout.splitlines()
    named = [line for line in lines if ".tsv" in line or ".csv" in line]
    assert 0 < len(named) <= 6
    (remedy,) = (line for line in lines if "data fetch" in line)
    assert "more" in remedy and remedy.endswith(f"data fetch --data '{folder}'")


def test_check_tries_whether_openbackdoor_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def line() -> str:
        output = CliRunner().invoke(app, ["check"], env={"COLUMNS": "400"}).stdout
        return next(text for text in output.splitlines() if " OpenBackdoor " in text)

    monkeypatch.setitem(sys.modules, "openbackdoor", None)
    assert line().startswith("missing") and "absent  ->  pip install --no-deps" in line() and "1192ba3" in line()
    monkeypatch.delitem(sys.modules, "openbackdoor")
    (tmp_path / "openbackdoor").mkdir()
    (tmp_path / "openbackdoor" / "__init__.py").write_text("raise RuntimeError('broken checkout')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert line().startswith("missing") and "does not import: broken checkout" in line()
    assert "openbackdoor" not in sys.modules


def test_a_wrong_value_of_the_openbackdoor_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_OPENBACKDOOR", "yes")
    result = CliRunner().invoke(app, ["list", "grids"])
    assert result.exit_code == 2 and "BENCH_OPENBACKDOOR is 'yes': it is 0 or 1." in result.stderr
