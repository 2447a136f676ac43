"""Explaining a cell: every stage of every defense has its words, and the numbers are the record's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import plan_grid
from bench.cli import app
from bench.core.packages import installed
from bench.core.registry import DEFENDERS, own_plugins
from bench.engine.stages import with_ancestors
from bench.openbackdoor import OpenBackdoorMissing
from bench.report.explain import cell_of, explain
from tests.report.fixtures import record

PUBLISHED = Path(__file__).resolve().parents[2] / "leaderboard" / "records.jsonl"


@pytest.mark.parametrize("defense", [*sorted(own_plugins(DEFENDERS)), "e-pur>fine-mixing>strip"])
def test_every_stage_of_every_defense_is_explained(defense: str) -> None:
    plan = plan_grid("demo", attacks=["badnets"], defenders=[defense], poison_ratios=[0.1])
    ((key, cell),) = plan.cells.items()
    lines = explain(cell)
    stages = with_ancestors(plan.stages[key].last())
    assert len(lines) == len(stages) + 3
    for number, stage in enumerate(stages, start=1):
        assert lines[number + 1].startswith(f"{number}. {stage.kind}: ") and lines[number + 1].endswith(".")
        if "defense" in stage.content:
            assert f"the defense {stage.content['defense'].name}" in lines[number + 1]
    assert lines[0] == cell.title()


def test_rules_target_and_control_are_said() -> None:
    axes = {"attacks": ["badnets"], "defenders": ["vanilla"], "label_rules": ["dirty"], "target_labels": [0]}
    (cell,) = plan_grid("demo", poison_ratios=[0.2], **axes).cells.values()
    text = "\n".join(explain(cell))
    assert "rewrites 20 % of the training set and labels them 0" in text and "every poisoned label is wrong" in text
    assert "every test row whose label is not 0" in text
    (control,) = plan_grid("demo", poison_ratios=[0], **axes).cells.values()
    assert "nothing is poisoned: this is the clean control" in "\n".join(explain(control))


def test_the_learning_rate_is_that_of_what_trains() -> None:
    axes = {"attacks": ["badnets"], "poison_ratios": [0.1], "defenders": ["vanilla", "lora", "ga"]}
    settings = {"model.learning_rate": 3e-5, "model.learning_rate_pet": 7e-3}
    rates = {
        cell.defense.name: "learning rate 0.007" in "\n".join(explain(cell))
        for cell in plan_grid("demo", settings=settings, **axes).cells.values()
    }
    assert rates == {"vanilla": False, "lora": True, "ga": False}


def test_every_published_record_is_explained_with_its_numbers() -> None:
    for line in PUBLISHED.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        if one["cell"]["defense"]["name"].startswith("openbackdoor:") and not installed("openbackdoor"):
            with pytest.raises(OpenBackdoorMissing, match="pip install"):
                explain(cell_of(one), one)
            continue
        lines = explain(cell_of(one), one)
        assert f"ASR {100 * one['metrics']['asr']['value']:.2f}" in lines[-1]
        rows = one["poison"]["rows"]
        said = f"That is {rows:,} rows." if rows else "nothing is poisoned: this is the clean control"
        assert said in "\n".join(lines)


def test_a_failure_says_its_reason() -> None:
    one = record(error=("CellError", "There is no bank.", "Make one."))
    one["cell"]["model"]["options"] = {"name": "bert-base", "hub": "a/b", "revision": "0" * 40}
    assert explain(cell_of(one), one)[-1] == "Outcome: failed at load. There is no bank. Make one."


def test_an_unexpected_failure_shows_its_kind_and_where_it_came_from() -> None:
    one = record(error=("ZeroDivisionError", "division by zero", ""))
    one["cell"]["model"]["options"] = {"name": "bert-base", "hub": "a/b", "revision": "0" * 40}
    one["error"]["traceback"] = "Traceback (most recent call last):\n  File mine.py, line 3\n"
    said = explain(cell_of(one), one)[-1]
    assert said.startswith("Outcome: failed at load. ZeroDivisionError: division by zero\n\nTraceback")
    assert said.endswith("File mine.py, line 3")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--defenders", "onion"], 0, "the defense onion"),
        ([f"{PUBLISHED}#defense=adapter,attack=addsent,poison_ratio=0.1"], 0, "Outcome: CACC"),
        ([str(PUBLISHED)], 2, f"names {len(PUBLISHED.read_text().splitlines())} records"),
        ([f"{PUBLISHED}#defense=lora,attack=addsent", "--seeds", "1"], 2, "both given"),
        (["--seeds", "0,1"], 2, "name 2 cells"),
        (["--defenders", "onoin"], 2, "'onion'"),
        (["nowhere"], 2, "no records at nowhere"),
        ([f"{PUBLISHED}#defense=loraa"], 2, "Did you mean 'lora'?"),
        ([f"{PUBLISHED}#defense=lora,seed=77"], 2, "is at seed=77. Remedy: There are: 0"),
        (["--defenders", "musclelora", "--set", "model.penultimate=null"], 2, "no linear before its classifier"),
    ],
)
def test_the_command(arguments: list[str], code: int, said: str) -> None:
    result = CliRunner().invoke(app, ["explain", *arguments])
    assert result.exit_code == code, result.output
    assert said in " ".join((result.output + result.stderr).split())


@pytest.mark.parametrize("chained", [False, True])
def test_a_published_record_never_makes_us_import_code(
    chained: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil_plugin.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    one = record()
    evil = {"name": "x", "options": {}, "source": "evil_plugin:X"}
    one["cell"]["defense"] = {"name": "x>lora", "options": {"links": [evil]}} if chained else evil
    (tmp_path / "records.jsonl").write_text(json.dumps(one), encoding="utf-8")
    result = CliRunner().invoke(app, ["explain", str(tmp_path / "records.jsonl")])
    assert result.exit_code == 2 and "evil_plugin:X is code of who published" in result.stderr
    assert not (tmp_path / "executed").exists()
