from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.core.errors import RequestError
from bench.core.example import Example
from bench.victim import speed
from bench.victim.contenders import WARM_UP, Clock, Contender, Setting, measured
from bench.victim.machine_speed import matmul_peak, padding, useful_work


@pytest.fixture
def setting(tiny_spec, reviews) -> Setting:
    """Return a round of 3 timed steps of 4 rows."""
    return Setting(tiny_spec(learning_rate=2e-5), tuple(reviews * 2), steps=3, rounds=2)


@pytest.mark.parametrize("defense", speed.DEFENSES)
def test_each_contender_trains_the_same_tensors_over_the_same_steps(setting, defense):
    names = ("trainer", "reference", "ours") if defense in speed.BY_TRAINER else ("reference", "ours")
    found = [measured(Contender(name, defense, "fp32"), setting) for name in names]
    # Two layers, query and value, A [8, 32] and B [32, 8]; then L [8, 32] and R [32, 8].
    expected = {"lora": 2048, "musclelora": 2048 + 512}.get(defense)
    for row in found:
        assert row["steps"] == 3 and row["samples_per_second"] > 0 and row["peak_memory_mb"] > 50
        assert row["trainable_parameters"] == (expected or found[0]["trainable_parameters"])


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_decoder_is_measured_against_the_reference(tiny_spec, reviews, architecture):
    setting = Setting(tiny_spec(architecture), tuple(reviews * 2), steps=3)
    for defense in ("lora", "musclelora"):
        plain, ours = (measured(Contender(name, defense, "fp32"), setting) for name in ("reference", "ours"))
        assert plain["trainable_parameters"] == ours["trainable_parameters"] > 0
        assert plain["steps"] == ours["steps"] == 3
        assert useful_work(setting.spec, setting.rows(), defense) > 1e5


def test_rows_are_paired_round_by_round(setting):
    heard: list[str] = []
    here = lambda: ThreadPoolExecutor(1)  # noqa: E731
    around = speed.surroundings(setting, ("lora",), ("fp32",), here)
    rows = speed.speed_rows(setting, around, defenses=("lora",), gangs=(2,), tell=heard.append, process=here)
    assert [row["name"] for row in rows] == ["trainer", "reference", "ours", "gang-2"]
    # Odd rounds go backwards, so that none is always the last.
    assert [line.split(": ")[1].split()[0] for line in heard] == [
        *("trainer", "reference", "ours", "gang-2"),
        *("gang-2", "ours", "reference", "trainer"),
    ]
    trainer, reference, ours, gang = rows
    assert reference["against_reference"] == 1.0 == reference["against_fp32"]
    ratios = [mine / theirs for mine, theirs in zip(ours["rounds"], reference["rounds"], strict=True)]
    assert ours["against_reference"] == pytest.approx(statistics.median(ratios)) and ours["against_ours"] == 1.0
    ratios = [mine / theirs for mine, theirs in zip(gang["rounds"], ours["rounds"], strict=True)]
    assert gang["against_ours"] == pytest.approx(statistics.median(ratios))
    assert gang["trainable_parameters"] == 2 * ours["trainable_parameters"] and gang["steps"] == 3
    for row in rows:
        assert row["samples_per_second"] == pytest.approx(statistics.median(row["rounds"]))
        # 20 rows for 2 epochs.
        assert row["seconds_per_cell"] == pytest.approx(40 / row["samples_per_second"])
        assert 0 < row["peak_share"] < 1


def test_the_clock_leaves_the_warm_up_out():
    clock = Clock("cpu")
    for step in range(1, 6):
        clock(step, 5)
        assert (clock.seconds is None) == (step < 5)
    assert clock.steps == 5 - WARM_UP and clock.seconds > 0


def test_padding_of_texts_whose_lengths_are_known(tiny_spec):
    # A letter that the tokenizer never saw is one token each; with [CLS] and [SEP]: 5 and 13 tokens in one batch.
    texts = [Example("z" * 3, 0), Example("z" * 11, 1)] * 2
    assert padding(tiny_spec(batch_size=4), texts) == {"mean_tokens": 9, "mean_padded_tokens": 13, "bound": 13 / 9}


def test_useful_work_is_the_matrix_products_of_one_text(tiny_spec):
    # 10 tokens. A layer: 4 products 32 x 32 and two 32 x 48, times 2 operations; the pooler and the head see one token.
    tokens, layer = 10, 2 * (4 * 32 * 32 + 2 * 32 * 48)
    forward = 2 * layer * tokens + 2 * (32 * 32 + 32 * 2)
    found, lora, aligned = (useful_work(tiny_spec(), [Example("z" * 8, 0)], name) for name in speed.DEFENSES)
    # Backwards it is twice that. Attention's own products (2 layers, 2 each, 3 passes) count where torch shows them.
    attention = 3 * 2 * 2 * 2 * tokens * tokens * 32
    assert 3 * forward * 0.99 <= found <= 3 * forward + 1.5 * attention
    # Without the gradients of the frozen weights it is about two thirds; a clean text beside each makes it twice.
    assert 0.6 * found < lora < 0.9 * found and 1.9 * lora < aligned < 2.3 * lora


def test_the_peak_is_beyond_what_one_core_could_not_do():
    assert 1e8 < matmul_peak("cpu", "fp32") < 1e14


def test_what_cannot_be_measured(setting):
    known = (speed.DEFENSES, ("fp32",), ())
    speed.check(setting, *known)
    with pytest.raises(RequestError, match="need 160 rows"):
        speed.check(Setting(setting.spec, setting.examples, steps=38), *known)
    with pytest.raises(RequestError, match="Did you mean 'lora'"):
        speed.check(setting, ("lara",), ("fp32",), ())
    with pytest.raises(RequestError, match="no precision named 'fp8'"):
        speed.check(setting, ("lora",), ("fp8",), ())
    with pytest.raises(RequestError, match="gang of 1 is none"):
        speed.check(setting, ("lora",), ("fp32",), (1,))
    with pytest.raises(RequestError, match="--steps is 0"):
        speed.check(Setting(setting.spec, setting.examples, steps=0), *known)
