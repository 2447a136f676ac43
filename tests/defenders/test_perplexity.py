"""Perplexities: worked out by hand, in batches and packed as one by one, long texts in windows."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from bench.victim.perplexity import LanguageModel, language_model
from tests.defenders.judges import bigrams, causal


def test_perplexities_by_hand() -> None:
    found = bigrams().perplexities(["a x b", "a b", "x b", "a x", "a", "", "a b"])
    assert found[:4] == pytest.approx([(0.1 / 3) ** -0.5, 1 / 0.8, 3.0, 1 / 0.1])
    assert np.isinf(found[4:6]).all() and found[6] == found[1]
    # With a start token the first word is charged as well.
    started = bigrams(start=0).perplexities(["a x b", "x", ""])
    assert started[:2] == pytest.approx([(0.7 * 0.1 / 3) ** (-1 / 3), 1 / 0.1]) and np.isinf(started[2])
    assert len(bigrams().perplexities([])) == 0


def test_the_suspicion_of_a_word_is_the_fall_of_the_perplexity() -> None:
    whole = (0.7 * 0.1 / 3) ** (-1 / 3)
    without = [(0.1 / 3) ** -0.5, (0.7 * 0.8) ** -0.5, (0.7 * 0.1) ** -0.5]
    assert bigrams(0).suspicions([["a", "x", "b"]], 96)[0] == pytest.approx([whole - other for other in without])


@pytest.mark.parametrize("start", [None, 0])
@pytest.mark.parametrize("packs", [True, False])
def test_texts_together_are_as_texts_alone(
    tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch, packs: bool, start: int | None
) -> None:
    judge = language_model(causal(tmp_path_factory, "gpt2"), "tiny")
    assert judge.packs
    judge = dataclasses.replace(judge, packs=packs, start=start)
    rng = random.Random(2)
    words = [[rng.choice("the film is good we hate it mb".split()) for _ in range(n)] for n in (1, 2, 14, 3, 7, 1, 9)]
    together = judge.suspicions(words, 20)
    # By definition, one text at a time without any padding, in windows that hold whole texts.
    for row, found in zip(words, together, strict=True):
        if len(row) > 1 and sum(map(len, judge.encode([f" {word}" for word in row]))) <= 20:
            whole = alone(judge, row)
            expected = [whole - alone(judge, row[:i] + row[i + 1 :]) for i in range(len(row))]
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-3 * whole)
    monkeypatch.setattr("bench.victim.perplexity.TOKENS_ELSEWHERE", 32)
    monkeypatch.setattr("bench.victim.packing.SHEET", 16)
    for one, other in zip(judge.suspicions(words, 20), together, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=0.1)
    assert np.isneginf(together[0]).all() and all(np.isfinite(row).all() for row in together[1:5])


def alone(judge: LanguageModel, words: list[str]) -> float:
    """Return the perplexity of one text, computed token by token; infinity when nothing is predicted."""
    ids = ([] if judge.start is None else [judge.start]) + judge.encode([" ".join(words)])[0]
    if len(ids) < 2:
        return math.inf
    with torch.no_grad():
        likely = judge.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return math.exp(-sum(float(likely[at, token]) for at, token in enumerate(ids[1:])) / (len(ids) - 1))


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_packing_is_exact_where_it_is_used(tmp_path_factory: Any, architecture: str) -> None:
    judge = language_model(causal(tmp_path_factory, architecture), "tiny")
    assert judge.packs
    words = ["the film is good".split(), "we hate it and we hate it".split()]
    plain = dataclasses.replace(judge, packs=False).suspicions(words, 96)
    for one, other in zip(judge.suspicions(words, 96), plain, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=0.1)


def test_long_texts_are_read_in_windows() -> None:
    judge = bigrams(0)
    words = "a b a x b a b x a b a".split()
    found = judge.suspicions([words, ["x"]], 4)[0]
    parts = [judge.suspicions([words[begin : begin + 4]], 96)[0] for begin in (0, 4, 8)]
    assert found == pytest.approx(np.concatenate(parts))
    # The last word is alone in the third window, and nothing is left without it.
    assert np.isneginf(judge.suspicions([words[:9]], 4)[0][8])


def test_equal_texts_are_scored_once_and_batches_keep_to_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.victim.perplexity.TOKENS_ELSEWHERE", 4)
    judge = bigrams()
    # Three different texts; no two of them fit a batch of four tokens, the two of three tokens fit one of six.
    judge.perplexities(["a b a", "a b", "a b a", "b a b", "a b"])
    assert judge.model.batches == 3
    monkeypatch.setattr("bench.victim.perplexity.TOKENS_ELSEWHERE", 6)
    judge.perplexities(["a b a", "a b", "b a b"])
    assert judge.model.batches == 3 + 2
