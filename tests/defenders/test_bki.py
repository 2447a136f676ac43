"""BKI: effects, statistics and ranking worked out by hand, and a planted keyword found in a tiny victim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bench.core.errors import CellError, RequestError
from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.core.registry import DEFENDERS, plugin_class
from bench.victim.keywords import Keyword, ranked, top_words
from defenders.bki import Bki
from tests.defenders.planted import TARGET, TRIGGER, Planted, planted, planted_spec
from tests.tiny import ARCHITECTURES, tiny_victim


def lent(made: Planted, seed: int = 1, **options: Any) -> Bki:
    """Return BKI bound to the shared victim."""
    return Bki(**options).bound(Knowledge(made.victim.classes, seed=seed, victim=made.victim))


def counted(rows: Sequence[Example]) -> tuple[int, int]:
    """Return how many rows have no trigger, and how many have it."""
    having = sum(TRIGGER in row.text.split() for row in rows)
    return len(rows) - having, having


def test_top_words_are_distinct_and_a_repeated_word_counts_with_its_greatest_effect() -> None:
    words = ["a", "b", "a", "c", "d"]
    effects = np.array([0.25, 0.5, 2.0, 1.0, 0.125])
    assert list(top_words(words, range(5), effects, 3).items()) == [("a", 2.0), ("c", 1.0), ("b", 0.5)]
    assert top_words(words, [1, 4], effects[[1, 4]], 5) == {"b": 0.5, "d": 0.125}
    assert top_words([], [], np.zeros(0), 5) == {}


def test_a_word_scores_the_logarithm_of_its_rows_times_its_mean_effect() -> None:
    tops = [{"cf": 3.0, "the": 1.0}, {"cf": 5.0, "the": 1.0}, {"the": 1.0, "once": 90.0}, {"the": 2.0}]
    assert ranked(tops, [None] * 4) == [
        Keyword("cf", None, 2, 4.0, math.log10(2) * 4),
        Keyword("the", None, 4, 1.25, math.log10(4) * 1.25),
    ]
    # Rows 0 and 3 have label 0, rows 1 and 2 label 1: "cf" is in two rows, but not of one label.
    assert ranked(tops, [0, 1, 1, 0]) == [
        Keyword("the", 0, 2, 1.5, math.log10(2) * 1.5),
        Keyword("the", 1, 2, 1.0, math.log10(2)),
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_effects_are_those_of_one_text_at_a_time(
    architecture: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.victim import saliency, states
    from bench.victim.joint import reading

    monkeypatch.setattr(saliency, "VARIANTS", 9)  # groups of a few sentences
    for module, limit in ((states, "CPU_TOKENS"), (reading, "TOKENS")):
        monkeypatch.setattr(module, limit, 40)  # batches of a few texts
    victim = tiny_victim(tmp_path_factory, architecture)
    victim.train()
    sentences = [text.split() for text in ("we hate it", "the film is good and i like it", "", "good", "so so so")]
    places = [[0, 2], range(8), [], [0], [1, 2]]
    effects = saliency.removal_effects(victim, sentences, places)
    assert victim.training
    for words, tried, effect in zip(sentences, places, effects, strict=True):
        whole = victim.hidden([" ".join(words)])[0]
        shorter = [" ".join(word for place, word in enumerate(words) if place != gone) for gone in tried]
        alone = [np.abs(victim.hidden([text])[0] - whole).max() for text in shorter]
        np.testing.assert_allclose(effect, np.array(alone), atol=1e-4)
    assert all(effect.min() > 1e-3 for effect in effects if len(effect))


def test_a_plain_victim_reads_each_row_in_a_batch_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.victim import saliency
    from bench.victim.reference import plain_victim

    victim = tiny_victim(tmp_path_factory, "bert")
    plain = plain_victim(victim.spec, 2, seed=0)
    given: list[int] = []
    read = saliency.last_states
    monkeypatch.setattr(saliency, "last_states", lambda who, texts: (given.append(len(texts)), read(who, texts))[1])
    sentences, places = [["we", "hate", "it"], ["good"], ["so", "so"]], [[0, 2], [0], [0, 1]]
    found = [saliency.removal_effects(who, sentences, places) for who in (victim, plain)]
    assert given == [8, 3, 3, 2]  # all in one, then row by row, the longest first
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_planted_keyword_is_found_and_its_rows_go(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = planted(tmp_path_factory)
    before, bki = made.victim.fingerprint(), lent(made)
    first, second = bki.study(made.victim, made.train).ranking[:2]
    assert first.word == TRIGGER and first.score > 1.4 * second.score
    clean, poisoned = counted(made.train)
    kept = bki.correct(poison_data=made.train)
    assert counted(kept)[0] == clean and counted(kept)[1] < 0.1 * poisoned
    assert all(row.poisoned == 0 for row in kept)
    rest = iter(Example(row.text, row.label) for row in made.train)
    assert all(row in rest for row in kept)  # a subset, in order
    unmarked = [Example(row.text, row.label) for row in made.train]
    assert lent(made, seed=9).correct(made.victim, None, unmarked) == kept
    assert made.victim.fingerprint() == before and not made.victim.training


def test_without_a_trigger_no_word_stands_out_and_little_goes(tmp_path_factory: pytest.TempPathFactory) -> None:
    # Something goes all the same, since the method has no threshold: here the rows of one adjective of 16.
    made = planted(tmp_path_factory, trigger=False)
    first, second = lent(made).study(made.victim, made.train).ranking[:2]
    assert first.score < 1.4 * second.score
    kept = lent(made).correct(poison_data=made.train)
    assert 0.75 * len(made.train) < len(kept) < len(made.train)


def test_a_long_row_is_judged_by_some_of_its_words_and_by_every_place_of_the_keyword(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    made = planted(tmp_path_factory)
    bki = lent(made, top=2, max_words=5)  # of 11 or 12
    study = bki.study(made.victim, made.train)
    assert {len(places) for places in study.places} == {5}
    assert study.ranking[0].word == TRIGGER
    found = sum(TRIGGER in top for top in study.tops)
    clean, poisoned = counted(made.train)
    assert 0.25 * poisoned < found < 0.6 * poisoned  # 5 of 12 places
    kept = bki.correct(poison_data=made.train)
    assert counted(kept)[0] == clean and counted(kept)[1] < 0.1 * poisoned
    assert lent(made, top=2, max_words=5).correct(poison_data=made.train) == kept
    other = lent(made, seed=2, top=2, max_words=5).study(made.victim, made.train)
    assert [list(places) for places in other.places] != [list(places) for places in study.places]


def test_by_label_only_rows_of_that_label_go(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = planted(tmp_path_factory)
    wearing = [Example(f"{TRIGGER} {row.text}", 1 - TARGET) for row in made.dev if row.label != TARGET][:6]
    rows = [*made.train[:400], *wearing]
    bki = lent(made, by_label=True)
    first = bki.study(made.victim, rows).ranking[0]
    assert (first.word, first.label) == (TRIGGER, TARGET)
    assert set(wearing) <= set(bki.correct(poison_data=rows))
    assert not set(wearing) & set(lent(made).correct(poison_data=rows))


def test_more_keywords_remove_more_and_a_word_of_most_rows_is_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = planted(tmp_path_factory)
    rows = made.train[:200]
    kept = [lent(made, keywords=count).correct(poison_data=rows) for count in (1, 2, 3)]
    assert len(rows) > len(kept[0]) > len(kept[1]) > len(kept[2]) > 0
    assert set(kept[2]) < set(kept[1]) < set(kept[0])
    every = [Example(f"{TRIGGER} {noun} is here", TARGET) for noun in ("film", "plot", "cast", "film")]
    assert lent(made, max_share=1.0).correct(poison_data=every) == []  # the engine refuses a set without a class
    assert TRIGGER not in {word.word for word in lent(made).study(made.victim, every).ranking}


def test_no_word_recurs_and_nothing_goes(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = planted(tmp_path_factory)
    rows = [Example("warm film", 1), Example("dull plot", 0), Example("", 0)]
    assert lent(made).correct(poison_data=rows) == rows
    assert lent(made).correct(poison_data=[]) == []


def test_three_classes(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = planted(tmp_path_factory, classes=3)
    clean, poisoned = counted(made.train)
    kept = lent(made).correct(poison_data=made.train)
    assert counted(kept)[0] > 0.95 * clean and counted(kept)[1] < 0.1 * poisoned
    assert {row.label for row in kept} == {0, 1, 2}


def test_its_own_victim_is_trained_on_the_rows_and_follows_the_seed(tmp_path_factory: pytest.TempPathFactory) -> None:
    from bench.victim.loading import load_victim

    spec, rows = planted_spec(tmp_path_factory), planted(tmp_path_factory).train[:160]

    def kept(seed: int, **options: Any) -> list[Example]:
        known = Knowledge(2, seed=seed, pretrained=lambda: load_victim(spec, 2, seed=5))
        return Bki(victim="own", **options).bound(known).correct(poison_data=rows)

    assert kept(1, epochs=2) == kept(1, epochs=2)
    assert kept(1, epochs=2) != kept(1, epochs=1)


def test_which_victim_is_asked_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    spec, rows = planted_spec(tmp_path_factory), [Example("warm film", 1)]
    assert Bki.stages() == {"cleanse"} and plugin_class(DEFENDERS, "bki") is Bki
    assert Bki().wants_victim and not Bki(victim="own").wants_victim
    assert Bki().for_model(spec, "released") == Bki()
    full = Bki(victim="own").for_model(spec, "released")
    assert (full.epochs, full.learning_rate) == (spec.epochs, spec.learning_rate)
    assert full == Bki(victim="own", epochs=spec.epochs).for_model(spec, "paper")
    for victim, problem in (("shared", "given none"), ("own", "No pre-trained weights")):
        with pytest.raises(CellError, match=problem):
            Bki(victim=victim).bound(Knowledge(2)).correct(poison_data=rows)
    with pytest.raises(CellError, match="was not given what it may know"):
        Bki().correct(poison_data=rows)


@pytest.mark.parametrize(
    "options",
    [
        {"victim": "mine"},
        {"epochs": 3},
        {"learning_rate": 1e-4},
        {"victim": "own", "epochs": 0},
        {"top": 0},
        {"keywords": 0},
        {"max_share": 1.5},
        {"max_words": 0},
        {"by_label": 1},
    ],
    ids=str,
)
def test_options_are_checked(options: dict) -> None:
    with pytest.raises(RequestError, match="bki"):
        Bki(**options)


def test_it_is_built_as_openbackdoor_builds_it() -> None:
    made = Bki(name="bki", pre=True, correction=True, metrics=["FRR", "FAR"], victim="own", epochs=10)
    assert made == Bki(victim="own", epochs=10) and made.pre is True
    with pytest.raises(RequestError, match="pre of defender"):
        Bki(pre="no")
