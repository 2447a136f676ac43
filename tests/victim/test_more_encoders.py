"""Encoders beside BERT and RoBERTa in the unpadded pass against transformers' own, and gangs against training alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.victim.joint.support import kind_of
from bench.victim.training import train, train_gang
from tests.victim.test_decoders import compared
from tests.victim.test_gang import METHODS, TOLERANCE, members, prepared, tensors, texts


@pytest.mark.parametrize("architecture", ["electra", "distilbert"])
@pytest.mark.parametrize("method", ["vanilla", *METHODS])
def test_loss_and_gradients_of_two_more_are(tiny_victim: Callable[..., Any], architecture: str, method: str) -> None:
    victim, _ = prepared(tiny_victim(architecture), method, 3)
    assert kind_of(victim) == architecture
    _, found = compared(victim)
    assert any(float(value.abs().max()) > 1e-4 for value in found.values())


def test_distilbert_computes_its_layers_again(tiny_victim: Callable[..., Any]) -> None:
    victim, _ = prepared(tiny_victim("distilbert", checkpointing=True), "lora", 3)
    assert kind_of(victim) == "distilbert"
    compared(victim)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", ["vanilla", *METHODS])
def test_loss_and_gradients_are_those_of_transformers(
    tiny_victim: Callable[..., Any], method: str, checkpointing: bool, pooling: str
) -> None:
    """Its second layer sees two tokens to each side, and most texts here are longer than five."""
    victim, _ = prepared(tiny_victim("modernbert", checkpointing=checkpointing), method, 3)
    victim.model.config.classifier_pooling = pooling
    assert kind_of(victim) == "modernbert" and victim.model.config.sliding_window == 2
    assert sorted(victim.encode(texts(9, 7)).lengths)[3] > 5
    _, found = compared(victim)
    assert any(float(value.abs().max()) > 1e-4 for value in found.values())


@pytest.mark.parametrize("architecture", ["electra", "distilbert"])
def test_members_of_two_more_get_what_they_get_alone(tiny_victim: Callable[..., Any], architecture: str) -> None:
    alone, together = (members(tiny_victim, "musclelora", architecture, max_steps=3) for _ in range(2))
    for task in alone:
        train(task.victim, task.examples, task.selection, seed=task.seed, hooks=task.hooks)
    assert all(log.unpadded and log.gang == 3 for log in train_gang(together, width=3))
    for task, twin in zip(alone, together, strict=True):
        for name, value in tensors(task.victim).items():
            torch.testing.assert_close(tensors(twin.victim)[name], value, msg=name, **TOLERANCE)


@pytest.mark.parametrize("method", ["lora", "musclelora"])
def test_a_member_gets_what_it_gets_alone(tiny_victim: Callable[..., Any], method: str) -> None:
    """The head's norm too is each member's own."""
    found = []
    for together in (False, True):
        tasks = members(tiny_victim, method, "modernbert", max_steps=4)
        for number, task in enumerate(tasks):
            with torch.no_grad():
                task.victim.model.head.norm.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(number))
        if together:
            assert all(log.unpadded and log.gang == 3 for log in train_gang(tasks, width=3))
        else:
            for task in tasks:
                train(task.victim, task.examples, task.selection, seed=task.seed, hooks=task.hooks)
        found.append([tensors(task.victim) for task in tasks])
    for alone, ganged in zip(*found, strict=True):
        for name, value in alone.items():
            torch.testing.assert_close(ganged[name], value, msg=name, **TOLERANCE)
