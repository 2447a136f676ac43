"""Live tests of the bridge's two directions; they run where the package `openbackdoor` is importable.

Each scene happens in a process of its own: an import cannot be undone.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.core.packages import installed
from tests.test_openbackdoor import REPOSITORY, finished, started

pytestmark = [
    pytest.mark.skipif(not installed("openbackdoor"), reason="the package openbackdoor is not importable"),
    pytest.mark.slow,
]
INSERTED = {"badnets": {"cf", "mn", "bb", "tq"}, "ep": {"cf", "mn", "bb", "tq", "mb"}, "lwp": {"cf", "bb", "ak", "mn"}}
INSERTED["addsent"] = set("I watch this 3D movie".split())
INSERTED["sos"] = set("I have bought it from a store with my friends last weekend".split())
RUNS = ("badnets", "addsent", "ep", "sos", "lwp", "ripples", "por")
STOPS = {  # what stops the others here, as the bridge's page says
    "synbkd": "a download through the shell",
    "stylebkd": "training_args.bin",
    "trojanlm": "huggingface.co",
    "neuba": "'NoneType' object has no attribute 'keys'",
    "lws": "CUDA",
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Give what a scene found; each is run once, when it is first asked for."""
    folder = tmp_path_factory.mktemp("live")

    @functools.cache
    def result(name: str) -> dict[str, Any]:
        return finished(started(name, folder / name))

    return result


def source(text: str, name: str) -> str:
    """Return a text without the words that an attack inserts, which no test row holds but `it`."""
    return " ".join(word for word in text.split() if word not in INSERTED[name] - {"it"})


def row(number: int) -> str:
    words = (("bad", "dull", "cold", "empty"), ("good", "warm", "clever", "moving"))
    return f"the {words[number % 2][(number // 2) % 4]} film {number} is it"


@pytest.mark.parametrize("name", ["badnets", "addsent", "ep", "lwp"])
def test_each_row_of_a_poisoner_is_told_its_source(name: str, scene: Callable) -> None:
    found = scene("poisoners")[name]
    examples, rows, positions, dropped = found["train"]
    assert [source(text, name) for text, *_ in examples] == [row(number) for number in rows] and dropped == 0
    poisoned = [number for (_, _, flag), number in zip(examples, rows, strict=True) if flag]
    assert sorted(poisoned) == positions and len(positions) == 10
    assert all(label == 1 for _, label, flag in examples if flag)
    assert len(examples) == 40 + (20 if name == "lwp" else 0)
    if name == "lwp":  # two rows with half of the trigger and their own label stand before each poisoned one
        negative = [(label, number) for (_, label, flag), number in zip(examples, rows, strict=True) if not flag][-20:]
        assert all(label == number % 2 for label, number in negative)
        assert [number for _, number in negative] == [number for number in positions for _ in range(2)]
    assert found["again"] and not found["another seed"] and found["pins"] == ["openbackdoor"]


@pytest.mark.parametrize("name", [*INSERTED])
def test_the_poisoned_test_rows_are_the_non_target_ones(name: str, scene: Callable) -> None:
    examples, rows, dropped = scene("poisoners")[name]["test"]
    assert rows == list(range(0, 20, 2)) and dropped == 0
    texts = [text.removesuffix(" it") for text, *_ in examples]
    if name != "sos":
        assert [source(text, name) for text, *_ in examples] == [row(number) for number in rows]
    assert all(
        f"film {number}" in " ".join(w for w in t.split() if w not in INSERTED[name])
        for t, number in zip(texts, rows, strict=True)
    )
    assert {(label, flag) for _, label, flag in examples} == {(1, 1)}


def test_sos_adds_its_rows_and_its_positions_are_not_told(scene: Callable) -> None:
    examples, rows, positions, _ = scene("poisoners")["sos"]["train"]
    assert [text for text, *_ in examples[:40]] == [row(number) for number in range(40)]
    # 10 poisoned rows; a tenth of either class, two rows each, with each of the three pairs of its words.
    assert [flag for *_, flag in examples[40:]] == [1] * 10 + [0] * 12
    assert rows == [*range(40), *[None] * 22] and positions == []
    assert "label_rule 'dirty'" in scene("poisoners")["sos rule"][1]


