"""The plain loop, our loop and Hugging Face's Trainer leave the same tensors after the same batches without dropout."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.core.errors import CellError
from bench.core.example import Example
from bench.victim.bare_trainer import train_by_trainer
from bench.victim.recipes import AlignmentOptions, LoraOptions, MultiScaleOptions, filled
from bench.victim.reference import _SecondPass, insert_lora, insert_multiscale, plain_victim, train_plainly
from bench.victim.spec import ModelSpec

# Of the distance that a tensor moved in the whole training: what the order of floating-point sums may make.
TOLERANCE = 1e-3
# Softmax does not see a shift of all scores, so a key's bias has the gradient 0 but for rounding, which AdamW blows up.
WITHOUT_GRADIENT = "key.bias"


@pytest.fixture
def spec(tiny_spec: Callable[..., ModelSpec], tmp_path: Path) -> Callable[..., ModelSpec]:
    """Return a maker of specs of a tiny BERT without dropout."""
    folder = tmp_path / "still"
    shutil.copytree(tiny_spec("bert").path, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))

    def make(**options: Any) -> ModelSpec:
        return dataclasses.replace(tiny_spec("bert", **options), path=str(folder))

    return make


@pytest.fixture
def rows() -> list[Example]:
    """Return 36 labelled texts of 3 to 30 tokens, so that batches of 4 leave much padding."""
    words = ("the film is good", "a dull mess", "what a warm and moving story", "we hate it", "i like it")
    return [Example(f"{words[row % 5]} {'very ' * (row * 7 % 26)}", row % 2) for row in range(36)]


def plainly(spec: ModelSpec, name: str) -> Any:
    """Return a plain victim with the parts of one defense."""
    victim = plain_victim(spec, 2, seed=0)
    if name != "vanilla":
        insert_lora(victim)
    if name == "musclelora":
        insert_multiscale(victim)
    return victim


def ours(spec: ModelSpec, name: str) -> Any:
    """Return our victim with the parts of one defense."""
    from bench.victim.assembly import add_lora, add_multiscale
    from bench.victim.loading import load_victim

    victim = load_victim(spec, 2, seed=0)
    if name != "vanilla":
        add_lora(victim, filled(LoraOptions(), spec, "released"), seed=0)
    if name == "musclelora":
        add_multiscale(victim, filled(MultiScaleOptions(), spec, "released"), seed=0)
    return victim


def start_alike(plain: Any, other: Any) -> dict[str, torch.Tensor]:
    """Give the plain victim the other's tensors, and return where they start."""
    theirs = plain.tensors()
    with torch.no_grad():
        for name, value in other.tensors().items():
            theirs[name].copy_(value)
    assert set(theirs) == set(other.tensors()) and set(plain.trainable()) == set(other.trainable())
    return {name: value.detach().clone() for name, value in other.trainable().items()}


def assert_same(found: Any, expected: Any, start: dict[str, torch.Tensor], rate: float, steps: int) -> None:
    """Every trained tensor of one victim is that of the other, and did move."""
    expected = expected.trainable()
    for name, value in found.trainable().items():
        apart, moved = (value - expected[name]).norm(), (expected[name] - start[name]).norm()
        if name.endswith(WITHOUT_GRADIENT):
            assert apart <= 2 * rate * steps * value.numel() ** 0.5, name
        else:
            assert moved > 0 and apart <= TOLERANCE * moved, (name, float(apart / moved))


@pytest.mark.parametrize("name", ["vanilla", "lora", "musclelora"])
def test_our_loop_leaves_what_the_plain_loop_leaves(
    spec: Callable[..., ModelSpec], rows: list[Example], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.victim.alignment import GradientAlignment
    from bench.victim.training import train

    # Three epochs of 9 steps: gradients are aligned alone, mixed and raw. Its gate opens at a reference loss of 0.6.
    made = spec(epochs=3, learning_rate_pet=1e-3, ga_epoch=1, min_reference_loss=0.6)
    options = filled(AlignmentOptions(), made, "released") if name == "musclelora" else None
    our, plain = ours(made, name), plainly(made, name)
    start = start_alike(plain, our)
    clean = rows[:6]
    hooks = (GradientAlignment(clean, options, seed=3),) if options else ()
    train(our, rows, (), seed=3, hooks=hooks)
    taken, gate = [], _SecondPass._mu
    monkeypatch.setattr(_SecondPass, "_mu", lambda *given: taken.append(gate(*given)) or taken[-1])
    steps = train_plainly(plain, rows, seed=3, clean=clean, alignment=options)
    assert steps == 27
    if options:  # the aligned gradient alone, a mixture and the raw one were all taken
        assert {0.0, 1.0} < set(taken) and any(0 < mu < 1 for mu in taken)
    assert_same(our, plain, start, made.learning_rate, steps)


@pytest.mark.parametrize("name", ["vanilla", "lora"])
def test_the_plain_loop_leaves_what_the_trainer_leaves(
    spec: Callable[..., ModelSpec], rows: list[Example], name: str
) -> None:
    made = spec(epochs=1, learning_rate_pet=1e-3)
    plain, theirs = plainly(made, name), plainly(made, name)
    start, ticks = start_alike(plain, theirs), []
    state = torch.random.get_rng_state()
    assert train_by_trainer(theirs, rows, seed=3, tick=lambda done, steps: ticks.append((done, steps))) == 9
    torch.random.set_rng_state(state)
    assert ticks == [(step, 9) for step in range(1, 10)]
    train_plainly(plain, rows, seed=3)
    assert_same(theirs, plain, start, made.learning_rate, 9)


def test_plain_predictions_are_those_of_our_victim(spec: Callable[..., ModelSpec], rows: list[Example]) -> None:
    made = spec()
    texts = [text for text, *_ in rows]
    apart = plainly(made, "vanilla").predict(texts) - ours(made, "vanilla").predict(texts)
    assert abs(apart).max() < 1e-5


def test_training_plainly_gives_random_state_back_and_stops_at_max_steps(
    spec: Callable[..., ModelSpec], rows: list[Example]
) -> None:
    state, looked = torch.random.get_rng_state(), []
    victim = plainly(spec(epochs=2, max_steps=11), "lora")
    state = torch.random.get_rng_state()
    assert train_plainly(victim, rows, seed=0, after_epoch=looked.append) == 11
    assert looked == [0, 1] and torch.equal(torch.random.get_rng_state(), state) and not victim.training


def test_what_the_plain_loop_refuses(spec: Callable[..., ModelSpec], rows: list[Example]) -> None:
    made = spec()
    with pytest.raises(CellError, match="recipe `released`"):
        options = filled(AlignmentOptions(), made, "paper")
        train_plainly(plainly(made, "lora"), rows, seed=0, clean=rows, alignment=options)
    with pytest.raises(CellError, match="nothing to train on"):
        train_plainly(plainly(made, "lora"), [], seed=0)
    with pytest.raises(CellError, match="no linear before its classifier"):
        insert_multiscale(plainly(dataclasses.replace(made, penultimate=None), "lora"))
