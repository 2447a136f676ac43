"""The bottleneck adapter: its arithmetic, its sites, its draw, and the defense around it."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from bench.core.errors import CellError
from bench.core.knowledge import Knowledge
from bench.victim.adapter import Bottleneck, adapter_sites, attach_adapter, insert_adapters
from bench.victim.spec import ModelSpec
from defenders.adapter import Adapter
from tests.tiny import LAYERS, WIDTH, tiny_victim


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_bottleneck_by_hand() -> None:
    """h = (1, 2), down = (1, 0; 0, 1) with bias (0, -2), up = (10, 0; 0, 10) with bias (0.5, 0)."""
    adapter = Bottleneck(2, 2, generator(), torch.zeros(1))
    with torch.no_grad():
        adapter.down.weight.copy_(torch.eye(2))
        adapter.down.bias.copy_(torch.tensor([0.0, -2.0]))
        adapter.up.weight.copy_(10 * torch.eye(2))
        adapter.up.bias.copy_(torch.tensor([0.5, 0.0]))
    # gelu_new(1) = 0.5 (1 + tanh(sqrt(2 / pi) (1 + 0.044715))) = 0.841192; gelu_new(0) = 0
    gelu_of_one = 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * 1.044715))
    assert gelu_of_one == pytest.approx(0.841192, abs=1e-6)
    found = adapter(torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(found, torch.tensor([[1 + 8.41192 + 0.5, 2.0]]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "wanted"),
    [
        ("bert", "encoder.layer.{}.attention.output.dense encoder.layer.{}.output.dense"),
        ("roberta", "encoder.layer.{}.attention.output.dense encoder.layer.{}.output.dense"),
        ("modernbert", "layers.{}.attn.Wo layers.{}.mlp.Wo"),
        ("gpt2", "h.{}.attn.c_proj h.{}.mlp.c_proj"),
        ("llama", "layers.{}.self_attn.o_proj layers.{}.mlp.down_proj"),
        ("qwen3", "layers.{}.self_attn.o_proj layers.{}.mlp.down_proj"),
    ],
)
def test_sites(tmp_path_factory: Any, architecture: str, wanted: str) -> None:
    """Each layer has one adapter after its attention and one after its feed-forward block."""
    victim = tiny_victim(tmp_path_factory, architecture)
    names = [name.format(layer) for layer in range(LAYERS) for name in wanted.split()]
    assert adapter_sites(victim.backbone, victim.spec.adapter_sites) == names


@pytest.mark.parametrize("sites", [(), ("no.such.place",), ("output.dense", "no.such.place"), ("utput.dense",)])
def test_attaching_to_nothing_is_an_error(tmp_path_factory: Any, sites: tuple[str, ...]) -> None:
    """A site that matches no module fails the cell, though another site matches; the victim is as it was."""
    victim = tiny_victim(tmp_path_factory, "bert")
    before = victim.fingerprint()
    with pytest.raises(CellError, match="adapter_sites"):
        attach_adapter(victim, sites, 4, seed=0)
    assert victim.fingerprint() == before
    assert all(value.requires_grad for value in victim.tensors().values())


def test_trainable_count_on_minilm() -> None:
    """REFERENCE section 2: 78,432 = 12 sites * (2 * 384 * 8 + 8 + 384) on MiniLM-L6."""
    from transformers import AutoModel, BertConfig

    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    with torch.device("meta"):
        backbone = AutoModel.from_config(config)
    names = adapter_sites(backbone, ("attention.output.dense", "output.dense"))
    insert_adapters(backbone, names, 8, generator())
    assert len(names) == 12
    assert sum(value.numel() for name, value in backbone.named_parameters() if ".adapter." in name) == 78_432


def test_draw_depends_on_the_seed_alone(tmp_path_factory: Any) -> None:
    """Equal seeds give equal adapters, other seeds others, and global random state is not touched."""
    torch.manual_seed(1)
    state = torch.get_rng_state()
    prints = []
    for seed in (5, 5, 6):
        victim = tiny_victim(tmp_path_factory, "bert")
        attach_adapter(victim, victim.spec.adapter_sites, 4, seed=seed)
        prints.append(victim.fingerprint())
        torch.rand(3)
        torch.set_rng_state(state)
    assert prints[0] == prints[1] != prints[2]
    attach_adapter(tiny_victim(tmp_path_factory, "bert"), ("output.dense",), 4, seed=7)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_two_adapters_are_alike(tmp_path_factory: Any) -> None:
    """One generator draws all of them, one after the other."""
    victim = tiny_victim(tmp_path_factory, "bert")
    attach_adapter(victim, victim.spec.adapter_sites, 4, seed=0)
    downs = [value for name, value in victim.trainable().items() if name.endswith("down.weight")]
    assert len({tuple(value.flatten().tolist()) for value in downs}) == 2 * LAYERS


def test_zero_adapters_are_the_identity(tmp_path_factory: Any) -> None:
    """With all adapter weights at 0 the residual alone is left: the model is bit for bit the plain one."""
    victim = tiny_victim(tmp_path_factory, "roberta")
    texts = ["the film is good", "bad"]
    plain = victim.predict(texts)
    attach_adapter(victim, victim.spec.adapter_sites, 4, seed=0)
    assert (victim.predict(texts) != plain).any()
    with torch.no_grad():
        for value in victim.trainable().values():
            value.zero_()
    assert (victim.predict(texts) == plain).all()


def test_a_copy_has_its_own_adapters(tmp_path_factory: Any) -> None:
    """Changing the copy's adapters changes the copy and leaves the original as it was."""
    victim = tiny_victim(tmp_path_factory, "gpt2")
    attach_adapter(victim, victim.spec.adapter_sites, 4, seed=0)
    texts = ["the film is good"]
    before, twin = victim.predict(texts), copy.deepcopy(victim)
    with torch.no_grad():
        for value in twin.trainable().values():
            value.fill_(0.5)
    assert (twin.predict(texts) != before).any()
    assert (victim.predict(texts) == before).all()


