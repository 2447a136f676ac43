"""What a run prints while it runs: what is done to what, how long it may still take, and why a cell failed."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench import plan_grid
from bench.commands.display import Display
from bench.commands.pace import Pace
from bench.commands.titles import Titles, told
from bench.engine.plan import Plan
from bench.engine.runner import Report
from bench.engine.stages import Stage

ERROR = {"type": "ZeroDivisionError", "message": "boom", "remedy": "", "stage": "train", "traceback": "Traceback ..."}


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Two attacks under vanilla and two LoRAs, one ratio."""
    defenders = ["vanilla", "lora(rank=4)", "lora(rank=8)"]
    return plan_grid("demo", attacks=["badnets", "addsent"], defenders=defenders, poison_ratios=[0.1])


def of_kind(plan: Plan, kind: str) -> list[Stage]:
    return [stage for stage in plan.unique() if stage.kind == kind]


def display(plan: Plan, **options: Any) -> Display:
    return Display(Console(record=True, soft_wrap=True, **options), plan.cells.values())


def test_a_stage_tells_what_it_is_made_from(plan: Plan) -> None:
    texts = [told(stage) for stage in plan.unique()]
    assert "reading demo" in texts and "poisoning demo with addsent @ 0.1, seed 0" in texts
    assert "training lora minilm-l6: demo, badnets @ 0.1, seed 0" in texts
    assert "evaluating minilm-l6: demo, badnets @ 0.1, seed 0" in texts
    assert "poisoning the test split of badnets: demo" in texts
    (clean,) = (one for one in plan_grid("demo", attacks=["badnets"], defenders=["strip"], poison_ratios=[0]).unique()
                if one.kind == "poison")  # fmt: skip
    assert told(clean) == "leaving demo clean"


def test_two_cells_never_have_one_title(plan: Plan) -> None:
    found = [Titles(plan.cells.values()).of(cell.json()) for cell in plan.cells.values()]
    assert len(set(found)) == len(plan.cells) == 6
    assert "demo badnets @ 0.1 lora(rank=4), seed 0" in found and "demo badnets @ 0.1 vanilla, seed 0" in found
    wide = plan_grid("demo", defenders=["vanilla"], attacks=["badnets"], target_labels=[0, 1], label_rules=["mix"])
    titles = [Titles(wide.cells.values()).of(cell.json()) for cell in wide.cells.values()]
    assert not any("label rule" in title for title in titles)
    assert len(set(titles)) == len(titles) and any("target label 0" in title for title in titles)


def test_what_is_left_is_told_at_the_pace_so_far(plan: Plan) -> None:
    stages = plan.unique()
    (load,), trainings = of_kind(plan, "load"), of_kind(plan, "train")
    pace = Pace(stages)
    assert pace.seconds(0.0) is None  # no training was ever timed
    pace.begin(load, 0.0)
    pace.done(load, 1.0)
    assert pace.seconds(1.0) is None
    pace.begin(trainings[0], 1.0)
    pace.done(trainings[0], 101.0)
    assert pace.seconds(101.0) == pytest.approx(500.0)  # five trainings like it
    assert pace.seconds(101.0, workers=2) == pytest.approx(250.0)
    pace.begin(trainings[1], 101.0)
    assert pace.seconds(131.0) == pytest.approx(470.0)
    assert pace.seconds(1000.0) == pytest.approx(400.0)  # late, and not below what the others will take


def test_a_defense_is_expected_to_take_as_long_as_it_did(plan: Plan) -> None:
    pace = Pace(of_kind(plan, "train"))
    lora, vanilla = (
        next(one for one in of_kind(plan, "train") if ("defense" in one.content) is inserts)
        for inserts in (True, False)
    )
    for stage, seconds in ((lora, 10.0), (vanilla, 100.0)):
        pace.begin(stage, 0.0)
        pace.done(stage, seconds)
    assert pace.seconds(0.0) == pytest.approx(3 * 10.0 + 100.0)


