"""What `bench plan` says of a whole 7 B model over 2, 4 and 8 devices, and what it leaves unsaid."""

from __future__ import annotations

import re

import pytest

from bench.victim.memory import Load, Trained, estimate, evaluation
from bench.victim.shapes import shape_from
from bench.victim.spec import shape_of_file
from tests.commands.test_memory_plan import planned, rows

COUNT = 6_607_343_616 + 16 * 4096 + 32  # of Llama 2 without its language head, and the paper's head
LAYER = 4 * 4096**2 + 3 * 4096 * 11008  # the linear maps of one layer


def spread(lines: list[str]) -> dict[tuple[str, str, str], dict[str, str]]:
    """Return the table of shards: (shards, precision, checkpointing) -> column -> text."""
    (place,) = (place for place, line in enumerate(lines) if line.startswith("memory of each device"))
    header = re.split(r"\s{2,}", lines[place + 1].strip())
    found = {}
    for line in lines[place + 2 :]:
        cells = re.split(r"\s{2,}", line.strip())
        if len(cells) == len(header):
            found[cells[0], cells[1], cells[2]] = dict(zip(header, cells, strict=True))
    return found


def test_seven_billion_over_2_4_and_8_gpus() -> None:
    lines = planned("--grid", "table4-full", "--memory", "24GB,80GB")
    found = spread(lines)
    assert set(found) == {(count, "bf16", "yes") for count in "248"}
    fits = {count: (row["fits 24GB"], row["fits 80GB"]) for (count, *_), row in found.items()}
    assert fits == {"2": ("no", "yes"), "4": ("no", "yes"), "8": ("yes", "yes")}
    assert rows(lines)["vanilla (4 shards)"]["peak"] == found["4", "bf16", "yes"]["peak"]
    assert rows(lines)["lora"]["weights"] == "26.4"  # what is inserted trains on one device
    assert "  its evaluation is on one device: 41.5 GB (does not fit 24GB, fits 80GB)" in lines


def test_the_whole_without_shards_is_told_what_shards_would_take() -> None:
    whole = ["--grid", "table4", "--defenders", "vanilla", "--set", "model.stand_in_rank=null"]
    found = spread(planned(*whole, "--memory", "80GB"))
    assert set(found) == {(count, *how) for count in "248" for how in (("fp32", "no"), ("bf16", "yes"))}
    assert not any(line.startswith("memory of each device") for line in planned(*whole, "--memory", "200GB"))


@pytest.mark.parametrize("shards", [2, 4, 8])
def test_a_device_by_hand(shards: int) -> None:
    """Weights, gradients and moments divided, the batch too; three layers gathered, and a gradient of one twice."""
    shape, whole = shape_from(shape_of_file("llama2-7b")), Trained(whole=True)
    assert shape is not None
    found = estimate(shape, whole, Load(16, 128, paper_head=True, shards=shards))
    alone = estimate(shape, whole, Load(16 // shards, 128, paper_head=True))
    assert found.weights * shards == found.gradients * shards == pytest.approx(4 * COUNT)
    assert found.moments * shards == pytest.approx(8 * COUNT) and found.kept == 0
    assert found.activations == alone.activations
    assert found.gathered == (3 * 4 + 4 + 4) * LAYER + 8 * (COUNT - 32 * LAYER)
    narrow = estimate(shape, whole, Load(16, 128, bf16=True, paper_head=True, shards=shards))
    assert narrow.gathered == (3 * 2 + 2 + 4) * LAYER + 8 * (COUNT - 32 * LAYER)
    assert evaluation(shape, Load(16, 128, paper_head=True, shards=shards)) > 4 * COUNT


def test_one_shard_is_the_plan_of_one_device() -> None:
    shape, whole = shape_from(shape_of_file("llama2-7b")), Trained(whole=True)
    assert shape is not None
    assert estimate(shape, whole, Load(16, 128, shards=1)) == estimate(shape, whole, Load(16, 128))
