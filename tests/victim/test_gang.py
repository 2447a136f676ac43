"""Unpadded passes against transformers' own, gangs against training alone, and failures that stay with one member."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from bench.core.errors import CellError
from bench.core.example import Example
from bench.victim.gradients import Passes
from bench.victim.joint.dropout import keep
from bench.victim.joint.layout import Source
from bench.victim.joint.passes import JointModel
from bench.victim.joint.support import kind_of, refusal, shareable
from bench.victim.recipes import AlignmentOptions, LoraOptions, MultiScaleOptions, filled
from bench.victim.training import Task, train, train_gang

WORDS = "the film is good bad dull moving and i we like hate it very".split()
METHODS = ("lora", "adapter", "prefix", "musclelora")
# Sums of floats in another order: gradients differ in their last bits, and Adam divides by their size.
TOLERANCE = {"rtol": 2e-3, "atol": 2e-5}


def texts(count: int, seed: int) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number in range(count):
        length = int(torch.randint(1, 15, (1,), generator=generator))
        picks = torch.randint(len(WORDS), (length,), generator=generator).tolist()
        found.append(Example(" ".join(WORDS[pick] for pick in picks), number % 2))
    return found


def prepared(victim: Any, method: str, seed: int, recipe: str = "released") -> tuple[Any, tuple[Any, ...]]:
    """Return a fresh victim with the parts of a method in it, and its hooks."""
    from bench.victim.adapter import attach_adapter
    from bench.victim.alignment import GradientAlignment
    from bench.victim.assembly import add_lora, add_multiscale
    from bench.victim.prefix import attach_prefix

    spec = victim.spec
    if method == "adapter":
        attach_adapter(victim, spec.adapter_sites, 4, seed=seed)
    if method == "prefix":
        attach_prefix(victim, 3, seed=seed, width=8)
    if method in ("lora", "musclelora"):
        add_lora(victim, filled(LoraOptions(rank=2), spec, recipe), seed)
    if method != "musclelora":
        return victim, ()
    add_multiscale(victim, filled(MultiScaleOptions(), spec, recipe), seed)
    options = filled(AlignmentOptions(clean_samples=12, min_reference_loss=0.0), spec, recipe)
    return victim, (GradientAlignment(texts(12, 99 + seed), options, seed),)


def members(make: Callable[..., Any], method: str, architecture: str = "bert", **options: Any) -> list[Task]:
    """Return three tasks that differ in seed, rows, head, learning rate and number of steps."""
    tasks = []
    for seed in range(3):
        changed = {"learning_rate_pet": 1e-3 * (seed + 1), **options}
        victim, hooks = prepared(make(architecture, seed=seed, **changed), method, seed)
        tasks.append(Task(victim, texts(10 + 4 * seed, seed), texts(8, 50 + seed), seed, hooks))
    return tasks


def tensors(victim: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in victim.kept().items()}


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
@pytest.mark.parametrize("method", ["vanilla", *METHODS])
def test_the_unpadded_pass_gives_the_loss_and_gradients_of_transformers(
    tiny_victim: Callable[..., Any], architecture: str, method: str
) -> None:
    victim, _ = prepared(tiny_victim(architecture), method, 3)
    data = victim.encode(texts(9, 7))
    batch = data.batch(range(9))
    expected = victim.loss(batch.inputs, batch.labels)
    expected.backward()
    theirs = {name: value.grad.clone() for name, value in victim.trainable().items() if value.grad is not None}
    victim.zero_grad()
    (loss,) = JointModel([victim]).losses([Source(0, data, range(9))], None)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert {name for name, value in victim.trainable().items() if value.grad is not None} == set(theirs)
    for name, gradient in theirs.items():
        # Sums of large terms that cancel: their rounding is in proportion to the largest entry, not to each.
        rounding = 2e-5 * max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(victim.trainable()[name].grad, gradient, rtol=1e-4, atol=rounding)


def test_an_encoder_that_saves_memory_takes_its_own_pass(tiny_victim: Callable[..., Any]) -> None:
    victim = tiny_victim(checkpointing=True, max_steps=1)
    assert kind_of(victim) is None and "is to save memory" in refusal(victim)
    assert train(victim, texts(8, 0), (), seed=0).unpadded is False


def test_a_strangers_module_or_hook_takes_the_ordinary_pass(tiny_victim: Callable[..., Any]) -> None:
    class Mine(nn.Linear):
        pass

    Mine.__module__ = "somebody.elses"
    victim = tiny_victim()
    assert kind_of(victim) == "bert"
    handle = victim.model.classifier.register_forward_hook(lambda *_: None)
    assert kind_of(victim) is None
    handle.remove()
    victim.model.bert.pooler.dense = Mine(32, 32)
    assert kind_of(victim) is None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("width", [None, 2, 3])
def test_a_member_gets_what_it_gets_alone(tiny_victim: Callable[..., Any], method: str, width: int | None) -> None:
    alone = members(tiny_victim, method)
    logs = [train(task.victim, task.examples, task.selection, seed=task.seed, hooks=task.hooks) for task in alone]
    together = members(tiny_victim, method)
    ganged = train_gang(together, width=width)
    for log, other, task, twin in zip(logs, ganged, alone, together, strict=True):
        assert other.gang == 3 and log.gang == 1 and other.unpadded
        assert (log.steps, log.selected_at, log.best) == (other.steps, other.selected_at, other.best)
        assert log.losses == pytest.approx(other.losses, rel=1e-4)
        expected, found = tensors(task.victim), tensors(twin.victim)
        assert expected.keys() == found.keys()
        for name in expected:
            torch.testing.assert_close(
                found[name], expected[name], msg=lambda text, n=name: f"{n}: {text}", **TOLERANCE
            )


def test_a_member_in_another_gang_draws_the_same_numbers(tiny_victim: Callable[..., Any]) -> None:
    first = members(tiny_victim, "lora")
    train_gang(first, width=3)
    second = members(tiny_victim, "lora")
    train_gang([second[2], second[0]], width=2)
    for name, value in tensors(first[2].victim).items():
        torch.testing.assert_close(tensors(second[2].victim)[name], value, **TOLERANCE)


def test_one_pass_of_gradient_alignment_gives_what_two_give(
    tiny_victim: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = members(tiny_victim, "musclelora")[0]
    train(one.victim, one.examples, (), seed=0, hooks=one.hooks)
    two = members(tiny_victim, "musclelora")[0]
    passes = []
    hook = two.hooks[0]
    monkeypatch.setattr(JointModel, "stackable", False)  # nothing rides along
    taken = hook.on_gradients
    monkeypatch.setattr(hook, "on_gradients", lambda run, batch: (passes.append(run.step), taken(run, batch)))
    train(two.victim, two.examples, (), seed=0, hooks=two.hooks)
    assert len(passes) == 6
    for name, value in tensors(one.victim).items():
        torch.testing.assert_close(tensors(two.victim)[name], value, **TOLERANCE)


@pytest.mark.parametrize("width", [1, 3])
def test_a_member_that_is_no_number_fails_alone(tiny_victim: Callable[..., Any], width: int) -> None:
    calm = members(tiny_victim, "lora")
    train_gang(calm, width=width)
    wild = members(tiny_victim, "lora")
    with torch.no_grad():
        next(value for name, value in wild[1].victim.tensors().items() if ".lora_A." in name).fill_(torch.inf)
    results = train_gang(wild, width=width)
    assert isinstance(results[1], CellError) and "at step 1" in results[1].problem
    for place in (0, 2):
        for name, value in tensors(calm[place].victim).items():
            assert value.isfinite().all()
            torch.testing.assert_close(tensors(wild[place].victim)[name], value, **TOLERANCE)


def test_a_member_that_cannot_begin_fails_alone(tiny_victim: Callable[..., Any]) -> None:
    tasks = members(tiny_victim, "adapter")
    tasks[0] = dataclasses.replace(tasks[0], examples=[Example("the film", 5)])
    results = train_gang(tasks)
    assert isinstance(results[0], CellError) and "Label 5" in results[0].problem
    assert [results[1].steps, results[2].steps] == [8, 10]


def test_who_cannot_be_one_gang(tiny_victim: Callable[..., Any]) -> None:
    def lora(**options: Any) -> Any:
        return prepared(tiny_victim(**options), "lora", 0)[0]

    assert shareable([lora(), lora(seed=4)]) == ""
    assert "trains, and is no inserted module" in shareable([tiny_victim(), tiny_victim()])
    assert "do not have the same modules" in shareable([lora(), prepared(tiny_victim(), "prefix", 0)[0]])
    other = lora()
    with torch.no_grad():
        other.model.bert.encoder.layer[0].output.dense.weight[0, 0] += 1
    assert "is frozen and differs" in shareable([lora(), other])
    calmer = lora()
    calmer.model.dropout.p = 0.5
    assert "differ in dropout" in shareable([lora(), calmer])
    with pytest.raises(CellError, match="cannot be one gang"):
        train_gang([Task(tiny_victim(), texts(4, 0), (), 0), Task(tiny_victim(), texts(4, 0), (), 0)])


@pytest.mark.parametrize("limit", [2, 1])
def test_a_pass_that_does_not_fit_is_tried_again_smaller(
    tiny_victim: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    expected = members(tiny_victim, "musclelora")
    train_gang(expected, width=3)
    whole, refused = JointModel.losses, []

    def short(self: Any, sources: Any, generators: Any, own: Any = None) -> Any:
        losses = whole(self, sources, generators, own)  # random numbers are drawn before memory runs out
        if len(sources) > 2 * limit:
            refused.append(len(sources))
            raise torch.OutOfMemoryError("out of memory")
        return losses

    monkeypatch.setattr(JointModel, "losses", short)
    tasks = members(tiny_victim, "musclelora")
    train_gang(tasks, width=3)
    assert refused == ([6] if limit == 2 else [6, 4])
    for one, other in zip(expected, tasks, strict=True):
        for name, value in tensors(one.victim).items():
            torch.testing.assert_close(tensors(other.victim)[name], value, **TOLERANCE)


def test_a_batch_that_does_not_fit_runs_in_pieces_with_the_same_gradient(tiny_victim: Callable[..., Any]) -> None:
    found = []
    for pieces in (1, 2, 4):
        victim, _ = prepared(tiny_victim(max_steps=1, batch_size=7), "lora", 0)
        for module in victim.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # a piece draws its own dropout
        passes = Passes(1)
        passes.pieces = pieces
        from bench.victim.training import Member

        member = Member(Task(victim, texts(7, 1), (), 0), 0, JointModel([victim]))
        next(iter(passes.of([member])))
        assert len(member.batch.rows) == 7  # so that pieces are of 4 and 3 rows, and of 2, 2, 2 and 1
        found.append((member.loss, {name: value.grad for name, value in victim.trainable().items()}))
    for loss, gradients in found[1:]:
        torch.testing.assert_close(loss, found[0][0])
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, found[0][1][name], rtol=1e-4, atol=1e-7)


def test_no_memory_for_one_row_is_an_error_of_the_cell() -> None:
    passes = Passes(1)
    passes.pieces = 4
    with pytest.raises(CellError, match="single row"):
        passes._shrink(1, 4)


def test_dropout_keeps_its_rate_and_expectation() -> None:
    mask = keep((400, 501), 0.1, torch.Generator().manual_seed(0))
    assert mask.shape == (400, 501)
    assert mask.unique().tolist() == [0.0, pytest.approx(1 / 0.9, rel=1e-4)]
    # 200,400 draws: the standard deviation of the share is 0.00067.
    assert float((mask == 0).float().mean()) == pytest.approx(0.1, abs=0.003)
    assert float(mask.mean()) == pytest.approx(1.0, abs=0.004)
    again = keep((400, 501), 0.1, torch.Generator().manual_seed(0))
    assert torch.equal(mask, again)
    assert not keep((50,), 1.0, torch.Generator()).any() and keep((50,), 0.0, torch.Generator()).eq(1).all()


def test_dropout_of_neighbouring_numbers_is_independent() -> None:
    kept = (keep((4, 100_000), 0.5, torch.Generator().manual_seed(1)) > 0).float().reshape(-1)
    for lag in (1, 2, 3, 4, 8):
        agreement = float((kept[lag:] == kept[:-lag]).float().mean())
        assert agreement == pytest.approx(0.5, abs=0.004)  # 5 standard deviations of 400,000 draws


def test_bf16_stays_near_fp32(tiny_victim: Callable[..., Any]) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        victim, _ = prepared(tiny_victim(), "lora", 0)
        victim.precision = precision
        data = victim.encode(texts(9, 7))
        losses[precision] = float(JointModel([victim]).losses([Source(0, data, range(9))], None)[0].detach())
    assert losses["bf16"] != losses["fp32"] and losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