def test_the_display_may_read_while_the_run_writes(plan: Plan) -> None:
    pace, stages, stop, faults = Pace(plan.unique(), {"train": 60.0}), plan.unique(), threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                pace.seconds(1.0)
            except (RuntimeError, ZeroDivisionError, KeyError) as error:
                faults.append(error)

    thread = threading.Thread(target=read)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # both get their turn in the middle of the other's
    try:
        thread.start()
        for _ in range(400):
            pace.add(stages)
            for stage in stages:
                pace.begin(stage, 0.0)
            for stage in stages:
                pace.done(stage, 1.0)
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert not faults and pace.seconds(1.0) == 0.0


def test_known_times_speak_before_the_first_stage(plan: Plan) -> None:
    assert Pace(plan.unique(), {"train": 60.0}).seconds(0.0) == pytest.approx(360.0)


def test_what_cannot_be_built_is_not_waited_for(plan: Plan) -> None:
    pace = Pace(plan.unique(), {"train": 60.0})
    poison = of_kind(plan, "poison")[0]
    assert pace.drop(poison) == 6  # three trainings of its attack, and their evaluations
    assert pace.seconds(0.0) == pytest.approx(180.0)
    assert pace.drop(poison) == 0


def test_plain_lines_tell_the_amount_the_failure_and_the_end(plan: Plan) -> None:
    stages = {stage.key: stage for stage in plan.unique()}
    shown = display(plan, force_terminal=False, width=60)
    shown.expect(stages.values(), {"train": 600.0}, 2)
    with shown:
        shown("plan", Report(to_execute=len(stages), cells=6))
        shown("start", of_kind(plan, "load")[0])
        shown("done", of_kind(plan, "load")[0])
        shown("failed", (of_kind(plan, "poison")[0], ERROR))
    lines = shown.console.export_text().splitlines()
    assert lines[0] == f"6 cells; {len(stages)} stages to build, 2 at a time, about 30 min left"
    assert lines[1].startswith(f"[1/{len(stages)}]") and lines[1].endswith("reading demo  (about 30 min left)")
    assert lines[2].startswith(f"[2/{len(stages) - 6}]") and "FAILED poisoning demo with badnets" in lines[2]
    assert lines[2].endswith("ZeroDivisionError: boom  (about 15 min left, 1 failed)")


def test_a_terminal_shows_a_failure_with_its_remedy_too(plan: Plan) -> None:
    shown = display(plan, force_terminal=True, width=60, color_system=None)
    shown.expect(plan.unique(), {}, 1)
    error = {**ERROR, "type": "CellError", "message": "No bank.", "remedy": "Make one.", "traceback": None}
    with shown:
        shown("plan", Report(to_execute=3, cells=6))
        shown("failed", (of_kind(plan, "poison")[0], error))
        shown("record", {"status": "failed", "error": error, "cell": next(iter(plan.cells.values())).json()})
    text = shown.console.export_text()
    assert "FAILED poisoning demo with badnets @ 0.1, seed 0: No bank. Make one." in text
    assert "demo badnets @ 0.1 vanilla, seed 0: failed: No bank." in text and "1 failed" in text


def test_a_run_of_nothing_announces_nothing(plan: Plan) -> None:
    shown = display(plan, force_terminal=False)
    with shown:
        shown("plan", Report(to_execute=0, cells=6, done=6))
    assert shown.console.export_text() == ""


def test_a_users_own_data_go_by_the_name_of_their_file(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(40)))
    own = plan_grid("demo", datasets=[str(tmp_path / "own.csv")], attacks=["badnets"], defenders=["vanilla"])
    assert told(of_kind(own, "load")[0]) == "reading own.csv"
    (title, *_) = (Titles(own.cells.values()).of(cell.json()) for cell in own.cells.values())
    assert title.startswith("own.csv badnets @ 0")
