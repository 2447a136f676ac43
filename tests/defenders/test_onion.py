"""ONION: the word that does not belong is deleted, by a model worked out by hand and from a planted victim's texts."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.core.errors import CellError, RequestError
from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.victim.inference_speed import detector_speed, onion_speed, onion_ways
from bench.victim.local_lm import local_language_model
from bench.victim.perplexity import LanguageModel
from defenders.onion import DEFAULT, Onion, corrected
from tests.defenders.judges import bigrams, causal
from tests.defenders.planted import TARGET, TRIGGER, planted
from tests.tiny import tiny_model, write_tiny_model


def judged(defense: Onion, judge: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> Onion:
    """Return the defense with a language model of ours."""
    monkeypatch.setattr(Onion, "_loaded", lambda self, device: judge)
    return defense


def test_the_word_that_does_not_belong_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    # 0.7 * 0.1 / 3 is far below 0.7 * 0.8: without x a text is likelier per word, without another word it is not.
    defense = judged(Onion(), bigrams(0), monkeypatch)
    rows = [Example("a x b", 0, 1), Example("a b a", 1), Example("x", 1), Example("", 0), Example("a  b x a b", 1)]
    found = defense.correct("no victim is needed", {}, rows)
    assert found == [("a b", 0, 0), ("a b a", 1, 0), ("x", 1, 0), ("", 0, 0), ("a b a b", 1, 0)]


def test_a_text_never_becomes_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    assert corrected("p  q r", ["p", "q", "r"], np.array([3.0, 1.0, 2.0]), 1.0) == "q"
    assert corrected("p  q r", ["p", "q", "r"], np.array([3.0, 1.0, 2.0]), 2.0) == "q"
    assert corrected("p  q r", ["p", "q", "r"], np.array([3.0, 1.0, 2.0]), 2.5) == "q r"
    assert corrected("p  q r", ["p", "q", "r"], np.array([3.0, 1.0, 2.0]), 3.5) == "p  q r"
    assert corrected("p", ["p"], np.array([-np.inf]), 0.0) == "p"
    defense = judged(Onion(bar=-1e9), bigrams(0), monkeypatch)
    assert [len(row.text.split()) for row in defense.correct(None, {}, [Example("a x b", 0), Example("x", 0)])] == [
        1,
        1,
    ]


def test_a_quantile_of_clean_words_sets_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    dev = [Example("a b a b", 0)] * 19 + [Example("a x b a", 0)]
    scores = np.concatenate(bigrams(0).suspicions([text.split() for text, *_ in dev], 96))
    # x alone is above 0.98 of the 80 words, so every text of like words keeps them.
    defense = judged(Onion(quantile=0.99), bigrams(0), monkeypatch)
    assert np.sum(scores >= np.quantile(scores, 0.99)) == 1
    found = defense.correct(None, {"dev": dev}, [Example("a x b a", 0), Example("a b a b", 1)])
    assert [row.text for row in found] == ["a b a", "a b a b"]
    with pytest.raises(CellError, match="at least 20 clean dev rows"):
        defense.correct(None, {"dev": dev[:19]}, dev)


@pytest.mark.parametrize("quantile", [None, 0.98])
def test_the_planted_word_is_deleted_and_the_attack_fails(tmp_path_factory: Any, quantile: float | None) -> None:
    found = planted(tmp_path_factory)
    before = found.victim.fingerprint()
    defense = Onion(lm="local", quantile=quantile).bound(Knowledge(2, seed=1))
    given = {"dev": found.dev}
    poisoned = defense.correct(found.victim, given, found.test_poisoned)
    clean = defense.correct(found.victim, given, found.test_clean)
    assert np.mean([TRIGGER in row.text.split() for row in poisoned]) < 0.05
    assert [row.label for row in clean] == [row.label for row in found.test_clean]
    assert not any(row.poisoned for row in poisoned)

    def taken(rows: list[Example]) -> np.ndarray:
        return found.victim.predict([row.text for row in rows]).argmax(-1)

    assert (taken(found.test_poisoned) == TARGET).mean() > 0.95 and (taken(poisoned) == TARGET).mean() < 0.1
    assert (taken(clean) == [row.label for row in clean]).mean() > (0.85 if quantile is None else 0.93)
    assert found.victim.fingerprint() == before


def test_the_local_model_is_never_read_without_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its padding token is no stranger to its head's probe; transformers would warn in the middle of a run."""
    from transformers import PreTrainedModel

    masks = []
    name = "warn_if_padding_and_no_attention_mask"
    monkeypatch.setattr(PreTrainedModel, name, lambda self, ids, mask: masks.append(mask))
    monkeypatch.setattr("bench.victim.local_lm.STEPS", 1)
    local_language_model(["good film", "bad film", "fine film"], seed=0).perplexities(["good film"])
    assert masks and all(mask is not None for mask in masks)


@pytest.mark.parametrize("texts", [[], ["", " "], ["film", ""]])
def test_a_local_model_of_no_texts_is_refused(texts: list[str]) -> None:
    with pytest.raises(CellError, match="learnt from [01] texts with a word"):
        local_language_model(texts, seed=0)


