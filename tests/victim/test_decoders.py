"""Decoders in the unpadded pass against transformers' own, layers computed again, and gangs against training alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.core.errors import CellError
from bench.core.example import Example
from bench.victim.joint.layout import Source
from bench.victim.joint.passes import JointModel
from bench.victim.joint.support import kind_of, refusal, shareable
from bench.victim.loading import load_victim
from bench.victim.run import TRAINING, streams
from bench.victim.spec import model_spec
from bench.victim.training import train, train_gang
from tests.tiny import tiny_model
from tests.victim.test_gang import METHODS, TOLERANCE, members, prepared, tensors, texts

DECODERS = ("llama", "qwen2", "qwen3", "gpt2")
SCALED = {
    "linear": {"rope_type": "linear", "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32},
    "llama3": {
        **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        "original_max_position_embeddings": 16,
    },
    # Longer texts than 8 tokens take the other factors.
    "longrope": {
        **{"rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [4.0, 3.0, 5.0, 6.0]},
        "original_max_position_embeddings": 8,
    },
}


def gradients(victim: Any) -> dict[str, torch.Tensor]:
    """Return the gradients of what trains, where there is one, and take them off the victim."""
    found = {name: value.grad for name, value in victim.trainable().items() if value.grad is not None}
    victim.zero_grad(set_to_none=True)
    return found


def compared(victim: Any, rows: int = 9) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Check one batch's loss and gradients against transformers' padded pass; return them."""
    data = victim.encode(texts(rows, 7))
    batch = data.batch(range(rows))
    expected = victim.loss(batch.inputs, batch.labels)
    expected.backward()
    theirs = gradients(victim)
    (loss,) = JointModel([victim]).losses([Source(0, data, range(rows))], None)
    loss.backward()
    ours = gradients(victim)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    return loss, ours


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("head", ["paper", "plain"])
@pytest.mark.parametrize("method", ["vanilla", *METHODS])
@pytest.mark.parametrize("architecture", DECODERS)
def test_loss_and_gradients_are_those_of_transformers(
    tiny_victim: Callable[..., Any], architecture: str, method: str, head: str, checkpointing: bool
) -> None:
    if (method, head) == ("musclelora", "plain"):
        return  # refused at planning: there is no linear before the classifier
    victim, _ = prepared(tiny_victim(architecture, head=head, checkpointing=checkpointing), method, 3)
    assert victim.backbone.is_gradient_checkpointing is checkpointing
    _, found = compared(victim)
    assert any(float(value.abs().max()) > 1e-4 for value in found.values())


def test_the_head_that_transformers_has_is_read_where_transformers_reads_it(tiny_victim: Callable[..., Any]) -> None:
    victim = tiny_victim("llama", head="plain")
    data = victim.encode(texts(6, 1))
    batch = data.batch(range(6))
    with torch.no_grad():
        expected = victim.model(**batch.inputs).logits.softmax(-1)
    found = JointModel([victim]).probabilities({0: data}, 6)[0]
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=1e-6)


def scaled(tmp_path_factory: Any, folder: Path, rope: dict[str, Any]) -> Any:
    """Return a tiny Llama whose positions are scaled as its config.json says, with LoRA in it."""
    shutil.copytree(tiny_model(tmp_path_factory, "llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_theta": 100.0, **rope}
    (folder / "config.json").write_text(json.dumps(config))
    return prepared(load_victim(model_spec(str(folder), {"learning_rate_pet": 1e-3}), 2, seed=0), "lora", 3)[0]


@pytest.mark.parametrize("kind", SCALED)
def test_scaled_positions(tmp_path_factory: Any, tmp_path: Path, kind: str) -> None:
    victim = scaled(tmp_path_factory, tmp_path / "scaled", SCALED[kind])
    plain = scaled(tmp_path_factory, tmp_path / "plain", {"rope_type": "default"})
    assert victim.backbone.rotary_emb.rope_type == kind
    found, unscaled = compared(victim)[0], compared(plain)[0]
    if kind != "dynamic":  # which differs only beyond all the positions that the model has, where no text is
        assert abs(float(found.detach() - unscaled.detach())) > 1e-5


def test_scales_that_follow_the_longest_text_follow_that_of_a_source_alone(
    tmp_path_factory: Any, tmp_path: Path
) -> None:
    victim = scaled(tmp_path_factory, tmp_path / "long", SCALED["longrope"])
    short, long = victim.encode(texts(4, 0)[:1] * 2), victim.encode([Example("the film is good " * 4, 0)])
    assert max(short.lengths) <= 8 < max(long.lengths)
    model = JointModel([victim])
    alone = [model.losses([Source(0, data, range(len(data)))], None)[0] for data in (short, long)]
    together = model.losses([Source(0, short, range(2)), Source(0, long, range(1))], None, model.stacked([0, 0]))
    torch.testing.assert_close(together, alone)


def dropped(victim: Any) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return gradients with dropout on, and where the victim's random stream stands afterwards."""
    victim.train()
    stream = streams(5, victim.device)[TRAINING]
    data = victim.encode(texts(9, 7))
    JointModel([victim]).losses([Source(0, data, range(9))], [stream])[0].backward()
    return gradients(victim), stream.get_state()


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["lora", "prefix"])
def test_layers_computed_again_drop_the_same(tiny_victim: Callable[..., Any], architecture: str, method: str) -> None:
    found = [dropped(prepared(tiny_victim(architecture, checkpointing=on), method, 3)[0]) for on in (False, True)]
    calm = prepared(tiny_victim(architecture), method, 3)[0]
    for module in calm.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    without, _ = dropped(calm)
    assert torch.equal(found[0][1], found[1][1])
    for name, wanted in found[0][0].items():
        assert torch.equal(found[1][0][name], wanted), name
    assert any(not torch.allclose(without[name], wanted, rtol=0.01) for name, wanted in found[0][0].items())


