"""vanilla, lora, ga, mslr, lora+ga and musclelora: what each recipe fills in, what trains, and that it trains."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from bench.core.errors import CellError, RequestError
from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.core.options import build
from bench.core.registry import DEFENDERS, plugin_class
from bench.victim.spec import model_spec
from tests.tiny import tiny_model

FAMILY = ("vanilla", "lora", "ga", "mslr", "lora+ga", "musclelora")
ROWS = tuple(
    Example("the film is good and i like it" if row % 2 else "what a cold and empty mess", row % 2) for row in range(12)
)


def _spec(tmp_path_factory: Any, architecture: str = "bert", **options: Any) -> Any:
    folder = tiny_model(tmp_path_factory, architecture)
    usual = {"batch_size": 4, "epochs": 2, "learning_rate_pet": 1e-2, "learning_rate": 1e-3, "clean_samples": 6}
    return model_spec(str(folder), {**usual, **options})


def _trained(spec: Any, name: str, recipe: str, seed: int = 5) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return a victim trained under a defense, and its parameters before training."""
    from bench.victim.loading import load_victim
    from bench.victim.training import train

    defense = plugin_class(DEFENDERS, name)().for_model(spec, recipe)
    known = Knowledge(2, clean=ROWS[: defense.samples()], seed=seed, recipe=recipe, model=spec)
    defense = defense.bound(known)
    victim = load_victim(spec, 2, seed=seed)
    defense.wrap(victim)
    before = {tensor: value.detach().clone() for tensor, value in victim.tensors().items()}
    train(victim, ROWS, ROWS, seed=seed, hooks=defense.hooks(known))
    return victim, before


@pytest.mark.parametrize("name", FAMILY)
def test_stages_are_read_off_the_methods(name):
    defense = plugin_class(DEFENDERS, name)
    assert defense.stages() == (frozenset() if name == "vanilla" else {"train"})
    assert defense().samples() == (96 if name in ("ga", "lora+ga", "musclelora") else 0)


@pytest.mark.parametrize("recipe", ["released", "paper"])
@pytest.mark.parametrize("name", FAMILY)
def test_left_out_and_spelt_out_options_are_one_identity(name, recipe):
    model, cls = model_spec("minilm-l6"), plugin_class(DEFENDERS, name)
    full = cls().for_model(model, recipe)
    assert None not in full.identity().values()
    assert build(cls, full.identity(), "defender", name).for_model(model, recipe) == full
    assert full.for_model(model, "paper") == full


def test_what_the_recipes_say():
    model, cls = model_spec("minilm-l6"), plugin_class(DEFENDERS, "musclelora")
    assert cls().for_model(model, "released").identity() == {
        "rank": 8,
        "alpha": 32.0,
        "targets": ["query", "value"],
        "train_head": False,
        "scales": [1, 4, 8, 12, 16, 20, 24, 28],
        "inner_rank": 1,
        "scale_factor": 6.0,
        "zero_start": False,
        "clean_samples": 96,
        "projection": "tensor",
        "schedule": "epoch",
        "gated": True,
        "mu_max": 0.1,
        "ga_epoch": 1,
        "min_reference_loss": 0.4,
        "min_reference_norm": 5e-7,
    }
    paper = cls(mu_max=0.3).for_model(model, "paper").identity()
    released = cls().for_model(model, "released").identity()
    assert {key: value for key, value in paper.items() if value != released[key]} == {
        "train_head": True,
        "scales": [1, 4, 8, 12, 16, 20, 24, 28, 32],
        "zero_start": True,
        "projection": "global",
        "schedule": "step",
        "gated": False,
        "mu_max": 0.3,
    }


