"""A training that touches only the words that it reads moves every tensor as one that touches all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.core.example import Example
from bench.victim.alignment import GradientAlignment
from bench.victim.joint.support import kind_of
from bench.victim.recipes import AlignmentOptions, filled
from bench.victim.run import Run
from bench.victim.training import train
from bench.victim.victim import Victim
from tests.tiny import tiny_victim

ROWS = [Example(text, number % 2) for number, text in enumerate(["a good film", "a bad film", "bad", "good good"] * 3)]
CLEAN = [Example("a dull plot", 0), Example("the best actors", 1)]  # words that no training row has
HELD_OUT = [Example("the plot", 0), Example("best film", 1)]
SPEC = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "evaluations": 2}


class Looks:
    """Notes what stood for the words, and the embedding, at each step."""

    def __init__(self) -> None:
        self.words: Any = None
        self.tables: list[torch.Tensor] = []

    def on_step(self, run: Run) -> None:
        self.words = run.words
        self.tables.append(run.victim.word_embedding.detach().clone())


class Silent:
    """A hook that does not say what it reads."""

    def on_gradients(self, run: Run, batch: Any) -> None:
        pass


def trained(victim: Victim, *hooks: Any) -> tuple[Victim, Looks, Any]:
    looks = Looks()
    log = train(victim, ROWS, HELD_OUT, seed=1, hooks=hooks, observers=[looks])
    return victim, looks, log


def alignment(victim: Victim) -> GradientAlignment:
    return GradientAlignment(CLEAN, filled(AlignmentOptions(), victim.spec, "released"), seed=0)


@pytest.mark.parametrize("aligned", [False, True], ids=["plain", "aligned"])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "electra"])
def test_all_that_trains_ends_where_it_ends_with_the_whole_embedding(
    tmp_path_factory: pytest.TempPathFactory, architecture: str, aligned: bool
) -> None:
    ends = []
    for others in ((), (Silent(),)):
        victim = tiny_victim(tmp_path_factory, architecture, options=SPEC)
        before = {name: value.detach().clone() for name, value in victim.trainable().items()}
        hooks = (*others, alignment(victim)) if aligned else others
        ends.append(trained(victim, *hooks))
    (victim, looks, log), (whole, seen, expected) = ends
    assert looks.words is not None and seen.words is None
    assert log.selection == expected.selection and log.trainable_parameters == expected.trainable_parameters
    for name, value in whole.trainable().items():
        if name.endswith("key.bias"):  # softmax cancels it: its gradient is rounding, which AdamW makes steps of
            continue
        moved = (value - before[name]).abs().max()
        assert (victim.trainable()[name] - value).abs().max() <= 1e-4 * moved + 1e-7, name
    for table, other in zip(looks.tables, seen.tables, strict=True):  # an observer sees each step
        assert torch.allclose(table, other, atol=1e-5)
    assert not torch.equal(looks.tables[0], looks.tables[1])


def test_a_word_that_is_not_read_stays_as_it_is_and_those_read_are_those_of_rows_and_hooks(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    victim = tiny_victim(tmp_path_factory, "bert", options=SPEC)
    before = victim.word_embedding.detach().clone()
    _, looks, _ = trained(victim, alignment(victim))
    read = set(victim.encode([*ROWS, *CLEAN]).batch(range(14)).inputs["input_ids"].flatten().tolist())
    read.discard(victim.tokenizer.pad_token_id)
    assert set(looks.words.rows.tolist()) == read
    rest = [word for word in range(len(before)) if word not in read]
    assert rest and torch.equal(victim.word_embedding[rest], before[rest])
    assert not torch.equal(victim.word_embedding[sorted(read)], before[sorted(read)])


@pytest.mark.parametrize("hooks", [(), (Silent(),)], ids=["rows", "whole"])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "electra"])
def test_the_padding_token_of_a_text_does_not_train(
    tmp_path_factory: pytest.TempPathFactory, architecture: str, hooks: tuple[Any, ...]
) -> None:
    """As in transformers, whose embedding gives it no gradient."""
    victim, looks = tiny_victim(tmp_path_factory, architecture, options=SPEC), Looks()
    before, padding = victim.word_embedding.detach().clone(), victim.tokenizer.pad_token_id
    rows = [Example(f"good {victim.tokenizer.pad_token} film", 1), *ROWS]
    read = victim.encode(rows).ids[0].tolist()
    train(victim, rows, HELD_OUT, seed=1, hooks=hooks, observers=[looks])
    assert padding in read and (looks.words is None) == bool(hooks)
    unmoved = [word for word in set(read) if torch.equal(victim.word_embedding[word], before[word])]
    assert unmoved == [padding]


def test_a_text_that_no_one_spoke_of_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    victim = tiny_victim(tmp_path_factory, "bert", options=SPEC)
    _, looks, _ = trained(victim)
    with pytest.raises(ValueError, match="of which it was not said"):
        looks.words.renamed(victim.encode(CLEAN))


@pytest.mark.parametrize("architecture", ["distilbert", "modernbert", "gpt2"])
def test_other_architectures_train_the_whole_embedding(
    tmp_path_factory: pytest.TempPathFactory, architecture: str
) -> None:
    victim, looks, _ = trained(tiny_victim(tmp_path_factory, architecture, options=SPEC))
    assert kind_of(victim) is not None and looks.words is None


def test_where_most_words_are_read_the_whole_embedding_trains(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.victim.read_words.SHARE", 0.01)
    assert trained(tiny_victim(tmp_path_factory, "bert", options=SPEC))[1].words is None


def test_a_look_at_the_selection_rows_reads_the_words_as_they_are_trained(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, seen, answers = tiny_victim(tmp_path_factory, "bert", options=SPEC), [], iter([0.5, 0.9])

    def accuracy(_: Any) -> float:
        seen.append(victim.word_embedding.detach().clone())
        return next(answers)

    monkeypatch.setattr(victim, "accuracy", accuracy)
    train(victim, ROWS, HELD_OUT, seed=1)
    assert torch.equal(seen[1], victim.word_embedding) and not torch.equal(seen[0], seen[1])