def test_layers_computed_again_keep_fewer_activations(tiny_victim: Callable[..., Any]) -> None:
    kept = {}
    for on in (False, True):
        victim = prepared(tiny_victim("llama", checkpointing=on), "lora", 3)[0].train()
        data = victim.encode([Example("the film is good and i like it " * 4, 0)] * 8)
        held: dict[int, int] = {}

        def keep(tensor: torch.Tensor, held: dict[int, int] = held) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            (loss,) = JointModel([victim]).losses([Source(0, data, range(8))], None)
        weights = {value.untyped_storage().data_ptr() for value in victim.parameters()}
        kept[on] = sum(size for place, size in held.items() if place not in weights)
        assert loss.requires_grad
    assert kept[True] < 0.3 * kept[False]


@pytest.mark.parametrize("architecture", DECODERS)
@pytest.mark.parametrize("weights", ["fp32", "bf16"])
def test_bf16_stays_near_transformers_bf16(tiny_victim: Callable[..., Any], architecture: str, weights: str) -> None:
    """bf16 keeps 8 bits: two orders of summing differ by about 1 in 256; the frozen backbone keeps its type."""
    victim = prepared(tiny_victim(architecture), "lora", 3)[0]
    victim.precision = "bf16"
    if weights == "bf16":
        for name, value in victim.tensors().items():
            if not value.requires_grad and not name.startswith("score"):
                value.data = value.data.bfloat16()
    data = victim.encode(texts(9, 7))
    batch = data.batch(range(9))
    expected = victim.loss(batch.inputs, batch.labels)
    expected.backward()
    theirs = gradients(victim)
    (loss,) = JointModel([victim]).losses([Source(0, data, range(9))], None)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=0.01)
    ours = gradients(victim)
    for name, gradient in theirs.items():
        assert float((ours[name] - gradient).norm()) <= 0.05 * float(gradient.norm()), name


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_member_gets_what_it_gets_alone(
    tiny_victim: Callable[..., Any], architecture: str, method: str, checkpointing: bool
) -> None:
    """Alone means a gang of one; the members have one backbone together afterwards."""
    make = lambda *given, **options: tiny_victim(*given, checkpointing=checkpointing, epochs=1, **options)  # noqa: E731
    alone = members(make, method, architecture)
    logs = [train(task.victim, task.examples, task.selection, seed=task.seed, hooks=task.hooks) for task in alone]
    together = members(make, method, architecture)
    ganged = train_gang(together, width=3)
    for log, other, task, twin in zip(logs, ganged, alone, together, strict=True):
        assert other.gang == 3 and other.unpadded and (log.steps, log.best) == (other.steps, other.best)
        assert log.losses == pytest.approx(other.losses, rel=1e-4)
        expected, found = tensors(task.victim), tensors(twin.victim)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], msg=name, **TOLERANCE)
    shared = [
        {name: value.data_ptr() for name, value in task.victim.tensors().items() if name not in task.victim.kept()}
        for task in together
    ]
    assert shared[0] and shared[0] == shared[1] == shared[2]


@pytest.mark.parametrize("architecture", DECODERS)
def test_one_pass_of_gradient_alignment_gives_what_two_give(
    tiny_victim: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    one = members(tiny_victim, "musclelora", architecture, max_steps=3)[0]
    train(one.victim, one.examples, (), seed=0, hooks=one.hooks)
    two = members(tiny_victim, "musclelora", architecture, max_steps=3)[0]
    passes = []
    taken = two.hooks[0].on_gradients
    monkeypatch.setattr(JointModel, "stackable", False)  # nothing rides along
    monkeypatch.setattr(two.hooks[0], "on_gradients", lambda run, batch: (passes.append(run.step), taken(run, batch)))
    train(two.victim, two.examples, (), seed=0, hooks=two.hooks)
    assert passes == [0, 1, 2]
    for name, value in tensors(one.victim).items():
        torch.testing.assert_close(tensors(two.victim)[name], value, **TOLERANCE)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_member_that_is_no_number_fails_alone(tiny_victim: Callable[..., Any], architecture: str) -> None:
    calm = members(tiny_victim, "lora", architecture)
    train_gang(calm, width=3)
    wild = members(tiny_victim, "lora", architecture)
    with torch.no_grad():
        next(value for name, value in wild[1].victim.tensors().items() if ".lora_A." in name).fill_(torch.inf)
    results = train_gang(wild, width=3)
    assert isinstance(results[1], CellError) and "became nan at step" in results[1].problem
    for place in (0, 2):
        for name, value in tensors(calm[place].victim).items():
            assert value.isfinite().all()
            torch.testing.assert_close(tensors(wild[place].victim)[name], value, **TOLERANCE)


def test_what_the_pass_does_not_know_it_says(tiny_victim: Callable[..., Any]) -> None:
    victim = tiny_victim("qwen3")
    assert kind_of(victim) == "qwen3"
    victim.model.config.layer_types = ["full_attention", "sliding_attention"]
    assert "attend by full_attention, sliding_attention" in refusal(victim)
    victim = tiny_victim("llama")
    victim.model.score = nn.Sequential(nn.Linear(32, 2))
    assert "its head is neither" in refusal(victim)
    lora = [prepared(tiny_victim("llama", checkpointing=on), "lora", 0)[0] for on in (False, True)]
    assert "compute activations again" in shareable(lora)
    other = prepared(tiny_victim("gpt2"), "lora", 0)[0]
    assert "different architectures" in shareable([lora[0], other])