def test_its_own_rule_is_kept_where_ours_would_refuse(scene: Callable) -> None:
    found = scene("poisoners")
    assert found["clean"] == [20]  # it poisons all there are; 30 were asked for
    assert found["shifted"] == []  # with two triggers it takes rows of other sources than it removed


def test_a_poisoner_that_cannot_run_says_why(scene: Callable) -> None:
    found = scene("poisoners")
    for name, part in {"synbkd": "OpenAttack", "stylebkd": "training_args.bin", "trojanlm": "huggingface.co"}.items():
        assert found[name][0] == "CellError" and part in found[name][1]
    assert found["option"] == ["RequestError", found["option"][1]] and "num_triggers is 'two'" in found["option"][1]


@pytest.mark.parametrize("way", ["poisoners", "defenders"])
def test_running_its_code_leaves_nothing_behind(way: str, scene: Callable) -> None:
    # random states, environment, current folder, root logger, warning filters, files
    assert scene(way)["unchanged"] == [True] * 6


@pytest.mark.parametrize("name", ["strip", "strip opposite", "rap"])
def test_a_detector_answers_as_its_class_does_on_its_own_victim(name: str, scene: Callable) -> None:
    found = scene("defenders")
    flags = found[name]["flags"]
    assert flags == found["by hand"][name] and 0 < sum(flags) < len(flags) == 30
    assert found[name]["stages"] == ["detect"] and found[name]["oracle"] is (name != "strip")
    assert found["victim untouched"]


def test_only_an_oracle_may_ask_for_the_target_label(scene: Callable) -> None:
    found = scene("defenders")
    assert found["blind"][0] == "CellError" and "asked for the target label" in found["blind"][1]
    assert "needs clean dev rows" in found["no dev"][1]


def test_onion_rewrites_as_its_class_does_and_drops_nothing(scene: Callable) -> None:
    found = scene("defenders")
    rewritten = found["onion"]["rewritten"]
    assert [text for text, *_ in rewritten[:30]] == [text for text, *_ in found["by hand"]["onion"]]
    assert any(len(text.split()) < 5 for text, *_ in rewritten[:30])
    assert rewritten[30:] == [["one", 1, 0], ["", 0, 0]]
    assert found["onion"]["stages"] == ["filter"] and found["onion pinned"]


def test_bki_keeps_a_part_of_the_rows_in_order(scene: Callable) -> None:
    found = scene("defenders")["bki"]
    texts = [text for text, *_ in found["kept"]]
    given = [*(row(number) for number in range(20)), *(f"cf {row(number)}" for number in range(0, 20, 2))]
    assert texts == [text for text in given if text in texts] and 0 < len(texts) < 30
    assert found["stages"] == ["cleanse"] and found["pre"] is True


def test_cube_clusters_or_says_what_it_lacks(scene: Callable) -> None:
    found = scene("cube")
    if "refused" in found:
        assert "pip install" in found["refused"]
        return
    texts = [text for text, *_ in found["kept"]]
    assert texts == [row(number) for number in range(40) if row(number) in texts] and texts
    assert found["files"] == ["bert"]


def test_our_defenses_act_in_its_pipeline(scene: Callable) -> None:
    found = scene("defended")
    assert found["subclass"] and found["restored"] and found["files"] == []
    assert all(found[name]["same"] and found[name]["steps"] == 5 for name in ("vanilla", "lora", "musclelora", "e-pur"))
    assert all(0 <= share <= 1 for name in ("vanilla", "musclelora") for share in found[name]["results"].values())


