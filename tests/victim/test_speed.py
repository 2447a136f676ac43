from __future__ import annotations

import pytest

from bench.core.errors import RequestError
from bench.victim.speed import DEFENSES, measured, speed_rows


def test_each_row_says_what_was_timed(tiny_spec, reviews):
    spec = tiny_spec(learning_rate=2e-5)
    rows = [measured(spec, reviews, name, steps=3, device="cpu", precision="fp32", threads=1) for name in DEFENSES]
    assert [row["defense"] for row in rows] == ["vanilla", "lora", "musclelora"]
    for row in rows:
        assert row["steps"] == 3 and row["batch_size"] == 4
        assert row["samples_per_second"] > 0 and row["peak_memory_mb"] > 50
    # Two layers, query and value, A [8, 32] and B [32, 8]; then L [8, 32] and R [32, 8].
    assert [row["trainable_parameters"] for row in rows[1:]] == [2048, 2048 + 512]


def test_what_cannot_be_measured(tiny_spec, reviews):
    with pytest.raises(RequestError, match="make no batch of 32"):
        speed_rows(tiny_spec(batch_size=32), reviews)
    with pytest.raises(RequestError, match="Did you mean 'lora'"):
        speed_rows(tiny_spec(), reviews, defenses=("lara",))
