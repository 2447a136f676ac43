"""`bench new`: what it writes passes its own test, where it goes, and what it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: str, cwd: Path, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
def test_both_kinds_pass_as_written_in_an_empty_folder(tmp_path: Path) -> None:
    for kind, name in (("defender", "rare-words"), ("attacker", "rare-insert")):
        done = python("-m", "bench", "new", kind, name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"written: {name.replace('-', '_')}.py" in done.stdout
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        "rare_words.py",
        "test_rare_words.py",
        "rare_insert.py",
        "test_rare_insert.py",
    }
    done = python("-m", "pytest", "-p", "no:cacheprovider", cwd=tmp_path)
    assert done.returncode == 0 and "7 passed" in done.stdout, done.stdout


@pytest.mark.slow
def test_in_a_checkout_it_goes_beside_its_like_and_is_found_by_name(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("bench", "attackers", "defenders", "configs"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    for folder in ("tests/defenders", "tests/attackers"):
        (checkout / folder).mkdir(parents=True)
    done = python("-m", "bench", "new", "defender", "rare-words", cwd=checkout, path=checkout)
    assert done.returncode == 0, done.stderr
    assert (checkout / "defenders" / "rare_words.py").is_file()
    assert "--defenders vanilla,rare-words" in done.stdout
    ruff = shutil.which("ruff")
    if ruff:
        written = ["defenders/rare_words.py", "tests/defenders/test_rare_words.py"]
        for command in (["check"], ["format", "--check"]):
            done = subprocess.run([ruff, *command, *written], cwd=checkout, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout
    test = "tests/defenders/test_rare_words.py"
    done = python("-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", test, cwd=checkout, path=checkout)
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout


@pytest.mark.parametrize("kind", ["attacker", "defender"])
@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "Rare",
        "1st",
        "a b",
        "a--b",
        "-a",
        "a-",
        "a_",
        "../x",
        "a/b",
        "a.b",
        "a:b",
        "class",
        "true",
        "none",
        "all",
        "base",
        "json",
        "é",
        "a\0b",
        "a\nb",
        "\u202ea",
        "x" * 61,
    ],
)
def test_a_name_that_cannot_be_is_refused(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["new", kind, "--", name])
    assert result.exit_code == 2 and "Error: " in result.stderr and "Remedy: " in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "name"), [("defender", "lora"), ("defender", "fine_mixing"), ("attacker", "badnets")])
def test_a_name_that_exists_is_refused(kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["new", kind, name])
    assert result.exit_code == 2 and f"already a{'n' if kind == 'attacker' else ''} {kind} named" in result.stderr
    assert list(tmp_path.iterdir()) == []


IMPORTED = {
    "attacker": ("text", "example", "count", "attacker", "request-error"),
    "defender": ("text", "fraction", "any", "suspicion", "defender", "request_error"),
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in IMPORTED.items() for name in names])
def test_a_class_that_would_hide_an_import_is_refused(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["new", kind, name])
    assert result.exit_code == 2 and "that its file or its test imports" in result.stderr.replace("\n", " ")
    assert f"like rare-{name.replace('_', '-')}" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_mine_own.py").write_text("mine")
    result = CliRunner().invoke(app, ["new", "defender", "mine-own"])
    assert result.exit_code == 2 and "test_mine_own.py is already there" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine_own.py"]
    assert (tmp_path / "test_mine_own.py").read_text() == "mine"