def test_the_local_model_is_a_function_of_texts_and_seed(
    tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.victim.local_lm.STEPS", 4)
    monkeypatch.setattr("bench.victim.local_lm.LOOK_EVERY", 2)
    texts = [text for text, *_ in planted(tmp_path_factory).dev[:30]]
    state = torch.random.get_rng_state()
    scores = [local_language_model(texts, seed=seed).perplexities(texts) for seed in (1, 1, 2)]
    assert (scores[0] == scores[1]).all() and (scores[0] != scores[2]).any()
    assert torch.equal(torch.random.get_rng_state(), state)
    # Bound, it is trained once for all that is asked of it.
    calls = []
    monkeypatch.setattr("bench.victim.local_lm.local_language_model", lambda *a, **k: calls.append(k) or bigrams())
    rows = [Example(text, 0) for text in texts]
    defense = Onion(lm="local").bound(Knowledge(2, calibration=tuple(rows), seed=7))
    for _ in range(2):
        assert defense.correct(None, None, [Example("a", 0)]) == [("a", 0, 0)]
    assert [call["seed"] for call in calls] == [7]


def test_a_language_model_must_have_a_tokenizer_and_be_generative(tmp_path_factory: Any, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForMaskedLM

    rows = [Example("a b", 0)]
    whole = causal(tmp_path_factory, "gpt2")
    assert len(Onion(lm=str(whole)).correct(None, None, rows)) == 1
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bare" / name).write_bytes((whole / name).read_bytes())
    with pytest.raises(CellError, match="has no tokenizer"):
        Onion(lm=str(tmp_path / "bare")).correct(None, None, rows)
    with pytest.raises(CellError, match="not generative: its weights lack"):
        Onion(lm=str(tiny_model(tmp_path_factory, "bert"))).correct(None, None, rows)
    masked = tmp_path / "masked"
    write_tiny_model(masked, "bert")
    with torch.random.fork_rng(devices=[]):
        AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(masked)).save_pretrained(masked)
    with pytest.raises(CellError, match="not generative: it reads the words after a word"):
        Onion(lm=str(masked)).correct(None, None, rows)


def test_a_language_model_is_pinned(tmp_path_factory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Onion().for_model(None, "paper") == Onion(revision=DEFAULT[1]) == Onion().for_model(None, "released")
    assert Onion(lm="local").for_model(None, "released") == Onion(lm="local")
    with pytest.raises(CellError, match="'someone/model' is no folder here, .* no pinned commit"):
        Onion(lm="someone/model").for_model(None, "released")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CellError, match="HF_HUB_OFFLINE is set.* set lm to local"):
        Onion(lm="someone/model", revision="0" * 40).correct(None, None, [Example("a b", 0)])
    folder = tmp_path / "lm"
    folder.mkdir()
    for item in causal(tmp_path_factory, "gpt2").iterdir():
        (folder / item.name).write_bytes(item.read_bytes())
    planned = Onion(lm=str(folder)).for_model(None, "released")
    assert planned.lm_files.startswith("files:") and len(planned.correct(None, None, [Example("a b", 0)])) == 1
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    with pytest.raises(CellError, match="not those that this run was planned with"):
        Onion(**{**planned.identity(), **planned.place()}).correct(None, None, [Example("a b", 0)])


def test_options() -> None:
    assert Onion().identity() == {
        "lm": "openai-community/gpt2",
        "revision": None,
        "lm_files": None,
        "bar": 0.0,
        "quantile": None,
        "start_token": True,
        "max_tokens": 96,
    }
    assert Onion(name="onion", pre=False, correction=True, metrics=["FRR", "FAR"], bar=0) == Onion()
    assert Onion.stages() == {"filter"} and not Onion.filter_uses_model
    assert Onion(lm="local").filter_is_drawn and not Onion(quantile=0.9).filter_is_drawn
    asked = {"gpt2": Onion(), "local": Onion(lm="local"), "quantile": Onion(quantile=0.9)}
    assert {name: defense.calibrated for name, defense in asked.items()} == {
        "gpt2": False,
        "local": True,
        "quantile": True,
    }
    with pytest.raises(RequestError, match="both a bar and a quantile"):
        Onion(bar=1.0, quantile=0.9)
    with pytest.raises(RequestError, match="has no revision"):
        Onion(lm="local", revision="0" * 40)
    for wrong in ({"revision": "main"}, {"quantile": 2.0}, {"max_tokens": 0}, {"bar": math.nan}):
        with pytest.raises(RequestError, match=f"onion.{next(iter(wrong))}"):
            Onion(**wrong)


def test_speed_is_measured() -> None:
    row = onion_speed(["a b c", "d e"], layers=1)
    assert (row["defense"], row["sentences"], row["words_per_sentence"]) == ("onion", 2, 2.5)
    assert row["sentences_per_second"] == pytest.approx(2 / row["seconds"])
    with pytest.raises(RequestError, match="no texts"):
        onion_speed([], layers=1)
    detector = SimpleNamespace(name="strip", suspicion=lambda model, clean, rows: None)
    row = detector_speed(detector, SimpleNamespace(device="cpu"), [], ["a b"])
    assert (row["defense"], row["sentences"], row["device"]) == ("strip", 1, "cpu")


@pytest.mark.slow
def test_ways_are_measured_side_by_side() -> None:
    ways = onion_ways(["a b c", "d e", "f"] * 5, layers=1)
    assert [row["name"] for row in ways] == ["ours", "in full", "one at a time"]
    assert {row["sentences"] for row in ways} == {15} and all(row["apart"] < 1e-4 for row in ways)
    for row in ways:
        assert row["against_one_at_a_time"] == pytest.approx(ways[2]["seconds"] / row["seconds"])
    with pytest.raises(RequestError, match="no texts"):
        onion_ways([], layers=1)
