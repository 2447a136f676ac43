"""Prefix tuning: what attention sees, equality with PEFT, that the prefix is used, and the defense around it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.core.errors import CellError
from bench.core.knowledge import Knowledge
from bench.victim.prefix import Prefix as PrefixModule
from bench.victim.prefix import PrefixStates, attach_prefix, attend_with_prefix, insert_prefix
from bench.victim.spec import ModelSpec
from defenders.prefix import Prefix
from tests.tiny import ARCHITECTURES, LAYERS, WIDTH, tiny_victim

TEXTS = ["the film is good", "bad", "what a dull and empty story it is"]
TOKENS, PROJECTION = 4, 24


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attention(causal: bool, layer: int = 0) -> nn.Module:
    """Return what transformers' attention modules tell of themselves."""
    module = nn.Module()
    module.is_causal, module.layer_idx = causal, layer
    return module


@pytest.mark.parametrize(
    ("causal", "mask", "wanted"),
    [
        # A query of zeros weighs all that it sees alike. Values of the text: 1, 2, 6; of the prefix: 10, 20.
        (False, None, [39 / 5, 39 / 5, 39 / 5]),
        (True, None, [31 / 3, 33 / 4, 39 / 5]),
        (False, [[True, True, False]] * 3, [33 / 4, 33 / 4, 33 / 4]),  # padding
        (False, [[True, True, False], [True, True, True], [False, True, True]], [33 / 4, 39 / 5, 38 / 4]),  # window
        (True, [[True, False, False], [False, True, False], [False, True, True]], [31 / 3, 32 / 3, 38 / 4]),
        (False, [[0.0, 0.0, -torch.inf]] * 3, [33 / 4, 33 / 4, 33 / 4]),  # additive
    ],
)
def test_attention_by_hand(causal: bool, mask: list | None, wanted: list[float]) -> None:
    """The prefix is visible to every token whatever the mask, and each token sees of the text what it saw before."""
    prefix = PrefixStates(torch.zeros(2, 2, 1, 2, 1))
    prefix.layers[1, 1, 0, :, 0] = torch.tensor([10.0, 20.0])  # the values of layer 1
    value = torch.tensor([1.0, 2.0, 6.0]).view(1, 1, 3, 1).expand(2, 1, 3, 1)
    key, query = torch.randn(2, 1, 3, 1, generator=generator()), torch.zeros(2, 1, 3, 1)
    given = None if mask is None else torch.tensor(mask).view(1, 1, 3, 3).expand(2, 1, 3, 3)
    out, _ = attend_with_prefix(attention(causal, layer=1), query, key, value, given, prefix=prefix, scaling=1.0)
    torch.testing.assert_close(out.flatten(1), torch.tensor([wanted, wanted]))
    assert prefix.used == {1}


def test_attention_without_a_prefix_is_the_plain_one() -> None:
    """Without a prefix the function is transformers' own."""
    value = torch.tensor([1.0, 2.0, 6.0]).view(1, 1, 3, 1)
    query = torch.zeros(1, 1, 3, 1)
    out, _ = attend_with_prefix(attention(True), query, value, value, None)
    torch.testing.assert_close(out.flatten(), torch.tensor([1.0, 1.5, 3.0]))


