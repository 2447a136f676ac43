"""Perplexities: worked out by hand, in batches and packed as one by one, long texts in windows."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from bench.victim.perplexity import LanguageModel, judge_of, language_model
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
    monkeypatch.setattr("bench.victim.packing.sheet_size", lambda text: 16)
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


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen3"])
def test_every_way_to_read_gives_the_same(
    tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    judge = language_model(causal(tmp_path_factory, architecture), "tiny")
    assert judge.packs and judge.by_blocks
    # Words in a row that repeat, a text that comes twice, a single word, a word of many tokens.
    words = [row.split() for row in ("the film is is is good", "it", "we hate it", "unheard-of mb film", "we hate it")]
    plain = dataclasses.replace(judge, packs=False, by_blocks=False).suspicions(words, 96)
    monkeypatch.setattr("bench.victim.reading.LOGITS_ELSEWHERE", 500)  # a vocabulary in several blocks
    for start, sheet in ((judge.start, 256), (judge.start, 6), (None, 256), (None, 6)):
        monkeypatch.setattr("bench.victim.packing.sheet_size", lambda text, size=sheet: size)
        expected = dataclasses.replace(judge, packs=False, by_blocks=False, start=start).suspicions(words, 96)
        for packs, by_blocks in ((True, True), (True, False), (False, True)):
            other = dataclasses.replace(judge, packs=packs, by_blocks=by_blocks, start=start)
            for one, two in zip(other.suspicions(words, 96), expected, strict=True):
                assert one == pytest.approx(two, rel=1e-4, abs=1e-2)
    assert plain[0][2] == plain[0][3] and np.isneginf(plain[1]).all() and (plain[2] == plain[4]).all()


def test_no_token_is_read_twice_or_for_nothing(tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = language_model(causal(tmp_path_factory, "gpt2"), "tiny")
    read: list[tuple[int, ...]] = []
    judge.model.base_model.register_forward_pre_hook(
        lambda model, given, named: read.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )

    def encode(texts: list[str]) -> list[list[int]]:
        return [[ord(letter) for letter in text if letter != " "] for text in texts]

    letters = dataclasses.replace(judge, encode=encode)
    letters.suspicions([list("abcde"), list("abcde")], 96)
    # A start and four letters that predict the next; without a, without b ... it is 3 + 2 + 1 new ones that predict.
    assert read == [(1, 5 + 3 + 2 + 1)]
    read.clear()
    letters.suspicions([list("aaaaa")], 96)
    assert read == [(1, 5)]
    read.clear()
    # On sheets of 8 there is room for 2 + 1, and 3 take a sheet with the start token alone.
    monkeypatch.setattr("bench.victim.packing.sheet_size", lambda text: 8)
    letters.suspicions([list("abcde")], 96)
    assert sorted(read) == [(1, 1 + 3), (1, 5 + 1 + 2)] or read == [(2, 8)]


OTHERS: dict[str, tuple[dict[str, Any], bool, bool]] = {
    # architecture: settings, whether it packs, whether its head is one linear map
    "mistral": ({"sliding_window": 4096}, True, True),
    "mistral, short window": ({"sliding_window": 24}, False, True),
    "gpt_neo, short window": (
        {"attention_types": [[["global", "local"], 1]], "window_size": 24, "num_layers": 2, "num_heads": 4},
        False,
        True,
    ),
    "phi": ({}, True, True),  # its head has a bias
    "granite": ({"logits_scaling": 4.0}, True, False),
    "bloom": ({"n_layer": 2, "n_head": 4}, False, True),
    "mamba": ({"state_size": 4}, False, True),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_cannot_be_packed_is_read_the_plain_way(name: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    settings, packs, by_blocks = OTHERS[name]
    common = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 200,
        "vocab_size": 90,
        "initializer_range": 0.3,
    }
    config = AutoConfig.for_model(name.partition(",")[0], **{**common, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config).eval()

    def encode(texts: list[str]) -> list[list[int]]:
        return [[1 + int(word) for word in text.split()] for text in texts]

    judge = judge_of(model, encode, 0, 200)
    assert (judge.packs, judge.by_blocks) == (packs, by_blocks)
    rng = random.Random(1)
    words = [[str(rng.randrange(88)) for _ in range(count)] for count in (40, 3)]
    for row, found in zip(words, judge.suspicions(words, 96), strict=True):
        whole = alone(judge, row)
        expected = [whole - alone(judge, row[:i] + row[i + 1 :]) for i in range(len(row))]
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3 * whole)


def test_texts_beyond_what_was_tried_are_not_packed(tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = language_model(causal(tmp_path_factory, "llama"), "tiny")
    monkeypatch.setattr("bench.victim.perplexity.LONGEST_PACKED", 4)
    packed: list[bool] = []
    judge.model.base_model.register_forward_pre_hook(
        lambda model, given, named: packed.append("position_ids" in named), with_kwargs=True
    )
    words = ["a b".split(), "the film is good and we hate it".split()]
    found = judge.suspicions(words, 96)
    assert packed == [True, *[False] * (len(packed) - 1)] and len(packed) > 1
    for one, other in zip(found, dataclasses.replace(judge, packs=False).suspicions(words, 96), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-2)


def test_the_fused_activation_is_the_same_function(tmp_path_factory: Any) -> None:
    from transformers import AutoModelForCausalLM

    folder = causal(tmp_path_factory, "gpt2")
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(folder).eval()(input_ids=ids).logits
        model = language_model(folder, "tiny").model
        assert [type(block.mlp.act) for block in model.transformer.h] == [torch.nn.GELU] * 2
        assert model(input_ids=ids).logits == pytest.approx(expected, rel=1e-4, abs=1e-5)


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
