"""A model of random weights in the shape of a model file loads, trains and answers as one from the hub would."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.core.errors import RequestError
from bench.victim import random_model
from bench.victim.loading import load_victim
from bench.victim.spec import model_spec, shape_of_file

TEXTS = [f"the film is {word} and {other}" for word in ("good", "bad", "warm") for other in ("clever", "dull")]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes keep what they are of, and are two layers of 32."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    found = {name: shape_of_file(name) or {} for name in ("bert-base", "llama2-7b", "gpt2-xl")}
    known = {
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 600},
        "llama": {**sizes, "num_key_value_heads": 4, "vocab_size": 600},
        "bert": {**sizes, "vocab_size": 600},
    }
    monkeypatch.setattr(random_model, "shape_of_file", lambda name: {**found[name], **known[found[name]["model_type"]]})


@pytest.mark.parametrize("name", ["bert-base", "llama2-7b", "gpt2-xl"])
@pytest.mark.usefixtures("small")
def test_it_loads_as_any_other_and_reads_texts(name: str, tmp_path: Path) -> None:
    spec = model_spec(name)
    weights = random_model.write_random_model(spec, TEXTS, tmp_path / "one")
    random_model.write_random_model(spec, TEXTS, tmp_path / "other")
    same = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("one", "other")]
    assert same[0] == same[1] and len(same[0]) > 2 * weights > 2 * 600 * 32
    victim = load_victim(dataclasses.replace(spec, path=str(tmp_path / "one"), max_length=64), 2, seed=0)
    found = victim.predict(["the film is good", "a text of words that it never saw, å and 你"])
    assert found.shape == (2, 2) and np.isfinite(found).all()
    assert {parameter.dtype for parameter in victim.model.parameters()} == {victim.model.dtype}
    assert "float32" in str(victim.model.dtype)


def test_a_model_without_a_shape_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_model, "shape_of_file", lambda name: None)
    with pytest.raises(RequestError, match="no shape in its file"):
        random_model.write_random_model(model_spec("bert-base"), TEXTS, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.usefixtures("small")
def test_the_command_writes_a_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def asked(name: str) -> Any:
        return CliRunner().invoke(app, ["new", "model", name])

    first = asked("bert-base")
    assert first.exit_code == 0 and "--set model.path=bert-base-random" in first.output
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "bert-base-random").iterdir()
    }
    monkeypatch.setattr("bench.victim.random_model.write_random_model", _full)
    full = asked("llama2-7b")
    assert full.exit_code == 2 and "No space left on device" in full.output
    assert not (tmp_path / "llama2-7b-random").exists()
    again, unknown = asked("bert-base"), asked("bert-bas")
    assert again.exit_code == 2 and "already there" in again.output
    assert unknown.exit_code == 2 and "Did you mean 'bert-base'?" in unknown.output


def _full(spec: Any, texts: Any, folder: Path) -> int:
    """Fail as a full disk does, after a part was written."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    raise OSError(28, "No space left on device")
