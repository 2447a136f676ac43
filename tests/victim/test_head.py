"""The heads of decoders: what they compute by hand, on which token, and where the multi-scale module goes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.core.errors import CellError, RequestError
from bench.victim.head import TwoLayerHead, insert_two_layer_head, last_real
from bench.victim.loading import load_victim
from bench.victim.spec import ModelSpec, model_spec
from bench.victim.states import penultimate
from tests.tiny import tiny_model

DECODERS = ("gpt2", "llama", "qwen3")
TEXTS = ["the film is good and i like it", "bad", "", "what a dull and empty story"]


def test_the_papers_head_by_hand() -> None:
    """3 -> 16 -> 2: rows 0 and 1 of the first map are (1, 2, 0) and (0, 0, 3), the second adds and subtracts them."""
    head = TwoLayerHead(3, 2).eval()
    assert head.dense.bias is None and head.out_proj.bias is None
    assert head.dense.weight.shape == (16, 3) and head.out_proj.weight.shape == (2, 16)
    with torch.no_grad():
        head.dense.weight.zero_()
        head.dense.weight[0], head.dense.weight[1] = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.0, 0.0, 3.0])
        head.out_proj.weight.zero_()
        head.out_proj.weight[0, :2] = torch.tensor([1.0, 1.0])
        head.out_proj.weight[1, :2] = torch.tensor([1.0, -1.0])
    # (1*1 + 2*(-4), 3*2) = (-7, 6): a negative number passes, since nothing stands between the two maps.
    assert head(torch.tensor([[1.0, -4.0, 2.0]])).tolist() == [[-1.0, -13.0]]


def test_dropout_of_a_tenth_stands_between_the_two_maps() -> None:
    head = TwoLayerHead(1, 2).train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head.dense.weight.fill_(1.0)
        head.out_proj.weight.fill_(1.0)
        sums = head(torch.ones(2000, 1))[:, 0]  # the kept ones of 16, each scaled by 1 / 0.9
    kept = sums * 0.9
    assert torch.allclose(kept, kept.round(), atol=1e-4) and 0.88 < float(kept.mean()) / 16 < 0.92


@pytest.mark.parametrize("architecture", DECODERS)
@pytest.mark.parametrize("head", ["paper", "plain"])
def test_alone_and_padded_are_equal(tiny_victim: Callable[..., Any], architecture: str, head: str) -> None:
    """A batch of one equals the same row in a padded batch, for a text that ends in the padding token as well."""
    victim = tiny_victim(architecture, head=head)
    texts = [*TEXTS, f"a warm story{victim.tokenizer.pad_token}"]
    ends = victim.encode_texts(texts).ids[-1]
    assert ends[-1] == victim.tokenizer.pad_token_id
    alone = np.concatenate([victim.predict([text]) for text in texts])
    np.testing.assert_allclose(victim.predict(texts), alone, rtol=0, atol=1e-5)
    # The token at the end is read: with and without it the answers differ.
    assert np.abs(victim.predict(["a warm story"]) - alone[-1]).max() > 1e-4


@pytest.mark.parametrize("architecture", DECODERS)
def test_the_head_reads_the_last_real_token(tiny_victim: Callable[..., Any], architecture: str) -> None:
    """Logits are the head's of the last hidden state at the last token of the mask; with HF's own head, HF's logits."""
    victim = tiny_victim(architecture)
    inputs, _ = victim.process({"text": TEXTS, "label": [0] * 4})
    assert inputs["attention_mask"][1].sum() < inputs["attention_mask"].shape[1]  # padded on the right
    assert inputs["attention_mask"][:, 0].all()
    with torch.no_grad():
        found, states = victim.logits(inputs), victim(inputs).hidden_states[-1]
        rows = [state[: int(mask.sum())][-1] for state, mask in zip(states, inputs["attention_mask"], strict=True)]
        wanted = torch.stack(rows) @ victim.model.score.dense.weight.T @ victim.model.score.out_proj.weight.T
    torch.testing.assert_close(found, wanted)
    between = torch.from_numpy(np.stack([row.detach().numpy() for row in rows])) @ victim.model.score.dense.weight.T
    torch.testing.assert_close(penultimate(victim, TEXTS), between.detach())
    plain = tiny_victim(architecture, head="plain")
    with torch.no_grad():
        torch.testing.assert_close(plain.logits(inputs), plain.model(**inputs, use_cache=False).logits)


def test_the_last_real_token_by_hand() -> None:
    states = torch.arange(12.0).view(2, 3, 2)
    assert last_real(states, torch.tensor([[1, 1, 0], [1, 1, 1]])).tolist() == [[2.0, 3.0], [10.0, 11.0]]


@pytest.mark.parametrize("architecture", DECODERS)
def test_the_multi_scale_module_sits_at_the_first_linear_of_the_head(
    tiny_victim: Callable[..., Any], architecture: str
) -> None:
    """S = [1, 2, 3, 4], scaled by 4, on 16 outputs; the first linear stays inside, frozen; the second is left alone."""
    from bench.core.knowledge import Knowledge
    from bench.victim.multiscale import MultiScaleLinear
    from defenders.musclelora import MuScleLora

    victim = tiny_victim(architecture)
    first, second = victim.model.score.dense, victim.model.score.out_proj
    defense = MuScleLora().for_model(victim.spec, "released")
    assert (defense.mu_max, defense.clean_samples, defense.min_reference_loss, defense.ga_epoch) == (0, 128, 0, 0)
    defense.bound(Knowledge(2, seed=1, model=victim.spec)).wrap(victim)
    module = victim.model.score.dense
    assert isinstance(module, MultiScaleLinear) and module.original is first
    assert module.scales.tolist() == [1, 2, 3, 4] and module.scaling == 4
    assert module.lower.shape == (4, 32) and module.upper.shape == (16, 4)
    assert victim.model.score.out_proj is second and not second.weight.requires_grad
    others = [name for name, part in victim.model.named_modules() if isinstance(part, MultiScaleLinear)]
    assert others == ["score.dense"]
    assert victim.spec.penultimate == "score.dense"


