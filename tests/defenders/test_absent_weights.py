"""What a model's files lack has no pre-trained value: no repair takes a second draw for one."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM

from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.core.registry import DEFENDERS, plugin_class
from bench.victim.loading import load_victim
from bench.victim.spec import model_spec
from tests.tiny import tiny_model, tiny_victim

ROWS = (Example("the film is good", 1), Example("the film is bad", 0))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Return the weights with which each fine-tuning from now on begins; none is made."""
    found: list[dict[str, torch.Tensor]] = []

    def train(victim: Any, rows: Any, selection: Any, *, seed: int, hooks: Any) -> None:
        found.append({name: value.detach().clone() for name, value in victim.tensors().items()})

    monkeypatch.setattr("bench.victim.clean_tuning.train", train)
    return found


@pytest.mark.parametrize("name", ["fine-mixing", "fine-mixing-sel"])
def test_the_pooler_of_a_masked_language_model_goes_with_the_head(
    tmp_path_factory: Any, tmp_path: Path, started: list[dict[str, torch.Tensor]], name: str
) -> None:
    folder = tmp_path / "masked"
    shutil.copytree(tiny_model(tmp_path_factory, "bert"), folder)
    AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    victim, other = (load_victim(model_spec(str(folder)), 2, seed=seed) for seed in (1, 99))
    pooler, head = [{f"{module}.weight", f"{module}.bias"} for module in ("bert.pooler.dense", "classifier")]
    with torch.no_grad():
        for value in victim.parameters():
            value += 1
    own, fresh = victim.tensors(), other.tensors()
    assert not torch.equal(own["bert.pooler.dense.weight"] - 1, fresh["bert.pooler.dense.weight"])
    known = Knowledge(2, ROWS, seed=5, pretrained=lambda: other)
    for option in ("kept", "fresh"):
        made = plugin_class(DEFENDERS, name)(rho=0.0, head=option, learning_rate=1e-3)
        made.repair(copy.deepcopy(victim), known)
        for tensor, value in started.pop().items():
            kept = option == "kept" and tensor in pooler | head
            assert torch.equal(value, (own if kept else fresh)[tensor]), tensor
    assert victim.drawn == pooler | head and tiny_victim(tmp_path_factory, "bert").drawn == head
