"""Features of many texts: where the unpadded pass is not taken, they are what it gives, and the victim is as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.core.errors import CellError
from bench.victim.states import classifier, last_states, penultimate
from bench.victim.victim import Victim
from tests.tiny import ARCHITECTURES

TEXTS = ["the film is good and i like it", "bad", "", "what a dull and empty story"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("compute", [last_states, penultimate])
def test_padded_and_unpadded_are_equal(
    tiny_victim: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    compute: Callable[..., torch.Tensor],
) -> None:
    victim = tiny_victim(architecture).train()
    unpadded = compute(victim, TEXTS)
    monkeypatch.setattr(Victim, "reader", lambda self: None)
    padded = compute(victim, TEXTS)
    torch.testing.assert_close(padded, unpadded, atol=1e-5, rtol=0)
    assert (padded[0] - padded[1]).abs().max() > 1e-2
    assert victim.training and not any(part._forward_pre_hooks for part in victim.modules())


def test_hidden_is_computed_without_dropout_and_in_the_precision(tiny_victim: Callable[..., Any]) -> None:
    victim = tiny_victim()
    expected = victim.hidden(TEXTS)
    assert (victim.train().hidden(TEXTS) == expected).all() and victim.training
    victim.precision = "bf16"
    found = victim.hidden(TEXTS)
    assert (found != expected).any() and found == pytest.approx(expected, abs=0.1)


def test_the_classifier_is_the_last_of_two_maps_to_as_many_numbers(tiny_victim: Callable[..., Any]) -> None:
    victim = tiny_victim("roberta", classes=32)
    assert victim.model.classifier.dense.out_features == 32
    assert classifier(victim) is victim.model.classifier.out_proj
    victim.classes = 3
    with pytest.raises(CellError, match="no linear map to its 3 classes"):
        classifier(victim)


@pytest.mark.parametrize("compute", [last_states, penultimate])
def test_what_is_not_finite_is_refused(tiny_victim: Callable[..., Any], compute: Callable[..., torch.Tensor]) -> None:
    victim = tiny_victim()
    with torch.no_grad():
        victim.word_embedding.fill_(float("nan"))
    with pytest.raises(CellError, match="not finite"):
        compute(victim, TEXTS)
