"""Our adapter is OpenDelta's: same sites and trainable tensors; with the same weights, same outputs and gradients.

Runs where OpenDelta is installed (`pip install --no-deps opendelta`). It does not import beside transformers 5
as it is: the stand-ins below are what its import asks for and what the adapter never uses.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bench.victim.adapter import Bottleneck, attach_adapter
from tests.tiny import tiny_victim

pytestmark = pytest.mark.skipif(importlib.util.find_spec("opendelta") is None, reason="opendelta is not installed")

DIMENSION = 8


def stand_in(name: str, **members: Any) -> types.ModuleType:
    """Return a module with these members, one that `find_spec` accepts."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.util.spec_from_loader(name, loader=None)
    vars(module).update(members)
    return module


@pytest.fixture(scope="module")
def adapter_model() -> Iterator[type]:
    """Return OpenDelta's AdapterModel; afterwards no module is left that was not there before."""
    from transformers.integrations import deepspeed
    from transformers.models.distilbert import modeling_distilbert

    stand_ins = {
        "opendelta.utils.interactive.web": stand_in("web", interactive=None),  # starts a web server; needs web.py
        "turtle": stand_in("turtle", back=None),  # imported by mistake in OpenDelta; needs tkinter
        "DeltaCenter": stand_in("DeltaCenter", OssClient=object),
        "transformers.deepspeed": deepspeed,
    }
    with pytest.MonkeyPatch.context() as patch:
        before = set(sys.modules)
        for name, module in stand_ins.items():
            patch.setitem(sys.modules, name, module)
        patch.setattr(modeling_distilbert, "MultiHeadSelfAttention", object, raising=False)
        patch.setattr(sys, "path", list(sys.path))  # OpenDelta puts a folder of its own in front
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is code of 2023
            found = importlib.import_module("opendelta").AdapterModel
        yield found
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("opendelta", *stand_ins):
            del sys.modules[name]


# OpenDelta has no map of Llama's and Qwen's modules, so its sites are named; the others it finds by itself.
NAMED_SITES = {"llama": ["o_proj", "down_proj"], "qwen3": ["o_proj", "down_proj"], "modernbert": ["attn.Wo", "mlp.Wo"]}


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert", "gpt2", "llama", "qwen3"])
def test_adapter_equals_opendelta(adapter_model: type, tmp_path_factory: Any, architecture: str) -> None:
    """With equal weights, logits and every gradient are those of OpenDelta, and the same tensors train."""
    victim = tiny_victim(tmp_path_factory, architecture)
    theirs = copy.deepcopy(victim.model)
    attach_adapter(victim, victim.spec.adapter_sites, DIMENSION, seed=1)
    delta = adapter_model(theirs, bottleneck_dim=DIMENSION, modified_modules=NAMED_SITES.get(architecture))
    delta.freeze_module(set_state_dict=False)

    mine = victim.trainable()
    other = {
        name.replace("modulelist.down_proj", "down").replace("modulelist.up_proj", "up"): value
        for name, value in theirs.named_parameters()
        if value.requires_grad
    }
    assert set(mine) == set(other)
    assert {name: value.shape for name, value in mine.items()} == {name: value.shape for name, value in other.items()}

    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in mine.items():
            value.normal_(0.0, 0.3, generator=generator)  # large enough to matter, biases too
            other[name].copy_(value)
    inputs, labels = victim.process({"text": ["the film is good", "bad", "a dull and empty story"], "label": [1, 0, 0]})
    victim.eval()
    theirs.eval()
    ours = victim.model(**inputs, labels=labels)
    reference = theirs(**inputs, labels=labels)
    torch.testing.assert_close(ours.logits, reference.logits, rtol=0, atol=1e-6)
    ours.loss.backward()
    reference.loss.backward()
    for name, value in mine.items():
        assert value.grad.abs().max() > 0, name
        torch.testing.assert_close(value.grad, other[name].grad, rtol=1e-5, atol=1e-6)


def test_adapter_starts_as_opendelta(adapter_model: type, tmp_path_factory: Any) -> None:
    """Both start with weights of standard deviation 0.01 and mean 0, and with biases of exactly 0."""
    theirs = importlib.import_module("opendelta.delta_models.adapter").AdapterLayer(bottleneck_dim=64)
    theirs.instantiate(torch.zeros(1, 1, 2048))
    ours = Bottleneck(2048, 64, torch.Generator().manual_seed(0), torch.zeros(1))
    for layer in (theirs.modulelist.down_proj, theirs.modulelist.up_proj, ours.down, ours.up):
        # 131,072 draws: the standard error of the deviation is 0.2 %, of the mean 0.00003.
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert layer.weight.mean().item() == pytest.approx(0.0, abs=2e-4)
        assert not layer.bias.any()
