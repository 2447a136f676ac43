"""LoRA and the multi-scale module: outputs by hand, what trains, what stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.core.errors import CellError
from bench.victim.loading import available, load_victim
from bench.victim.lora import attach_lora
from bench.victim.multiscale import MultiScaleLinear, attach_multiscale
from bench.victim.spec import model_spec
from bench.victim.training import train

S_BERT = (1, 4, 8, 12, 16, 20, 24, 28)


def _linear() -> nn.Linear:
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(2))
        linear.bias.copy_(torch.tensor([1.0, -1.0]))
    return linear


def _filled(module: MultiScaleLinear, lower: list, upper: list) -> MultiScaleLinear:
    with torch.no_grad():
        module.lower.copy_(torch.tensor(lower, dtype=torch.float32))
        module.upper.copy_(torch.tensor(upper, dtype=torch.float32))
    return module


def test_multiscale_output_by_hand():
    """X = [1, 2]: L X = [1, 2], times S = [1, 6], R of it = [7, 12], times 6 = [42, 72], plus the original's [2, 1]."""
    module = MultiScaleLinear(_linear(), (1, 3), scale_factor=6, generator=torch.Generator())
    _filled(module, [[1, 0], [0, 1]], [[1, 1], [0, 2]])
    assert module(torch.tensor([[1.0, 2.0]])).tolist() == [[44.0, 73.0]]


def test_multiscale_repeats_each_scale_and_divides_by_the_inner_rank():
    """K = [1, 1, 3, 3]: K L X = [1, 2, 3, 6], R of it = [12, -3], times 6 / 2 = [36, -9], plus [2, 1]."""
    module = MultiScaleLinear(_linear(), (1, 3), scale_factor=6, inner_rank=2, generator=torch.Generator())
    _filled(module, [[1, 0], [0, 1], [1, 0], [0, 1]], [[1, 1, 1, 1], [0, 0, 1, -1]])
    assert module.scales.tolist() == [1, 1, 3, 3]
    assert module(torch.tensor([[[1.0, 2.0]]])).tolist() == [[[38.0, -8.0]]]