def test_the_head_is_drawn_from_the_seed(tiny_victim: Callable[..., Any]) -> None:
    first, noise = tiny_victim("llama", seed=1), torch.get_rng_state()
    again, other = tiny_victim("llama", seed=1), tiny_victim("llama", seed=2)
    assert torch.equal(torch.get_rng_state(), noise)
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    for part in ("dense", "out_proj"):
        one, two = (victim.model.score.get_submodule(part).weight for victim in (first, other))
        assert not torch.equal(one, two)
    # initializer_range is 0.2 in the tiny model: 512 draws of N(0, 0.2).
    assert 0.18 < float(first.model.score.dense.weight.detach().std()) < 0.22


def test_a_head_of_another_form_is_refused(tiny_spec: Callable[..., ModelSpec], tmp_path_factory: Any) -> None:
    with pytest.raises(RequestError, match="is an encoder"):
        tiny_spec("bert", head="paper")
    folder = str(tiny_model(tmp_path_factory, "bert"))
    for head in ("paper", "plain"):
        with pytest.raises(CellError, match="no one linear map called 'score'"):
            load_victim(model_spec(folder, {"family": "decoder", "head": head}), 2, seed=0)
    with pytest.raises(CellError, match="no one linear map called 'score'"):
        insert_two_layer_head(torch.nn.Linear(1, 1), 2)


def written(factory: Any, folder: Path, architecture: str, **config: Any) -> str:
    """Return the folder of a copy of a tiny model whose config.json says something else."""
    shutil.copytree(tiny_model(factory, architecture), folder)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | config))
    return str(folder)


def test_a_decoder_is_no_encoder_wherever_it_comes_from(tmp_path: Path, tmp_path_factory: Any) -> None:
    """The architecture of a hub's model, and one that no table knows, is seen when it is loaded."""
    hub = "hub:some/model@" + "0" * 40
    mistral = written(tmp_path_factory, tmp_path / "mistral", "llama", model_type="mistral", sliding_window=None)
    found = [(hub, {"path": str(tiny_model(tmp_path_factory, name))}) for name in DECODERS]
    for name, options in [*found, (mistral, {})]:
        with pytest.raises(CellError, match="is to be an encoder .* is a decoder") as caught:
            load_victim(model_spec(name, options), 2, seed=0)
        assert "model.family=decoder" in caught.value.remedy
        victim = load_victim(model_spec(name, {**options, "family": "decoder"}), 2, seed=0)
        assert (victim.spec.head, victim.spec.penultimate) == ("paper", "score.dense")
        for features in (victim.hidden(TEXTS[:2]), penultimate(victim, TEXTS[:2]).numpy()):
            assert np.abs(features[0] - features[1]).max() > 1e-2


def test_an_encoder_that_is_set_up_as_a_decoder_is_neither(tmp_path: Path, tmp_path_factory: Any) -> None:
    folder = written(tmp_path_factory, tmp_path / "bert", "bert", is_decoder=True)
    for family, text in (("encoder", "is a decoder"), ("decoder", "no one linear map")):
        with pytest.raises(CellError, match=text) as caught:
            load_victim(model_spec(folder, {"family": family}), 2, seed=0)
        assert "hoose another model" in caught.value.remedy


# Sizes of BART and of T5, which call them by names of their own.
SIZES = {
    "bart": {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "encoder_layers": 1, "decoder_layers": 1},
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4},
}


@pytest.mark.parametrize("architecture", SIZES)
@pytest.mark.parametrize("family", ["encoder", "decoder"])
def test_an_encoder_decoder_is_neither(tmp_path: Path, tmp_path_factory: Any, architecture: str, family: str) -> None:
    from transformers import AutoConfig, AutoModel

    folder = written(tmp_path_factory, tmp_path / architecture, "roberta")
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4} if architecture == "bart" else {}
    with torch.random.fork_rng(devices=[]):
        config = AutoConfig.for_model(architecture, vocab_size=500, **SIZES[architecture], **heads)
        AutoModel.from_config(config).save_pretrained(folder)
    with pytest.raises(CellError, match=f"Model '{architecture}' is an encoder-decoder") as caught:
        load_victim(model_spec(folder, {"family": family, "head": "plain"}), 2, seed=0)
    assert "Choose another model" in caught.value.remedy


def test_a_head_that_reads_padding_is_refused(tmp_path: Path, tmp_path_factory: Any) -> None:
    """XLNet's reads the last token; texts are padded there."""
    from transformers import XLNetConfig, XLNetModel

    folder = written(tmp_path_factory, tmp_path / "xlnet", "bert")
    config = XLNetConfig(vocab_size=500, d_model=32, n_layer=1, n_head=4, d_inner=48)
    with torch.random.fork_rng(devices=[]):
        XLNetModel(config).save_pretrained(folder)
    with pytest.raises(CellError, match="reads 'last' of a text"):
        load_victim(model_spec(folder), 2, seed=0)


def test_records_of_before_this_head_mean_transformers_own() -> None:
    """A spec that says nothing of a head is the plain one, so what was recorded of old keeps its meaning."""
    old = ModelSpec(name="x", path="somewhere", family="decoder")
    assert old.head == "plain" and "head" not in old.identity()
    assert model_spec("gpt2-xl").identity()["head"] == "paper"
    assert not {"head", "weights", "checkpointing", "stand_in_rank", "shape"} & set(model_spec("bert-base").identity())
