"""The bridge: without the package it says what to install; with it, our classes work inside OpenBackdoor.

The live tests run where the package is importable: `PYTHONPATH=CHECKOUT python -m pytest tests/test_openbackdoor.py`.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from attackers.base import Attacker
from bench.core.errors import RequestError
from bench.core.packages import installed, openbackdoor_wanted
from bench.core.registry import ATTACKERS, DEFENDERS, names
from defenders.base import Defender

REPOSITORY = Path(__file__).resolve().parents[1]


def test_packages_are_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaks_when_imported.py").write_text("raise RuntimeError\n", encoding="utf-8")
    (tmp_path / "just_a_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    found = [installed(name) for name in ("json", "breaks_when_imported", "just_a_folder", "no_such_package")]
    assert found == [True, True, False, False]


def test_the_variable_that_asks_for_the_package() -> None:
    assert [openbackdoor_wanted({"BENCH_OPENBACKDOOR": value}) for value in ("1", "0", "")] == [True, False, False]
    assert not openbackdoor_wanted({})
    with pytest.raises(RequestError, match="'yes'"):
        openbackdoor_wanted({"BENCH_OPENBACKDOOR": "yes"})


# What follows happens in fresh processes, which are started together: an import cannot be undone.


def started(scene: str, folder: Path, *paths: Path) -> subprocess.Popen:
    """Start a scene in an empty folder, with folders put before the Python path."""
    folder.mkdir()
    known = [*map(str, paths), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, known)), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "error::SyntaxWarning", "-m", "tests.openbackdoor.scenes", scene]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )


def finished(process: subprocess.Popen) -> dict[str, Any]:
    """Return what a scene found."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