def test_multiscale_draws_are_kaiming_uniform_from_their_generator():
    made = [
        MultiScaleLinear(nn.Linear(100, 300), S_BERT, scale_factor=6, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(made[0].lower, made[1].lower) and not torch.equal(made[0].lower, made[2].lower)
    # kaiming_uniform(a = sqrt 5) is U(-1/sqrt(fan in), 1/sqrt(fan in)): 0.1 for L [8, 100], 0.354 for R [300, 8].
    assert 0.098 < made[0].lower.abs().max().item() <= 0.1
    assert 0.34 < made[0].upper.abs().max().item() <= 8**-0.5
    zero = MultiScaleLinear(_linear(), S_BERT, scale_factor=6, zero_start=True, generator=torch.Generator())
    assert zero.upper.abs().max().item() == 0 < zero.lower.abs().max().item()


def test_only_the_two_factors_get_gradients():
    module = MultiScaleLinear(_linear(), (1, 3), scale_factor=6, generator=torch.Generator())
    module(torch.ones(1, 2)).sum().backward()
    assert module.lower.grad is not None and module.upper.grad is not None
    assert module.original.weight.grad is None and module.original.bias.grad is None
    assert {name for name, value in module.named_parameters() if value.requires_grad} == {"lower", "upper"}


def test_lora_starts_as_the_pretrained_model_and_scales_by_four(tiny_victim):
    victim = tiny_victim()
    texts = ["what a warm story", "dull"]
    before, state = victim.predict(texts), torch.get_rng_state()
    attach_lora(victim, rank=8, alpha=32, targets=("query", "value"), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert victim.predict(texts) == pytest.approx(before, abs=1e-6)
    assert len(victim.attached) == 4 and len(victim.trainable()) == 8
    layer = victim.model.bert.encoder.layer[0].attention.self.query
    assert layer.scaling == {"default": 4.0}
    with torch.no_grad():
        layer.lora_B["default"].weight.fill_(0.5)
        inputs = torch.randn(1, 3, 32)
        update = inputs @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T
        assert torch.allclose(layer(inputs), layer.base_layer(inputs) + 4 * update, atol=1e-5)


def test_lora_draws_follow_their_seed(tiny_victim):
    found = []
    for seed, noise in ((1, 0), (1, 9), (2, 0)):
        victim = tiny_victim()
        torch.manual_seed(noise)
        attach_lora(victim, rank=8, alpha=32, targets=("query", "value"), seed=seed)
        found.append(victim.fingerprint())
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("architecture", "modules"),
    [("bert", 4), ("roberta", 4), ("modernbert", 2), ("gpt2", 2), ("llama", 4), ("qwen3", 4)],
)
def test_lora_on_every_architecture_trains_nothing_else(tiny_victim, reviews, architecture, modules):
    victim = tiny_victim(architecture, epochs=1, learning_rate_pet=1e-2)
    attach_lora(victim, rank=2, alpha=8, targets=victim.spec.lora_targets, seed=1)
    assert len(victim.attached) == modules
    before = {name: value.detach().clone() for name, value in victim.tensors().items()}
    train(victim, reviews, (), seed=0)
    moved = {name for name, value in victim.tensors().items() if not torch.equal(value, before[name])}
    assert moved == set(victim.trainable()) and len(moved) == 2 * modules
    assert all(".lora_" in name for name in moved)


def test_lora_with_a_trained_head(tiny_victim):
    victim = tiny_victim("roberta")
    attach_lora(victim, rank=2, alpha=8, targets=("query",), seed=1, train_head=True)
    heads = {name for name in victim.trainable() if ".lora_" not in name}
    assert heads == {f"classifier.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias")}


def test_lora_without_targets_takes_pefts_own(tiny_victim):
    victim = tiny_victim()
    attach_lora(victim, rank=2, alpha=8, targets=(), seed=1)
    assert {name.rpartition(".")[2] for name in victim.attached} == {"query", "value"}


def test_attaching_to_nothing_is_an_error(tiny_victim):
    with pytest.raises(CellError, match="attaches to no module"):
        attach_lora(tiny_victim(), rank=2, alpha=8, targets=("q_proj",), seed=1)
    wrong = {"scale_factor": 6, "inner_rank": 1, "zero_start": False, "seed": 1}
    with pytest.raises(CellError, match="is not there"):
        attach_multiscale(tiny_victim(penultimate="bert.pooler.dens"), (1,), **wrong)
    with pytest.raises(CellError, match="not a linear"):
        attach_multiscale(tiny_victim(penultimate="bert.pooler"), (1,), **wrong)
    with pytest.raises(CellError, match="None, is not there"):
        attach_multiscale(tiny_victim("gpt2", head="plain"), (1,), **wrong)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert", "gpt2", "llama", "qwen3"])
def test_multiscale_replaces_the_penultimate_linear(tiny_victim, architecture):
    victim = tiny_victim(architecture)
    before = victim.predict(["what a warm story"])
    victim.freeze()
    attach_multiscale(victim, (1, 2, 4), scale_factor=6, inner_rank=1, zero_start=True, seed=1)
    where = victim.spec.penultimate
    assert victim.attached == [where]
    assert set(victim.trainable()) == {f"{where}.lower", f"{where}.upper"}
    assert victim.predict(["what a warm story"]) == pytest.approx(before, abs=1e-6)
    other = tiny_victim(architecture)
    attach_multiscale(other, (1, 2, 4), scale_factor=6, inner_rank=1, zero_start=False, seed=1)
    assert other.predict(["what a warm story"]) != pytest.approx(before, abs=1e-6)


def test_minilm_counts_and_the_saturated_start():
    spec = model_spec("minilm-l6")
    if not available(spec):
        pytest.skip("MiniLM is not on this machine")
    victim = load_victim(spec, 2, seed=0)

    def counts() -> tuple[int, int]:
        return len(victim.trainable()), sum(value.numel() for value in victim.trainable().values())

    attach_lora(victim, rank=8, alpha=32, targets=spec.lora_targets, seed=0)
    assert counts() == (24, 73_728)
    attach_multiscale(victim, spec.scales, scale_factor=spec.scale_factor, inner_rank=1, zero_start=False, seed=0)
    assert counts() == (26, 79_872)
    pooler = victim.model.bert.pooler.dense
    states = torch.from_numpy(victim.hidden(["a warm and moving story", "dull", "we hate it, all of it"]))
    with torch.no_grad():
        own, scaled = pooler.original(states), pooler(states)
    # The published code's module gives the pooler a standard deviation of 15.0 where it was 0.064, 86 % of it flat.
    assert float(own.std()) < 0.2 and 8 < float(scaled.std()) < 25
    assert 0.7 < float((scaled.tanh().abs() > 0.99).float().mean()) < 0.95
