"""Clean rows in a chain of defenses: what one link learnt from sets no threshold of another, and is counted once."""

from __future__ import annotations

import json

import pytest

from bench.core.errors import CellError
from bench.engine.clean_rows import divide
from bench.engine.stages import with_ancestors
from tests.engine.acting import HERE
from tests.engine.conftest import Tiny
from tests.engine.test_clean_rows import DEV

CHAIN = "fine-tuning(clean_samples=20,epochs=1)>strip(repeat=1)"


def test_rows_that_another_link_took_calibrate_nothing() -> None:
    learnt = divide(DEV, 64, False, "sst2", 0).method
    alone, chained = divide(DEV, 0, True, "sst2", 0), divide(DEV, 0, True, "sst2", 0, taken=64)
    assert set(learnt) < set(alone.calibration) and not set(learnt) & set(chained.calibration)
    assert chained.calibration == alone.calibration[64:]
    fewer = divide(DEV, 96, True, "sst2", 0, taken=64)  # its own method took more
    assert len(fewer.calibration) == 200 - 96


@pytest.mark.parametrize(("samples", "taken"), [(0, 96), (64, 96), (64, 20), (0, 60)])
def test_a_budget_is_whole_behind_the_rows_that_were_taken(samples: int, taken: int) -> None:
    parts = divide(DEV, samples, True, "sst2", 0, 70, taken)
    learnt = divide(DEV, taken, False, "sst2", 0).method
    assert len(parts.method) + len(parts.calibration) == 70 and len(parts.calibration) >= 35
    assert not set(parts.calibration) & {*learnt, *parts.method, *parts.selection}


def test_a_budget_that_does_not_fit_behind_them_is_refused() -> None:
    assert len(divide(DEV, 0, True, "sst2", 0, 104, 96).calibration) == 104
    with pytest.raises(CellError, match="105 rows of a clean budget of 105, behind 96 .* holds 200") as caught:
        divide(DEV, 0, True, "sst2", 0, 105, 96)
    assert "Lower clean_budget" in caught.value.remedy


def test_a_budget_taken_from_behind_is_another_stage_than_one_cut_first(tiny: Tiny) -> None:
    (stages,) = tiny.plan(defenders=["fine-tuning>strip"], set={"defense.clean_budget": 10}).stages.values()
    (content,) = (stage.content for stage in stages.detect)
    assert (content["taken"], content["budget"]) == (10, "behind")


def test_only_a_link_that_would_calibrate_on_taken_rows_is_another_stage(tiny: Tiny) -> None:
    def taken(defense: str) -> list[tuple[str, int]]:
        (stages,) = tiny.plan(defenders=[defense]).stages.values()
        return [
            (stage.kind, stage.content["taken"]) for stage in with_ancestors(stages.last()) if "taken" in stage.content
        ]

    assert taken("strip") == taken("e-pur>fine-mixing") == taken("fine-mixing") == []
    assert taken(CHAIN) == [("detect", 20)]
    assert taken("ga(clean_samples=30)>fine-mixing(clean_samples=20)") == [("repair", 30)]
    assert taken(f"{HERE}:LearntCleanser>strip") == [("detect", 5)]
    assert taken(f"{HERE}:LearntCleaner>strip") == [("detect", 6)]
    assert taken(f"{HERE}:LearntCleanser>onion(lm=local)>{HERE}:LearntCleaner>strip") == [("filter", 5), ("detect", 6)]


def test_a_record_counts_each_row_once(tiny: Tiny) -> None:
    report = tiny.run(tiny.plan(defenders=["strip(repeat=1)", CHAIN, "e-pur>fine-tuning(clean_samples=20,epochs=1)"]))
    assert not report.failed
    found = {}
    for path in (tiny.out / "records").iterdir():
        record = json.loads(path.read_text())
        found[record["cell"]["defense"]["name"]] = record["knowledge"]
        half = record["dataset_info"]["dev"] - record["dataset_info"]["dev"] // 2
    assert found["strip"]["calibration"] == half
    for chain in ("fine-tuning>strip", "e-pur>fine-tuning"):
        assert (found[chain]["method"], found[chain]["calibration"]) == (20, half - 20)