def test_without_the_package_the_bridge_imports_and_says_what_to_install(tmp_path: Path) -> None:
    found = finished(started("absent", tmp_path / "absent"))
    assert found["imported"] == [] and found["changed"] is False and found["unknown attribute"] is False
    for way in ("load", "registered", "attribute"):
        *kinds, text = found[way]
        assert {"RequestError", "ImportError"} < set(kinds)
        assert "not installed" in text and "pip install" in text and "1192ba303a7bc198adea10c292c7802c4960b307" in text
    assert found["stand-in"] == ["Missing", "strsimpy.levenshtein", False]
    assert "CellError" in found["use"] and found["use"][-1].endswith("pip install strsimpy.")
    assert "strsimpy.levenshtein.a.b.c" in found["deep use"][-1]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Give what each live scene found; skip where the package is not importable."""
    if not installed("openbackdoor"):
        pytest.skip("the package openbackdoor is not importable")
    folder = tmp_path_factory.mktemp("openbackdoor")
    # As its own installer leaves it: without the folders that have no __init__.py.
    source = Path(str(find_spec("openbackdoor").origin)).parent
    shutil.copytree(source, folder / "copy" / "openbackdoor", ignore=shutil.ignore_patterns("style", "__pycache__"))
    processes = {
        "ours_first": started("ours_first", folder / "a", folder / "copy"),
        "theirs_first": started("theirs_first", folder / "b"),
    }
    results: dict[str, dict[str, Any]] = {}

    def result(name: str) -> dict[str, Any]:
        if name not in results:
            results[name] = finished(processes[name])
        return results[name]

    yield result
    for process in processes.values():
        process.kill()


def test_ours_first_then_the_bridge(scenes: Callable) -> None:
    found = scenes("ours_first")
    assert found["subclass"] and found["module"] == "openbackdoor.defenders.defender"
    assert found["old objects"] == found["new objects"] == [True, True]
    assert found["flags"] == [1, 0]


def test_the_import_leaves_nothing_behind(scenes: Callable) -> None:
    found = scenes("ours_first")
    assert found["changed"] == []  # environment, root logger's handlers and level, current folder
    assert found["stand-ins left"] == [] and found["shim left"] is False
    assert found["optimizer"] == [0.001, [0.9, 0.999], 1e-06, 0.0]  # lr, betas, eps, weight decay of the removed one
    assert "pip install language-tool-python" in found["grammar"][-1]
    assert "inference_utils.GPT2Generator" in found["style"][-1]


def test_theirs_first_then_ours(scenes: Callable) -> None:
    found = scenes("theirs_first")
    assert found["subclass"] == [True, True] and found["same package"]
    assert all(same == [True] for same in found["signatures"].values())
    assert set(found["constructors"]["Defender"]) <= set(inspect.signature(Defender.__init__).parameters)
    assert set(found["constructors"]["Poisoner"]) <= set(inspect.signature(Attacker.__init__).parameters)


def test_its_loaders_make_our_plug_ins(scenes: Callable) -> None:
    found = scenes("ours_first")["pipeline"]
    assert found["plug-ins"] == {name: True for name in (*names(DEFENDERS), *names(ATTACKERS))}
    assert found["restored"] == [True, True] and found["theirs again"].endswith("badnets_poisoner")
    assert "neither a defender nor an attacker" in found["no plug-in"]


def test_its_attack_trains_on_our_poison(scenes: Callable) -> None:
    found = scenes("ours_first")["pipeline"]
    assert found["poisoner"] == [True, True] and found["setting"] == "mix"
    plain = found["undefended"]
    assert (plain["rows"], plain["with cf"], plain["same victim"], plain["seen"]) == (40, 10, True, [])
    assert plain["moved"] > 0
    assert found["checkpoint"] == ["last.ckpt"] and found["folders"] == ["models", "tiny"]
    assert found["data untouched"]


def test_its_attack_calls_our_cleanser_without_a_model(scenes: Callable) -> None:
    cleansed = scenes("ours_first")["pipeline"]["cleansed"]
    assert (cleansed["rows"], cleansed["with cf"]) == (30, 0)
    assert cleansed["moved"] > 0
    assert cleansed["seen"] == [{"model": "None", "clean": [], "flags": [0], "rows": 40}]


def test_its_eval_rejects_what_our_detector_flags(scenes: Callable) -> None:
    found = scenes("ours_first")["pipeline"]
    plain, flagged = found["none"], found["flagged"]
    assert flagged["seen"] == [{"model": "victim", "clean": ["dev", "train"], "flags": [0], "rows": 30}]
    assert flagged["judged"]["test-clean"] == plain["judged"]["test-clean"]
    impossible = [[text, 2, 0] for text, _, _ in plain["judged"]["test-poison"]]
    assert flagged["judged"]["test-poison"] == impossible and len(impossible) == 10
    assert flagged["results"] == {"test-clean": plain["results"]["test-clean"], "test-poison": 0.0}


def test_its_eval_judges_what_our_corrector_wrote(scenes: Callable) -> None:
    found = scenes("ours_first")["pipeline"]
    deleted = found["deleted"]
    call = {"model": "victim", "clean": ["dev", "train"], "flags": [0]}
    assert deleted["seen"] == [{**call, "rows": 20}, {**call, "rows": 10}]
    assert deleted["judged"]["test-poison"] == [[text, 1, 0] for text in found["clean texts"]]
    assert deleted["results"]["test-poison"] == pytest.approx(found["clean as target"])
    assert deleted["results"]["test-clean"] == found["none"]["results"]["test-clean"]


def test_a_defense_that_acts_at_no_stage_changes_no_result(scenes: Callable) -> None:
    found = scenes("ours_first")["pipeline"]
    assert found["idle"]["results"] == found["none"]["results"]


def test_eval_detect_on_its_poisoned_data(scenes: Callable) -> None:
    found = scenes("ours_first")["pipeline"]["eval_detect"]
    assert found["splits"] == ["test-detect"] and found["flags"] == [0] * 20 + [1] * 10
    rates = {"frr": {"value": 0.0, "hits": 0, "n": 20}, "far": {"value": 0.0, "hits": 0, "n": 10}}
    assert found["score"] == {"test-detect": rates}
