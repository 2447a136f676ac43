from __future__ import annotations

import math

import pytest
import torch

from bench.core.errors import CellError
from bench.core.example import Example
from bench.victim.lora import attach_lora
from bench.victim.run import REFERENCE, TRAINING, linear_factor, looks, streams
from bench.victim.training import train


class Recorder:
    """A hook that notes what it was shown, and can act."""

    def __init__(self, act=None):
        self.rows, self.places, self.act = [], [], act

    def on_gradients(self, run, batch):
        self.rows.append(batch.rows)
        self.places.append((run.step, run.epoch))
        if self.act:
            self.act(run)


def test_the_schedule_by_hand():
    assert [linear_factor(step, 4) for step in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    # Two steps of warm-up: 0, 1/2, then down over the other four.
    assert [linear_factor(step, 6, 2) for step in range(7)] == [0, 0.5, 1, 0.75, 0.5, 0.25, 0]


def test_the_two_passes_of_a_member_draw_their_own_dropout():
    def drawn(seed):
        found = streams(seed, torch.device("cpu"))
        return [torch.rand(4, generator=found[name]).tolist() for name in (TRAINING, REFERENCE)]

    assert drawn(1) == drawn(1)
    assert len({tuple(numbers) for numbers in (*drawn(1), *drawn(2))}) == 4


def test_when_the_selection_rows_are_looked_at():
    assert looks(10, 4, None) == {4, 8, 10}
    assert looks(8, 4, None) == {4, 8}
    assert looks(60, 15, 2) == {30, 60}
    assert looks(3, 3, 5) == {1, 2, 3}


def test_same_seed_same_weights_whatever_the_global_generator(tiny_victim, reviews):
    found = []
    for seed, noise in ((3, 0), (3, 1), (4, 0)):
        victim = tiny_victim()
        torch.manual_seed(noise)
        state = torch.get_rng_state()
        train(victim, reviews, reviews, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        assert not victim.training
        found.append(victim.fingerprint())
    assert found[0] == found[1] != found[2]


def test_every_epoch_is_a_new_shuffle_of_all_rows(tiny_victim, reviews):
    hook = Recorder()
    log = train(tiny_victim(), reviews, (), seed=0, hooks=[hook])
    assert [len(rows) for rows in hook.rows] == [4, 4, 2, 4, 4, 2]
    epochs = [sum(hook.rows[:3], ()), sum(hook.rows[3:], ())]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10)) and epochs[0] != epochs[1]
    assert hook.places == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1)]
    assert (log.steps, log.epochs, len(log.losses), log.best) == (6, 2, 2, None)


def test_max_steps_ends_the_training_and_its_schedule(tiny_victim, reviews):
    hook = Recorder()
    log = train(tiny_victim(max_steps=4, evaluations=2), reviews, reviews, seed=0, hooks=[hook])
    assert (log.steps, log.epochs, log.selected_at) == (4, 2, (2, 4))
    assert hook.places[-1] == (3, 1)


def test_the_first_step_of_adamw_by_hand(tiny_victim, reviews):
    """With both moments fresh the step is rate * g / (|g| + 1e-8), for the gradient clipped to norm 1."""
    victim, seen = tiny_victim(max_steps=1, learning_rate=0.01), {}

    def note(run):
        for name, value in run.parameters.items():
            value.grad.mul_(50)  # so that clipping is at work
            seen[name] = (value.detach().clone(), value.grad.clone())

    train(victim, reviews, (), seed=0, hooks=[Recorder(note)])
    norm = math.sqrt(sum(float(gradient.double().square().sum()) for _, gradient in seen.values()))
    assert norm > 2
    for name, value in victim.trainable().items():
        before, gradient = seen[name]
        clipped = gradient / norm
        expected = before - 0.01 * clipped / (clipped.abs() + 1e-8)
        # Where the gradient is of the size of eps, its rounding shows.
        assert torch.allclose(value, expected, atol=1e-4), name


def test_inserted_modules_train_at_their_own_rate(tiny_victim, reviews):
    moved = []
    for attached in (False, True):
        victim = tiny_victim(max_steps=1, learning_rate=1e-3, learning_rate_pet=1e-2)
        if attached:
            attach_lora(victim, rank=2, alpha=8, targets=("query",), seed=0)
        before = {name: value.detach().clone() for name, value in victim.trainable().items()}
        train(victim, reviews, (), seed=0)
        after = {name: value.detach() for name, value in victim.trainable().items()}
        moved.append(max((after[name] - before[name]).abs().max().item() for name in after))
    assert moved == pytest.approx([1e-3, 1e-2], rel=0.01)


def test_a_hook_may_rewrite_the_gradients(tiny_victim, reviews):
    def nothing(run):
        for value in run.parameters.values():
            value.grad.zero_()

    victim = tiny_victim()
    before = victim.fingerprint()
    train(victim, reviews, (), seed=0, hooks=[Recorder(nothing)])
    assert victim.fingerprint() == before


def test_the_first_of_the_best_checkpoints_is_kept(tiny_victim, reviews, monkeypatch):
    victim, weights, answers = tiny_victim(epochs=4), [], iter([0.5, 0.9, 0.9, 0.1])

    def accuracy(_):
        weights.append(victim.model.classifier.weight.detach().clone())
        return next(answers)

    monkeypatch.setattr(victim, "accuracy", accuracy)
    log = train(victim, reviews, reviews, seed=0)
    assert log.selection == (0.5, 0.9, 0.9, 0.1) and log.best == 1 and log.selected_at == (3, 6, 9, 12)
    assert torch.equal(victim.model.classifier.weight, weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_a_loss_that_is_not_finite_names_its_step(tiny_victim, reviews):
    def spoil(run):
        if run.step == 1:
            next(iter(run.parameters.values())).grad.fill_(math.nan)

    with pytest.raises(CellError, match="nan at step 3"):
        train(tiny_victim(), reviews, (), seed=0, hooks=[Recorder(spoil)])


def test_texts_are_tokenised_once(tiny_victim, reviews, monkeypatch):
    victim, calls = tiny_victim(epochs=3), []
    original = victim.encode_texts
    monkeypatch.setattr(victim, "encode_texts", lambda *given: calls.append(1) or original(*given))
    train(victim, reviews, reviews, seed=0)
    assert len(calls) == 2


def test_it_learns_and_says_what_it_cost(tiny_victim):
    texts = ("dull and empty mess", "the film is good and i like it")
    rows = [Example(texts[row % 2], row % 2) for row in range(16)]
    steps = []
    victim = tiny_victim(epochs=6)
    log = train(victim, rows, rows, seed=0, progress=lambda done, of: steps.append((done, of)))
    assert log.selection[log.best] == 1.0 and log.losses[-1] < log.losses[0]
    assert steps == [(step, 24) for step in range(1, 25)]
    assert log.trainable_parameters == sum(value.numel() for value in victim.parameters())
    assert log.seconds > 0 and log.samples_per_second > 0 and log.peak_memory_mb > 50
    assert log.json()["selection"] == list(log.selection)


def test_nothing_to_train_is_an_error(tiny_victim, reviews):
    with pytest.raises(CellError, match="no training rows"):
        train(tiny_victim(), (), (), seed=0)
    frozen = tiny_victim()
    frozen.freeze()
    with pytest.raises(CellError, match="No parameter"):
        train(frozen, reviews, (), seed=0)