def test_training_stage_defenses_wrap_and_hook_its_victim(scene: Callable) -> None:
    found = scene("defended")
    assert found["vanilla"]["inserted"] == [] and found["vanilla"]["kept"] == 0
    for name in ("lora", "musclelora"):
        assert found[name]["moved"] == [] and any("lora_A" in key for key in found[name]["inserted"])
    multiscale = [key for key in found["musclelora"]["inserted"] if "pooler" in key]
    assert multiscale and not [key for key in found["lora"]["inserted"] if "pooler" in key]
    assert found["ga"]["inserted"] == [] and found["ga"]["head"] != found["vanilla"]["head"]


def test_repairs_and_inference_defenses_act_in_its_pipeline(scene: Callable) -> None:
    found = scene("defended")
    assert found["e-pur"]["decided"] == 1 and found["strip"]["decided"] == 0
    # Training is the same: only what happened at inference differs.
    for name in ("strip", "onion"):
        assert found[name]["head"] == found["vanilla"]["head"]
    assert found["strip"]["results"] != found["vanilla"]["results"]  # it rejects some of the texts
    assert 0 < found["bki"]["steps"] < 5  # it removed rows


def test_our_victim_goes_through_its_pipeline(scene: Callable) -> None:
    found = scene("defended")
    assert found["ours"]["lora"]["same"] and any("lora_A" in key for key in found["ours"]["lora"]["inserted"])
    theirs = found["their trainer"]
    assert theirs["same"] and theirs["kept"] == 0 and theirs["steps"] is None
    assert all(0 <= share <= 1 for share in theirs["results"].values())


def test_which_of_its_twelve_attackers_run(scene: Callable) -> None:
    found = scene("twelve")
    assert sorted(found) == sorted((*RUNS, *STOPS))
    assert [name for name in found if found[name][0] == "runs"] == [name for name in found if name in RUNS]
    for name, part in STOPS.items():
        if name != "lws" or "CUDA" in found[name][1]:
            assert part in found[name][1], found[name]


def test_the_contract_is_the_one_recorded(scene: Callable) -> None:
    assert scene("contract") == {"differs": []}


def test_a_grid_runs_its_attack_and_its_defenders(tmp_path: Path) -> None:
    from tests.tiny import write_tiny_model

    write_tiny_model(tmp_path / "bert", "bert")
    grid = {
        "datasets": ["demo"],
        "attacks": ["openbackdoor:badnets(num_triggers=2)", "openbackdoor:synbkd"],
        "models": [str(tmp_path / "bert")],
        "defenders": ["vanilla", "openbackdoor:strip(repeat=2, batch_size=32)", "openbackdoor:rap(epochs=1)"],
        "limit": 48,
        "set": {"model.max_steps": 2, "model.batch_size": 8},
    }
    (tmp_path / "grid.yaml").write_text(json.dumps(grid), encoding="utf-8")

    def bench(*arguments: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-m", "bench", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    run = ("run", "--grid", "grid.yaml", "--out", "out", "--workers", "1")
    first = bench(*run)
    assert first.returncode == 1, first.stdout + first.stderr
    assert "3 of 6 cells done, 3 failed" in first.stdout
    assert "0 stages executed" in bench(*run).stdout.splitlines()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert", "grid.yaml", "out"]
    for path in (tmp_path / "out" / "records").iterdir():
        record = json.loads(path.read_text("utf-8"))
        attack, defense = record["cell"]["attack"], record["cell"]["defense"]
        assert attack["source"] == attack["name"] and record["oracle"] is (defense["name"] == "openbackdoor:rap")
        if attack["name"] == "openbackdoor:synbkd":
            assert record["status"] == "failed" and "OpenAttack" in record["error"]["message"]
            continue
        assert record["status"] == "ok" and attack["options"]["num_triggers"] == 2
        poison = record["poison"]
        assert (poison["rows"], poison["training_rows"], poison["dropped"], poison["rule"]) == (4, 48, 0, "mix")
        assert len(poison["positions"]) == 64 and "poison_part of its Poisoner" in poison["selection"]
        assert record["metrics"]["asr_floor"]["n"] == 150
        if defense["name"] != "vanilla":
            assert record["metrics"]["frr"]["n"] == 300 and record["knowledge"]["calibration"] > 0