def shifted_positions(architecture: str, mask: torch.Tensor, shift: int) -> torch.Tensor:
    """Return the position ids [batch, length] that PEFT's way gives: the text starts after the prefix."""
    if architecture == "roberta":  # counts the real tokens from after the padding id, which is 1
        return (mask.cumsum(1) + shift) * mask + 1
    return torch.arange(shift, shift + mask.shape[1]).expand(mask.shape)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's use of transformers
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "modernbert"])  # PEFT fails on it
def test_equals_peft(tmp_path_factory: Any, architecture: str) -> None:
    """With the same prompt encoder and PEFT's positions, hidden states of all real tokens and gradients agree."""
    from peft import PrefixTuningConfig, get_peft_model

    victim = tiny_victim(tmp_path_factory, architecture)
    config = PrefixTuningConfig(
        task_type="FEATURE_EXTRACTION",
        num_virtual_tokens=TOKENS,
        encoder_hidden_size=PROJECTION,
        prefix_projection=True,
    )
    theirs = get_peft_model(copy.deepcopy(victim.backbone), config).eval()
    attach_prefix(victim, TOKENS, seed=3, width=PROJECTION)
    ours = victim.backbone.eval()
    encoder = theirs.prompt_encoder["default"]
    encoder.load_state_dict(ours.prefix.encoder.state_dict())  # strict: names and shapes are PEFT's

    inputs, _ = victim.process({"text": TEXTS, "label": [0, 0, 0]})
    real = inputs["attention_mask"].bool()
    positions = shifted_positions(architecture, inputs["attention_mask"], TOKENS)
    found = ours(**inputs, position_ids=positions).last_hidden_state[real]
    wanted = theirs(**inputs).last_hidden_state[real]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    found.square().sum().backward()
    wanted.square().sum().backward()
    for (name, mine), other in zip(ours.prefix.encoder.named_parameters(), encoder.parameters(), strict=True):
        assert mine.grad.abs().max() > 0, name
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_prefix_is_used(tmp_path_factory: Any, architecture: str) -> None:
    """The output changes with the prefix, with each layer's part of it, and every trainable tensor gets a gradient."""
    victim = tiny_victim(tmp_path_factory, architecture)
    plain = victim.predict(TEXTS)
    attach_prefix(victim, TOKENS, seed=0, width=PROJECTION)
    with_prefix = victim.predict(TEXTS)
    assert (np.abs(with_prefix - plain).max(axis=1) > 1e-3).all()
    encoder = victim.backbone.prefix.encoder
    part = encoder.transform[-1].bias.numel() // LAYERS
    for layer in range(LAYERS):
        kept = encoder.transform[-1].bias.detach().clone()
        with torch.no_grad():
            encoder.transform[-1].bias[layer * part : (layer + 1) * part] += 1.0
        assert np.abs(victim.predict(TEXTS) - with_prefix).max() > 1e-4, layer
        with torch.no_grad():
            encoder.transform[-1].bias.copy_(kept)
    victim.loss(*victim.process({"text": TEXTS, "label": [0, 1, 0]})).backward()
    assert victim.trainable()
    assert all(value.grad.abs().max() > 0 for value in victim.trainable().values())


@pytest.mark.parametrize("architecture", ["bert", "roberta", "gpt2"])
def test_prefix_takes_no_positions(tmp_path_factory: Any, architecture: str) -> None:
    """A text as long as the model can read is read with a prefix too."""
    victim = tiny_victim(tmp_path_factory, architecture)
    attach_prefix(victim, TOKENS, seed=0, width=PROJECTION)
    long = " ".join(["good"] * 200)
    assert victim.encode_texts([long]).lengths == [victim.max_length]
    assert np.isfinite(victim.predict([long])).all()


def test_attached_to_nothing_is_an_error() -> None:
    """DeBERTa attends in its own way: the prefix would be used nowhere, so the cell fails."""
    from transformers import AutoModel, DebertaV2Config

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = DebertaV2Config(**sizes, vocab_size=9)
    with torch.random.fork_rng(devices=[]):
        backbone = AutoModel.from_config(config)
    with pytest.raises(CellError, match="0 of 2 layers of DebertaV2Model"):
        insert_prefix(backbone, TOKENS, generator(), PROJECTION)


def test_layers_that_do_not_know_their_number() -> None:
    """DistilBERT's attention has no layer number: its layers take their parts in the order of calls."""
    from transformers import AutoModel, DistilBertConfig

    config = DistilBertConfig(dim=8, n_layers=3, n_heads=2, hidden_dim=8, vocab_size=9, max_position_embeddings=8)
    with torch.random.fork_rng(devices=[]):
        backbone = AutoModel.from_config(config).eval()
    insert_prefix(backbone, TOKENS, generator(), PROJECTION)
    backbone(input_ids=torch.tensor([[1, 2]])).last_hidden_state.square().sum().backward()
    by_layer = backbone.prefix.encoder.transform[-1].bias.grad.view(3, -1)
    assert (by_layer.abs().max(dim=1).values > 0).all()


