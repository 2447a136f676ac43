"""Cells with the option `poison_file: published`: the released training and test files, byte for byte."""

from __future__ import annotations

from typing import Any

from bench.core.errors import CellError
from bench.core.seeding import digest
from bench.engine import plugins
from bench.engine.artifacts import write_examples

PUBLISHED_RATIO, PUBLISHED_TARGET = 0.1, 1


def training(job: Any) -> dict[str, Any]:
    """Write the published poisoned training set.

    Raises:
        CellError: the cell asks for another ratio, label rule or target, or for fewer rows, than was published.
    """
    found = _load(job)
    asked = (job.content["poison_ratio"], job.content["label_rule"])
    if asked != (PUBLISHED_RATIO, found.rule):
        raise CellError(
            f"The published file has ratio {PUBLISHED_RATIO} and label rule {found.rule!r}, "
            f"not {asked[0]} and {asked[1]!r}.",
            "Ask for these, or leave poison_file at its default.",
        )
    if len(job.examples("load", "train").examples) != len(found.train):
        raise CellError("The published file cannot be cut to --limit rows.", "Leave --limit out.")
    write_examples(job.aside / "train.jsonl", found.train, found.train_rows)
    positions = digest("positions", list(found.positions))
    return {"rule": found.rule, "rows": len(found.positions), "positions": positions, "dropped": 0}


def test(job: Any) -> dict[str, Any]:
    """Write the published poisoned test set, with the position of each row in the clean test split."""
    found = _load(job)
    place = {row: position for position, row in enumerate(job.examples("load", "test").rows)}
    write_examples(job.aside / "test.jsonl", found.test, [place[row] for row in found.test_rows])
    return {"rows": len(found.test), "placed": len(found.test), "dropped": 0}


def _load(job: Any) -> Any:
    from bench.data.published import load_published
    from bench.engine.work_data import restored_dataset

    if job.content["target_label"] != PUBLISHED_TARGET:
        raise CellError(
            f"The published files have target label {PUBLISHED_TARGET}, not {job.content['target_label']}.",
            "Leave poison_file at its default.",
        )
    attack = plugins.attacker(job.content["attack"])
    if attack.published_as is None:
        raise CellError(f"Attack {attack.name!r} has no published files.", "Leave poison_file at its default.")
    spec = restored_dataset(job.parent_payloads["load"]["content"]["dataset"])
    return load_published(spec, attack.published_as, job.machine.data_dir)