def test_width_of_a_transposed_linear() -> None:
    """GPT-2's Conv1D keeps its weight as [in, out]; the adapter is as wide as its output."""
    from transformers.pytorch_utils import Conv1D

    backbone = nn.Sequential(Conv1D(3, 5))
    insert_adapters(backbone, ["0"], 2, generator())
    assert backbone[0].adapter.down.weight.shape == (2, 3)
    assert backbone(torch.zeros(1, 5)).shape == (1, 3)


@pytest.mark.parametrize(("recipe", "head"), [("released", False), ("paper", True)])
def test_defense(tmp_path_factory: Any, recipe: str, head: bool) -> None:
    """The head trains in the recipe `paper` only; the pooler in none."""
    victim = tiny_victim(tmp_path_factory, "bert")
    defense = Adapter().for_model(victim.spec, recipe).bound(Knowledge(classes=2, recipe=recipe))
    defense.wrap(victim)
    inside = [name for name in victim.trainable() if ".adapter." in name]
    outside = sorted(set(victim.trainable()) - set(inside))
    assert outside == (["classifier.bias", "classifier.weight"] if head else [])
    assert sum(victim.trainable()[name].numel() for name in inside) == 2 * LAYERS * (2 * WIDTH * 8 + 8 + WIDTH)
    assert len(victim.attached) == 2 * LAYERS
    assert all(name in dict(victim.model.named_modules()) for name in victim.attached)


def test_defaults_spelled_out_are_the_same_defense() -> None:
    """Options left out and the model file's values give one identity; the recipe decides the head."""
    model = ModelSpec(name="m", path="x", adapter_sites=("a", "b"), adapter_dim=3)
    spelled = Adapter(dimension=3, sites=("a", "b"), train_head=False)
    assert Adapter().for_model(model, "released").identity() == spelled.for_model(model, "released").identity()
    assert Adapter().for_model(model, "paper").identity() == {"dimension": 3, "sites": ["a", "b"], "train_head": True}
    assert Adapter.stages() == {"train"}
    assert Adapter().samples() == 0