@pytest.mark.parametrize(
    ("layers", "width", "heads", "wanted"),
    [
        (6, 384, 12, 2_564_096),  # MiniLM-L6: 8*384 + 512*385 + 2*6*384*513; 2,630,656 in the released code
        (12, 768, 12, 9_855_488),  # BERT-base: 8*768 + 512*769 + 2*12*768*513
    ],
)
def test_trainable_count(layers: int, width: int, heads: int, wanted: int) -> None:
    """tokens*d + 512*(d + 1) + 2*layers*d*513 with 8 tokens."""
    from transformers import BertConfig

    config = BertConfig(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads)
    assert sum(value.numel() for value in PrefixModule(config, 8, 512, generator()).parameters()) == wanted


def test_start_distribution() -> None:
    """The embedding is N(0, 1); the linear maps are uniform within 1 / sqrt(inputs), biases too."""
    from transformers import BertConfig

    encoder = PrefixModule(BertConfig(num_hidden_layers=1), 64, 256, generator()).encoder
    assert encoder.embedding.weight.std().item() == pytest.approx(1.0, rel=0.02)
    for linear, bound in ((encoder.transform[0], 768**-0.5), (encoder.transform[-1], 256**-0.5)):
        for tensor in (linear.weight, linear.bias):
            assert tensor.abs().max() <= bound
            assert tensor.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_draw_depends_on_the_seed_alone(tmp_path_factory: Any) -> None:
    """Equal seeds give equal prefixes, other seeds others; global random state is not touched."""
    torch.manual_seed(1)
    state = torch.get_rng_state()
    prints = []
    for seed in (5, 5, 6):
        victim = tiny_victim(tmp_path_factory, "bert")
        attach_prefix(victim, TOKENS, seed=seed, width=PROJECTION)
        assert torch.equal(torch.get_rng_state(), state)
        prints.append(victim.fingerprint())
    assert prints[0] == prints[1] != prints[2]


def test_a_copy_has_its_own_prefix(tmp_path_factory: Any) -> None:
    """Changing the copy's prefix changes the copy and leaves the original as it was."""
    victim = tiny_victim(tmp_path_factory, "llama")
    attach_prefix(victim, TOKENS, seed=0, width=PROJECTION)
    before, twin = victim.predict(TEXTS), copy.deepcopy(victim)
    with torch.no_grad():
        twin.backbone.prefix.encoder.transform[-1].bias.add_(1.0)
    assert (twin.predict(TEXTS) != before).any()
    assert (victim.predict(TEXTS) == before).all()


@pytest.mark.parametrize(("recipe", "head"), [("released", False), ("paper", True)])
def test_defense(tmp_path_factory: Any, recipe: str, head: bool) -> None:
    """Only the prompt encoder trains, and the head in the recipe `paper`."""
    victim = tiny_victim(tmp_path_factory, "bert")
    Prefix().for_model(victim.spec, recipe).bound(Knowledge(classes=2, recipe=recipe)).wrap(victim)
    inside = [name for name in victim.trainable() if name.startswith("bert.prefix.")]
    outside = sorted(set(victim.trainable()) - set(inside))
    assert outside == (["classifier.bias", "classifier.weight"] if head else [])
    count = sum(victim.trainable()[name].numel() for name in inside)
    assert count == 8 * WIDTH + 512 * (WIDTH + 1) + 2 * LAYERS * WIDTH * 513
    assert victim.attached == ["bert.prefix"]


def test_defaults_spelled_out_are_the_same_defense() -> None:
    """Options left out and the model file's values give one identity; the recipe decides the head."""
    model = ModelSpec(name="m", path="x", prefix_tokens=3)
    spelled = Prefix(tokens=3, projection=512, train_head=False)
    assert Prefix().for_model(model, "released").identity() == spelled.for_model(model, "released").identity()
    assert Prefix().for_model(model, "paper").identity() == {"tokens": 3, "projection": 512, "train_head": True}
    assert Prefix.stages() == {"train"}
    assert Prefix().samples() == 0
