"""The command line under generated requests: exit code 2, one sentence, no traceback, nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bench.cli import app
from bench.commands.narrowing import narrowed
from bench.commands.run import Request, plan_of
from bench.core.errors import BenchError
from tests.hostile.strategies import EXAMPLES, TEXTS, examples, hostile

ROOT = Path(__file__).resolve().parents[2]
AXES = (
    "--datasets",
    "--attacks",
    "--defenders",
    "--models",
    "--poison-ratios",
    "--seeds",
    "--label-rules",
    "--target-labels",
    "--recipes",
    "--precisions",
    "--set",
    "--limit",
)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder without a data folder."""
    folder = tmp_path_factory.mktemp("empty")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("BENCH_DATA", raising=False)
    return folder


def call(arguments: list[str]) -> Any:
    """Run a command in this process; a traceback fails the test."""
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(f"{arguments!r} ends in a traceback") from result.exception
    return result


def refused(arguments: list[str], folder: Path) -> None:
    """Check that a request is refused: code 2, an error in words, nothing steering the terminal, nothing written."""
    result = call(arguments)
    assert result.exit_code == 2, (arguments, result.output)
    assert "Error" in result.stderr and "Traceback" not in result.output
    assert "\x1b[31m" not in result.stderr and "\u202e" not in result.stderr
    assert list(folder.iterdir()) == [], arguments


def requests() -> st.SearchStrategy[list[str]]:
    """Return commands with one or two hostile values."""
    axes = st.lists(st.tuples(st.sampled_from(AXES), hostile()), min_size=1, max_size=2, unique_by=lambda pair: pair[0])
    named = axes.map(lambda pairs: [f"{axis}={value}" for axis, value in pairs])
    return st.one_of(
        named.map(lambda pairs: ["plan", "--grid", "demo", *pairs]),
        named.map(lambda pairs: ["explain", *pairs]),
        hostile().map(lambda grid: ["plan", f"--grid={grid}"]),
        hostile().map(lambda out: ["table", f"--out={out}"]),
        st.tuples(hostile(), hostile()).map(lambda pair: ["publish", f"--out={pair[0]}", f"--to={pair[1]}"]),
        hostile().map(lambda kind: ["list", "--", kind]),
        hostile().map(lambda cell: ["explain", "--", cell]),
        st.tuples(hostile(), hostile()).map(lambda pair: ["compare", "--", *pair]),
        hostile().map(lambda run: ["export", "--to=pandas", "--", run]),
        hostile().map(lambda cell: ["adapter", "--to=adapter", "--", cell]),
    )


def stands(pairs: list[str]) -> bool:
    """Tell whether axes replaced like this make a plan: what is drawn may by chance be right, a seed of 1 say."""
    given_: dict[str, Any] = dict.fromkeys([axis.removeprefix("--").replace("-", "_") for axis in AXES])
    given_["set_"] = None
    for pair in pairs:
        axis, _, value = pair.partition("=")
        name = axis.removeprefix("--").replace("-", "_")
        if name == "limit":
            try:
                given_[name] = int(value)
            except ValueError:
                return False
        else:
            given_["set_" if name == "set" else name] = [value] if name == "set" else value
    try:
        plan_of(Request(grid="demo", changes=narrowed(given_)))
    except BenchError:
        return False
    return True


@pytest.mark.slow
@given(requests())
@examples("requests")
def test_a_hostile_request_is_refused(arguments: list[str]) -> None:
    if arguments[0] == "explain":
        assume(call(arguments).exit_code != 0)
    else:
        assume(not (arguments[:3] == ["plan", "--grid", "demo"] and stands(arguments[3:])))
    refused(arguments, Path.cwd())


@given(st.sampled_from(AXES), hostile())
@examples("runs")
def test_run_refuses_what_cannot_be_planned(axis: str, value: str) -> None:
    assume(not stands([f"{axis}={value}"]))
    refused(["run", "--grid", "demo", f"{axis}={value}"], Path.cwd())


@given(st.sampled_from(["attacker", "defender"]), hostile())
@examples("names")
def test_a_hostile_name_of_a_plugin_is_refused(kind: str, name: str) -> None:
    assume(not name.isidentifier() or not name.isascii() or name != name.lower())
    refused(["new", kind, "--", name], Path.cwd())


@pytest.mark.parametrize(
    "request_",
    [
        ["run", "--grid", "demo", "--defenders", "\u202eabc"],
        ["run", "--grid", "demo", "--datasets", "../../etc/passwd"],
        ["plan", "--grid", "x" * 5000],
        ["compare", "x" * 5000, "\x1b[31mred"],
        ["run", "--grid", "demo", "--set", "model.trust_remote_code=true"],
    ],
    ids=["marks", "traversal", "long", "control", "remote code"],
)
def test_a_real_process_refuses_too(request_: list[str], empty_folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-m", "bench", *request_], cwd=empty_folder, env=environment, capture_output=True, timeout=60
    )
    assert done.returncode == 2 and done.stdout == b"", done
    assert b"Error: " in done.stderr and b"Remedy: " in done.stderr and b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stderr and "\u202e".encode() not in done.stderr
    assert list(empty_folder.iterdir()) == []


def test_a_grid_file_whose_name_leads_elsewhere_names_no_run(empty_folder: Path) -> None:
    (empty_folder / "...yaml").write_text("datasets: [demo]\nattacks: [badnets]\nmodels: [minilm-l6]\n")
    result = call(["run", "--grid", "...yaml"])  # its stem is `..`: runs/.. would be this folder
    assert result.exit_code == 2 and "gives no name to a folder" in result.stderr
    assert [path.name for path in empty_folder.iterdir()] == ["...yaml"]


def test_there_are_at_least_two_thousand_examples() -> None:
    assert sum(EXAMPLES.values()) >= 2000 and len(set(TEXTS)) == len(TEXTS)
