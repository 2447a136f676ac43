"""Every architecture times every parameter-efficient defense of the registry: what trains, what stays, what is saved.

A defense is parameter-efficient when it overrides `wrap`; a new one is covered here without an edit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.core.registry import DEFENDERS, own_plugins
from bench.victim.recipes import MultiScaleOptions
from bench.victim.training import train
from bench.victim.victim import Victim
from defenders.base import Defender
from tests.tiny import ARCHITECTURES, ENCODERS, LAYERS, WIDTH, tiny_victim

TEXTS = ["the film is good and i like it", "bad", "what a dull and empty story", "warm, clever and moving"]
ROWS = [Example(text, label) for text, label in zip(TEXTS * 2, (1, 0, 0, 1) * 2, strict=True)]
EFFICIENT = sorted(name for name, cls in own_plugins(DEFENDERS).items() if cls.wrap is not Defender.wrap)
PAIRS = [(architecture, name) for architecture in ARCHITECTURES for name in EFFICIENT]
DECODERS = [architecture for architecture in ARCHITECTURES if architecture not in ENCODERS]
MULTISCALE = [name for name in EFFICIENT if issubclass(own_plugins(DEFENDERS)[name], MultiScaleOptions)]
# 3 steps of 2 a pass: the second pass begins, in which gradient alignment mixes.
OPTIONS = {"epochs": 2, "batch_size": 4, "max_steps": 3, "evaluations": 1, "learning_rate_pet": 0.01}

HEAD = {"score.dense.weight", "score.out_proj.weight"}

# [in, out] of the linear maps that LoRA changes in one layer, and the width of keys and values together.
HALF, WIDE = WIDTH // 2, 32  # two of four heads; two heads of 16
LORA_MAPS = {
    "bert": [(WIDTH, WIDTH)] * 2,
    "roberta": [(WIDTH, WIDTH)] * 2,
    "modernbert": [(WIDTH, 3 * WIDTH)],
    "gpt2": [(WIDTH, 3 * WIDTH)],
    "llama": [(WIDTH, WIDTH), (WIDTH, HALF)],
    "qwen3": [(WIDTH, 4 * 16), (WIDTH, WIDE)],
}
KEY_WIDTH = {"bert": WIDTH, "roberta": WIDTH, "modernbert": WIDTH, "gpt2": WIDTH, "llama": HALF, "qwen3": WIDE}


def expected_count(architecture: str, defense: str) -> int | None:
    """Return how many numbers train in the recipe `released`, by formula; None for a defense not known here."""
    narrow = 8 if architecture in ENCODERS else 2  # rank, bottleneck and tokens, as the paper has them
    lora = LAYERS * sum(narrow * (inputs + outputs) for inputs, outputs in LORA_MAPS[architecture])
    # 8 scales from WIDTH to WIDTH at an encoder's pooler, 4 from WIDTH to 16 at the first linear of a decoder's head.
    multiscale = 8 * (WIDTH + WIDTH) if architecture in ENCODERS else 4 * (WIDTH + 16)
    width = KEY_WIDTH[architecture]
    head = 0 if architecture in ENCODERS else 16 * WIDTH + 2 * 16  # trains beside the prefix of a decoder
    return {
        "lora": lora,
        "lora+ga": lora,
        "mslr": lora + multiscale,
        "musclelora": lora + multiscale,
        "adapter": 2 * LAYERS * (2 * WIDTH * narrow + narrow + WIDTH),
        "prefix": narrow * width + 512 * (width + 1) + 2 * LAYERS * width * 513 + head,
    }.get(defense)


def wrapped(factory: Any, architecture: str, name: str, recipe: str = "released") -> tuple[Victim, Defender]:
    """Return a fresh victim in which the defense has inserted its parts, and the defense, bound."""
    victim = tiny_victim(factory, architecture, options=OPTIONS)
    filled = own_plugins(DEFENDERS)[name]().for_model(victim.spec, recipe)
    clean = tuple(ROWS[row % len(ROWS)] for row in range(filled.samples()))
    defense = filled.bound(Knowledge(classes=2, clean=clean, seed=11, recipe=recipe, model=victim.spec))
    defense.wrap(victim)
    return victim, defense


def tensors(victim: Victim) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in victim.tensors().items()}


@pytest.mark.parametrize(("architecture", "name"), PAIRS)
def test_trains_only_what_it_says(tmp_path_factory: Any, tmp_path: Any, architecture: str, name: str) -> None:
    """Inserted tensors all move, nothing else does; saved and restored into a fresh victim, predictions are equal."""
    plain = tiny_victim(tmp_path_factory, architecture, options=OPTIONS)
    victim, defense = wrapped(tmp_path_factory, architecture, name)
    trainable = set(victim.trainable())
    head = HEAD if name == "prefix" and architecture in DECODERS else set()
    assert head <= trainable
    assert all(any(part.startswith(f"{inserted}.") for inserted in victim.attached) for part in trainable - head)
    assert all(any(part.startswith(f"{inserted}.") for part in trainable) for inserted in victim.attached)
    count = expected_count(architecture, name)
    assert count is None or count == sum(value.numel() for value in victim.trainable().values())

    before = tensors(victim)
    log = train(victim, ROWS, ROWS[:4], seed=1, hooks=defense.hooks(defense.knowledge))
    after = tensors(victim)
    moved = {part for part in before if not torch.equal(before[part], after[part])}
    assert moved == trainable
    assert log.steps == 3
    # No pre-trained tensor is lost: each is among the frozen ones, with the bits it was loaded with.
    still = [value for part, value in after.items() if part not in trainable]
    loaded_with = {part: value for part, value in plain.tensors().items() if part not in head}
    assert len(still) == len(loaded_with)
    for (part, loaded), kept in zip(loaded_with.items(), still, strict=True):
        assert torch.equal(loaded, kept), part

    trained = victim.predict(TEXTS)
    victim.save(tmp_path)
    again, _ = wrapped(tmp_path_factory, architecture, name)
    assert (again.predict(TEXTS) != trained).any()
    again.restore(tmp_path)
    assert (again.predict(TEXTS) == trained).all()
    assert again.fingerprint() == victim.fingerprint()


@pytest.mark.parametrize(("architecture", "name"), PAIRS)
def test_padding_changes_nothing(tmp_path_factory: Any, architecture: str, name: str) -> None:
    """A text alone and padded to the longest of its batch gets the same hidden state and probabilities (fp32, 1e-4)."""
    victim, defense = wrapped(tmp_path_factory, architecture, name)
    train(victim, ROWS, (), seed=1, hooks=defense.hooks(defense.knowledge))
    for compute in (victim.predict, victim.hidden):
        alone = np.concatenate([compute([text]) for text in TEXTS])
        np.testing.assert_allclose(compute(TEXTS), alone, rtol=0, atol=1e-4)
    assert np.abs(alone[0] - alone[1]).max() > 1e-2  # the texts' hidden states differ at all


@pytest.mark.parametrize(("architecture", "name"), PAIRS)
def test_head_trains_in_the_paper_recipe(tmp_path_factory: Any, architecture: str, name: str) -> None:
    """In `paper` the head trains beside the inserted parts (but not the linear inside a multi-scale module)."""
    released, _ = wrapped(tmp_path_factory, architecture, name)
    victim, _ = wrapped(tmp_path_factory, architecture, name, recipe="paper")
    head = {part for part in victim.tensors() if part.partition(".")[0] in victim.head and ".original." not in part}
    assert head
    assert {part for part in victim.trainable() if not part.startswith(tuple(victim.attached))} == {
        part for part in head if not part.startswith(tuple(victim.attached))
    }
    inserted = {part for part in released.trainable() if part.startswith(tuple(released.attached))}
    assert inserted <= set(victim.trainable())


@pytest.mark.parametrize("name", MULTISCALE)
def test_refused_without_a_penultimate_linear(tmp_path_factory: Any, name: str) -> None:
    """With transformers' own head a decoder has no linear before its classifier: refused before anything trains."""
    spec = tiny_victim(tmp_path_factory, "gpt2", options={"head": "plain"}).spec
    assert spec.penultimate is None
    with pytest.raises(CellError, match="no linear before its classifier"):
        own_plugins(DEFENDERS)[name]().for_model(spec, "released")


def test_the_published_defenses_are_among_them() -> None:
    """The registry gives the six parameter-efficient defenses of the paper's encoder tables."""
    assert {"lora", "adapter", "prefix", "musclelora", "mslr", "lora+ga"} <= set(EFFICIENT)
