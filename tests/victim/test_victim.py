from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from bench.core.errors import CellError
from bench.core.example import Example
from bench.victim.joint.support import kind_of
from bench.victim.lora import attach_lora
from bench.victim.victim import Victim
from tests.tiny import ARCHITECTURES, FURTHER

TEXTS = ["good", "the film is bad and we hate it", "what a warm story", "", "dull mess"]


def test_predict_restores_order_and_mode(tiny_victim):
    victim = tiny_victim()
    victim.train()
    found = victim.predict(TEXTS, batch_size=2)
    assert victim.training and found.dtype == np.float32 and found.shape == (5, 2)
    assert found.sum(1) == pytest.approx(np.ones(5), abs=1e-6)
    for row, text in enumerate(TEXTS):
        assert victim.predict([text])[0] == pytest.approx(found[row], abs=1e-6)
    assert victim.predict([]).shape == (0, 2)


def test_predict_is_the_models_own_softmax(tiny_victim):
    victim = tiny_victim(classes=3)
    inputs = victim.tokenizer(TEXTS[1], return_tensors="pt")
    with torch.no_grad():
        expected = victim.plm(**inputs).logits.softmax(-1)[0].numpy()
    assert victim.predict([TEXTS[1]])[0] == pytest.approx(expected, abs=1e-6)


def test_process_pads_as_the_tokenizer_does(tiny_victim):
    victim = tiny_victim()
    inputs, labels = victim.process({"text": TEXTS[:3], "label": torch.tensor([1, 0, 1])})
    expected = victim.tokenizer(TEXTS[:3], padding=True, return_tensors="pt")
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    assert torch.equal(inputs["attention_mask"], expected["attention_mask"])
    assert labels.tolist() == [1, 0, 1]
    assert len(victim(inputs).hidden_states) == 3  # the embeddings and two layers
    loss = torch.nn.functional.cross_entropy(victim(inputs).logits, labels)
    assert victim.loss(inputs, labels).item() == pytest.approx(loss.item(), abs=1e-6)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert", "gpt2", "llama"])
def test_long_texts_are_cut_to_what_the_model_reads(tiny_victim, architecture):
    victim = tiny_victim(architecture)
    lost = victim.tokenizer.pad_token_id + 1 if architecture == "roberta" else 0
    assert victim.max_length == 64 - lost
    assert np.isfinite(victim.predict(["film " * 500])).all()


# Beside what the tiny models have: what each says of its positions, and how many of the 64 a text can have.
POSITIONS = {
    "albert": ({"embedding_size": 16}, 64),
    "mpnet": ({"pad_token_id": 1}, 62),
    "camembert": ({"pad_token_id": 1}, 62),
    "xlm-roberta": ({"pad_token_id": 4}, 59),
    "xlnet": ({"d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 48}, 512),  # no limit but the spec's
}


@pytest.mark.parametrize("architecture", POSITIONS)
def test_positions_are_counted_as_the_embeddings_count_them(tiny_spec, architecture):
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    own, expected = POSITIONS[architecture]
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 48}
    sizes = own if architecture == "xlnet" else {**sizes, "max_position_embeddings": 64, **own}
    with torch.random.fork_rng(devices=[]):
        config = AutoConfig.for_model(architecture, vocab_size=500, num_labels=2, **sizes)
        model = AutoModelForSequenceClassification.from_config(config)
    victim = Victim(model, AutoTokenizer.from_pretrained(tiny_spec().path), tiny_spec(), 2)
    assert victim.max_length == expected
    assert np.isfinite(victim.predict(["film " * 900, "film"])).all()


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *FURTHER])
def test_hidden_leaves_no_hooks_on_the_model(tiny_victim, architecture):
    victim = tiny_victim(architecture)

    def hooks() -> int:
        return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in victim.modules())

    assert hooks() == 0 and kind_of(victim) == architecture
    assert victim.hidden(TEXTS).shape == (5, 32) and victim.hidden([]).shape == (0, 32)
    assert hooks() == 0 and kind_of(victim) == architecture  # the unpadded pass knows no hooks of transformers


