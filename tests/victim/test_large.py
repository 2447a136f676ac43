"""What large models need: bf16 weights, activations computed twice, and LoRA that stands for full fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.core.registry import DEFENDERS, plugin_class
from bench.victim.assembly import add_stand_in
from bench.victim.loading import load_victim
from bench.victim.spec import ModelSpec
from bench.victim.training import seeded, train
from bench.victim.victim import Victim

DECODERS = ("gpt2", "llama", "qwen3")
INSERTING = ("lora", "adapter", "prefix", "musclelora")
TEXTS = ["the film is good and i like it", "bad", "what a dull and empty story", "warm, clever and moving"]
ROWS = [Example(text, label) for text, label in zip(TEXTS * 2, (1, 0, 0, 1) * 2, strict=True)]
STEPS = {"epochs": 1, "max_steps": 2, "batch_size": 4, "learning_rate_pet": 0.01}


def wrapped(spec: ModelSpec, defense: str, precision: str = "fp32") -> tuple[Victim, Any]:
    """Return a fresh victim and the bound defense that was wrapped around it."""
    victim = load_victim(spec, 2, seed=3, precision=precision)
    clean = tuple(ROWS[row % len(ROWS)] for row in range(128))
    filled = plugin_class(DEFENDERS, defense)().for_model(spec, "released")
    bound = filled.bound(Knowledge(2, clean=clean, seed=1, model=spec))
    bound.wrap(victim)
    return victim, bound


def gradients(victim: Victim) -> dict[str, torch.Tensor]:
    """Return the gradient of every parameter that trains, dropout on and drawn from one seed."""
    victim.train()
    with seeded(9, victim.device):
        victim.loss(*victim.process({"text": TEXTS, "label": [1, 0, 0, 1]})).backward()
    return {name: value.grad for name, value in victim.trainable().items()}


@pytest.mark.parametrize("architecture", [*DECODERS, "bert"])
@pytest.mark.parametrize("defense", ["vanilla", *INSERTING])
def test_checkpointing_gives_the_same_gradients(
    tiny_spec: Callable[..., ModelSpec], architecture: str, defense: str
) -> None:
    """With dropout on (GPT-2 and BERT have it in every layer, decoders in the head)."""
    found = {}
    for on in (False, True):
        victim, _ = wrapped(tiny_spec(architecture, checkpointing=on), defense)
        assert victim.backbone.is_gradient_checkpointing is on
        found[on] = gradients(victim)
    assert set(found[True]) == set(found[False])
    for name, wanted in found[False].items():
        assert torch.equal(found[True][name], wanted), name
    assert any(float(value.abs().max()) > 0 for value in found[True].values())


def test_the_unpadded_pass_leaves_what_it_does_not_know_to_transformers(tiny_spec: Callable[..., ModelSpec]) -> None:
    from bench.victim.joint.support import kind_of

    kinds = {"plain": {}, "checkpointing": {"checkpointing": True}, "bf16": {"weights": "bf16"}}
    found = {
        name: kind_of(load_victim(tiny_spec("bert", **options), 2, seed=0, precision="bf16"))
        for name, options in kinds.items()
    }
    assert found == {"plain": "bert", "checkpointing": None, "bf16": None}


def test_checkpointing_keeps_fewer_activations(tiny_spec: Callable[..., ModelSpec]) -> None:
    kept = {}
    for on in (False, True):
        victim = load_victim(tiny_spec("llama", checkpointing=on), 2, seed=0).train()
        held: dict[int, int] = {}

        def keep(tensor: torch.Tensor, held: dict[int, int] = held) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        inputs, labels = victim.process({"text": [text * 4 for text in TEXTS], "label": [1, 0, 0, 1]})
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = victim.loss(inputs, labels)
        assert loss.requires_grad
        weights = {value.untyped_storage().data_ptr() for value in victim.parameters()}
        kept[on] = sum(size for place, size in held.items() if place not in weights)
    assert kept[True] < 0.5 * kept[False]


@pytest.mark.parametrize("architecture", [*DECODERS, "bert"])
@pytest.mark.parametrize("defense", INSERTING)
def test_bf16_weights(tiny_spec: Callable[..., ModelSpec], tmp_path: Path, architecture: str, defense: str) -> None:
    """The frozen backbone is bf16, what trains and the head are fp32 and learn; saved and restored they are exact."""
    spec = tiny_spec(architecture, weights="bf16", **STEPS)
    victim, bound = wrapped(spec, defense, "bf16")
    inside = {value.dtype for name, value in victim.tensors().items() if name not in victim.kept()}
    assert inside == {torch.bfloat16}
    assert {value.dtype for value in victim.kept().values()} == {torch.float32}
    full = load_victim(tiny_spec(architecture), 2, seed=3)
    np.testing.assert_allclose(
        load_victim(spec, 2, seed=3, precision="bf16").predict(TEXTS), full.predict(TEXTS), rtol=0, atol=0.05
    )
    before = {name: value.detach().clone() for name, value in victim.tensors().items()}
    train(victim, ROWS, (), seed=1, hooks=bound.hooks(bound.knowledge))
    moved = {name for name, value in victim.tensors().items() if not torch.equal(value, before[name])}
    assert moved == set(victim.trainable())
    victim.save(tmp_path)
    again, _ = wrapped(spec, defense, "bf16")
    again.restore(tmp_path)
    assert again.fingerprint() == victim.fingerprint()
    assert (again.predict(TEXTS) == victim.predict(TEXTS)).all()


def test_bf16_weights_are_not_trained_and_do_not_pass_for_fp32(tiny_spec: Callable[..., ModelSpec]) -> None:
    spec = tiny_spec("llama", weights="bf16", **STEPS)
    with pytest.raises(CellError, match="precision is 'fp32'"):
        load_victim(spec, 2, seed=0)
    with pytest.raises(CellError, match="is to train and has torch.bfloat16 weights"):
        train(load_victim(spec, 2, seed=0, precision="bf16"), ROWS, (), seed=0)


@pytest.mark.parametrize("architecture", DECODERS)
def test_lora_stands_for_full_fine_tuning(tiny_spec: Callable[..., ModelSpec], architecture: str) -> None:
    """Alpha is the rank, so the update is unscaled; the head is the recipe's; a wrapped victim is left alone."""
    spec = tiny_spec(architecture, stand_in_rank=24, **STEPS)
    for recipe, head in (("released", False), ("paper", True)):
        victim = load_victim(spec, 2, seed=0)
        assert add_stand_in(victim, recipe, 5) == 24
        factors = [value for name, value in victim.trainable().items() if ".lora_A." in name]
        assert factors and all(value.shape[0] == 24 for value in factors)
        assert ("score.dense.weight" in victim.trainable()) is head
        scaled = {
            tuple(part.scaling.values())
            for part in victim.backbone.modules()
            if hasattr(part, "scaling") and isinstance(part.scaling, dict)
        }
        assert scaled == {(1.0,)}
    wrapped_already, _ = wrapped(spec, "prefix")
    assert add_stand_in(wrapped_already, "released", 5) is None
    assert not any(".lora_A." in name for name in wrapped_already.tensors())
    assert add_stand_in(load_victim(tiny_spec(architecture), 2, seed=0), "released", 5) is None