@pytest.mark.parametrize("recipe", ["released", "paper"])
@pytest.mark.parametrize("name", FAMILY)
def test_the_right_tensors_train(tmp_path_factory, name, recipe):
    victim, before = _trained(_spec(tmp_path_factory), name, recipe)
    moved = {tensor for tensor, value in victim.tensors().items() if not torch.equal(value, before[tensor])}
    lora = {tensor for tensor in before if ".lora_A." in tensor or ".lora_B." in tensor}
    scaled = {tensor for tensor in before if tensor.endswith(("dense.lower", "dense.upper"))}
    head = {"classifier.weight", "classifier.bias"}
    assert len(lora) == (0 if name in ("vanilla", "ga") else 8)  # two layers, query and value, A and B
    assert len(scaled) == (2 if name in ("mslr", "musclelora") else 0)
    if name in ("vanilla", "ga"):
        # Key biases shift every score of a query alike, so their gradient is rounding at most.
        assert {tensor for tensor in before if "key.bias" not in tensor} <= moved
    else:
        assert set(victim.trainable()) == lora | scaled | (head if recipe == "paper" else set())
        assert moved == set(victim.trainable())


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert", "gpt2", "llama", "qwen3"])
def test_musclelora_on_every_architecture_saves_and_restores_exactly(tmp_path_factory, tmp_path, architecture):
    from bench.victim.loading import load_victim

    spec = _spec(tmp_path_factory, architecture)
    victim, _ = _trained(spec, "musclelora", "released")
    victim.save(tmp_path)
    fresh = load_victim(spec, 2, seed=5)
    defense = plugin_class(DEFENDERS, "musclelora")().for_model(spec, "released")
    defense.bound(Knowledge(2, seed=5)).wrap(fresh)
    fresh.restore(tmp_path)
    assert fresh.fingerprint() == victim.fingerprint()
    texts = [text for text, *_ in ROWS]
    assert (fresh.predict(texts) == victim.predict(texts)).all()


def test_the_same_seed_gives_the_same_weights(tmp_path_factory):
    spec, found = _spec(tmp_path_factory), []
    for seed, noise in ((5, 0), (5, 1), (6, 0)):
        torch.manual_seed(noise)
        found.append(_trained(spec, "musclelora", "released", seed)[0].fingerprint())
    assert found[0] == found[1] != found[2]


def test_alignment_changes_what_is_learnt(tmp_path_factory):
    spec = _spec(tmp_path_factory)
    assert _trained(spec, "lora", "released")[0].fingerprint() != _trained(spec, "lora+ga", "released")[0].fingerprint()


def test_a_head_without_a_penultimate_is_refused_at_planning(tmp_path_factory):
    spec = _spec(tmp_path_factory, "gpt2", head="plain")
    for name in ("mslr", "musclelora"):
        with pytest.raises(CellError, match="no linear before its classifier"):
            plugin_class(DEFENDERS, name)().for_model(spec, "released")
    assert plugin_class(DEFENDERS, "lora")().for_model(spec, "released").targets == ("c_attn",)


def test_options_out_of_range_are_refused():
    for name, options in {
        "lora": {"rank": 0},
        "mslr": {"scales": (1.0, -1.0)},
        "musclelora": {"mu_max": 1.5},
        "ga": {"projection": "rows"},
    }.items():
        with pytest.raises(RequestError, match=next(iter(options))):
            build(plugin_class(DEFENDERS, name), options, "defender", name)
    with pytest.raises(RequestError, match="Did you mean 'clean_samples'"):
        build(plugin_class(DEFENDERS, "ga"), {"clean_sample": 3}, "defender", "ga")


def test_wrapping_with_open_options_is_an_error(tmp_path_factory):
    from bench.victim.loading import load_victim

    victim = load_victim(_spec(tmp_path_factory), 2, seed=0)
    with pytest.raises(CellError, match="not filled in"):
        plugin_class(DEFENDERS, "lora")().bound(Knowledge(2)).wrap(victim)


def test_importing_the_family_imports_no_torch():
    modules = ", ".join(f"defenders.{name}" for name in ("vanilla", "lora", "ga", "mslr", "lora_ga", "musclelora"))
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'transformers', 'peft'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