@pytest.mark.parametrize("architecture", ["bert", "electra", "gpt2"])
def test_hidden_is_cls_or_the_last_real_token(tiny_victim, architecture):
    victim = tiny_victim(architecture)
    found = victim.hidden(TEXTS[:3])
    assert found.shape == (3, 32) and found.dtype == np.float32
    for row, text in enumerate(TEXTS[:3]):
        with torch.no_grad():
            states = victim.plm(**victim.tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        expected = states[-1][0, -1 if architecture == "gpt2" else 0].numpy()
        assert found[row] == pytest.approx(expected, abs=1e-5)


def test_embeddings_are_the_block_of_an_encoder_and_the_words_of_a_decoder(tiny_victim):
    encoder, decoder = tiny_victim("bert"), tiny_victim("gpt2")
    inputs, _ = encoder.process({"text": ["good film"], "label": [0]})
    with torch.no_grad():
        assert torch.allclose(encoder.embeddings(inputs), encoder(inputs).hidden_states[0])
    inputs, _ = decoder.process({"text": ["good film"], "label": [0]})
    assert torch.equal(decoder.embeddings(inputs), decoder.word_embedding[inputs["input_ids"]])


def test_fingerprint_sees_one_changed_number(tiny_victim):
    victim = tiny_victim()
    before = victim.fingerprint()
    victim.predict(TEXTS)
    assert victim.fingerprint() == before == copy.deepcopy(victim).fingerprint()
    with torch.no_grad():
        victim.word_embedding[3, 4] += 1e-3
    assert victim.fingerprint() != before


def test_save_and_restore_are_exact(tiny_victim, tmp_path):
    def wrapped() -> object:
        victim = tiny_victim(seed=4)
        attach_lora(victim, rank=2, alpha=8, targets=("query",), seed=9)
        return victim

    trained = wrapped()
    with torch.no_grad():
        for value in trained.trainable().values():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    trained.save(tmp_path / "new" / "folder")
    restored = wrapped()
    assert restored.fingerprint() != trained.fingerprint()
    restored.restore(tmp_path / "new" / "folder")
    assert restored.fingerprint() == trained.fingerprint()
    assert (restored.predict(TEXTS) == trained.predict(TEXTS)).all()
    with pytest.raises(CellError, match="do not fit"):
        tiny_victim(seed=4).restore(tmp_path / "new" / "folder")
    with pytest.raises(CellError, match="no saved weights"):
        wrapped().restore(tmp_path)


def test_what_is_saved_keeps_pefts_names(tiny_victim, tmp_path):
    from safetensors import safe_open

    victim = tiny_victim()
    attach_lora(victim, rank=2, alpha=8, targets=("query",), seed=9)
    with safe_open(victim.save(tmp_path), "pt") as content:
        names = set(content.keys())
    layers = (f"bert.encoder.layer.{layer}.attention.self.query" for layer in (0, 1))
    factors = {f"{layer}.lora_{part}.default.weight" for layer in layers for part in "AB"}
    assert names == factors | {"classifier.weight", "classifier.bias"}


def test_a_label_outside_the_classes_is_refused(tiny_victim):
    with pytest.raises(CellError, match="Label 2"):
        tiny_victim().encode([Example("a", 1), Example("b", 2)])


def test_bf16_autocast_keeps_weights_and_answers_in_fp32(tiny_spec):
    from bench.victim.loading import load_victim

    half, full = (load_victim(tiny_spec(), 2, seed=0, precision=name) for name in ("bf16", "fp32"))
    assert half.fingerprint() == full.fingerprint()
    found, expected = half.predict(TEXTS), full.predict(TEXTS)
    assert found.dtype == np.float32 and (found != expected).any()
    assert found == pytest.approx(expected, abs=0.05)
