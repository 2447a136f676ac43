"""Clean rows in a chain of defenses: what one link learnt from sets no threshold of another, and is counted once."""

from __future__ import annotations

import json

from bench.engine.clean_rows import divide
from bench.engine.stages import with_ancestors
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


def test_only_a_link_that_would_calibrate_on_taken_rows_is_another_stage(tiny: Tiny) -> None:
    def taken(defense: str) -> list[tuple[str, int]]:
        (stages,) = tiny.plan(defenders=[defense]).stages.values()
        return [
            (stage.kind, stage.content["taken"]) for stage in with_ancestors(stages.last()) if "taken" in stage.content
        ]

    assert taken("strip") == taken("e-pur>fine-mixing") == taken("fine-mixing") == []
    assert taken(CHAIN) == [("detect", 20)]
    assert taken("ga(clean_samples=30)>fine-mixing(clean_samples=20)") == [("repair", 30)]


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
