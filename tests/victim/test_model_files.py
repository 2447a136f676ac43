"""The model files: places that exist in each architecture, and the paper's settings for the paper's models."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

from bench.victim.adapter import adapter_sites
from bench.victim.spec import model_names, model_spec
from tests.tiny import LAYERS, tiny_victim

MODELS = {
    "bert-base": "bert",
    "bert-large": "bert",
    "minilm-l6": "bert",
    "roberta-base": "roberta",
    "roberta-large": "roberta",
    "modernbert-base": "modernbert",
    "gpt2-xl": "gpt2",
    "llama2-7b": "llama",
    "llama3.2-1b": "llama",
    "qwen3-0.6b": "qwen3",
}
PAPER = json.loads((files("bench.report") / "paper_settings.json").read_text(encoding="utf-8"))["models"]


@pytest.mark.parametrize("name", model_names())
def test_says_where_defenses_attach(tmp_path_factory: Any, name: str) -> None:
    """Every site of the file is in a model of its architecture; the penultimate linear feeds the classifier."""
    spec, victim = model_spec(name), tiny_victim(tmp_path_factory, MODELS[name])
    modules = dict(victim.model.named_modules())
    for target in spec.lora_targets:
        assert sum(part.endswith(f".{target}") for part in modules) == LAYERS, target
    assert spec.lora_targets
    assert len(adapter_sites(victim.backbone, spec.adapter_sites)) == 2 * LAYERS
    classifiers = [modules[part] for part in ("score.out_proj", "classifier.out_proj", "classifier") if part in modules]
    assert modules[spec.penultimate].out_features == classifiers[0].in_features
    assert spec.head == ("paper" if spec.family == "decoder" else "plain")
    assert spec.hub and len(spec.revision) == 40


@pytest.mark.parametrize("name", sorted(PAPER))
def test_settings_of_the_paper(name: str) -> None:
    """Rates, epochs, batches, clean samples, mu_max, bottleneck and S of Table 6 are the paper's."""
    spec, paper = model_spec(name), PAPER[name]
    assert spec.learning_rate == spec.learning_rate_pet == paper["learning_rate"]
    assert (spec.epochs, spec.batch_size) == (paper["epochs"], paper["batch_size"])
    assert (spec.clean_samples, spec.mu_max) == (paper["clean_auxiliary_samples"], paper["mu_max"])
    assert spec.adapter_dim == spec.prefix_tokens == spec.lora_rank == paper["pet_bottleneck_dim"]
    assert spec.scales_paper == tuple(paper["scaling_factors"])
    # REFERENCE section 8, item 5: the code's S is that of Table 6, but for BERT-base, where 32 is missing.
    assert spec.scales == (spec.scales_paper[:-1] if name == "bert-base" else spec.scales_paper)
    assert spec.lora_alpha / spec.lora_rank == 4.0
    assert spec.scale_factor == (4.0 if spec.family == "decoder" else 6.0)
