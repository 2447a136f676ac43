"""`bench list` and `bench check`."""

from __future__ import annotations

from importlib.resources import files

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.core.registry import ATTACKERS, DEFENDERS, names

FOLDERS = {"datasets": "datasets", "models": "models", "grids": "grids"}


def expected(kind: str) -> set[str]:
    if kind in FOLDERS:
        return {item.name.removesuffix(".yaml") for item in (files("configs") / kind).iterdir() if "yaml" in item.name}
    return set(names({"attackers": ATTACKERS, "defenders": DEFENDERS}[kind]))


@pytest.mark.parametrize("kind", ["attackers", "defenders", "datasets", "models", "grids"])
def test_list_has_one_line_for_each_name_that_exists(kind: str) -> None:
    result = CliRunner().invoke(app, ["list", kind])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert {line.split()[0] for line in lines} == expected(kind) and len(lines) == len(expected(kind))
    assert all(len(line.split()) > 2 for line in lines)


def test_list_of_something_else_is_refused() -> None:
    assert CliRunner().invoke(app, ["list", "tables"]).exit_code == 2


def test_check_names_packages_devices_data_and_models_with_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_DATA", raising=False)
    result = CliRunner().invoke(app, ["check"])
    assert result.exit_code == 0, result.output
    for word in ("torch", "transformers", "peft", "devices", "model minilm-l6", "model bert-base", "OpenBackdoor"):
        assert word in result.stdout
    assert "no folder given  ->  name it with --data or BENCH_DATA" in result.stdout


def test_a_wrong_value_of_the_openbackdoor_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_OPENBACKDOOR", "yes")
    result = CliRunner().invoke(app, ["list", "grids"])
    assert result.exit_code == 2 and "BENCH_OPENBACKDOOR is 'yes': it is 0 or 1." in result.stderr
