"""What has its batches cut because memory ran out takes the same steps and finds the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config

from bench.core import memory
from bench.core.example import Example
from bench.victim import local_lm, packing, perplexity
from bench.victim.alignment import GradientAlignment
from bench.victim.joint.passes import JointModel
from bench.victim.joint.reading import Reader
from bench.victim.perplexity import language_model
from bench.victim.pruning import activity, blocks
from bench.victim.reading import has_plain_head
from bench.victim.recipes import AlignmentOptions, filled
from bench.victim.soft_trigger import SoftTrigger
from bench.victim.spec import model_spec
from bench.victim.training import train
from bench.victim.victim import Victim
from tests.defenders.judges import causal
from tests.tiny import tiny_victim

ROWS = [Example(f"row {'word ' * (number % 7)}{number}", number % 2, 0) for number in range(20)]
NO_DROPOUT = {"batch_size": 8, "max_steps": 3}


def still(victim: Any) -> Any:
    for module in victim.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return victim


def trained(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, cuts: int
) -> tuple[dict[str, Any], Any]:
    victim = still(tiny_victim(tmp_path_factory, "bert", options=NO_DROPOUT))
    sizes, losses = [], JointModel.losses

    def noted(joint: JointModel, sources: Any, *rest: Any) -> Any:
        sizes.extend(len(source.rows) for source in sources)
        return losses(joint, sources, *rest)

    monkeypatch.setattr(JointModel, "losses", noted)

    def work() -> Any:
        if memory.cut() < cuts:
            raise MemoryError
        return train(victim, ROWS, [], seed=1)

    log, cut = memory.with_smaller_batches(work, lambda: None)
    assert cut == cuts
    return {name: value.detach().clone() for name, value in victim.trainable().items()}, (log, max(sizes))


def test_cut_batches_take_the_same_steps_in_smaller_pieces(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, (log, largest) = trained(tmp_path_factory, monkeypatch, 1)
    cut, (cut_log, cut_largest) = trained(tmp_path_factory, monkeypatch, 4)
    assert largest > 2 and cut_largest == 2
    assert cut_log.losses == pytest.approx(log.losses, rel=1e-5)
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-3, atol=2e-5)


def test_predictions_do_not_depend_on_the_cut(tmp_path_factory: pytest.TempPathFactory) -> None:
    victim = tiny_victim(tmp_path_factory, "bert")
    texts = [example.text for example in ROWS]

    def work() -> Any:
        if memory.cut() < 8:
            raise MemoryError
        return victim.predict(texts)

    found, _ = memory.with_smaller_batches(work, lambda: None)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(victim.predict(texts)), rtol=1e-5, atol=1e-6)


def fits(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, size: Callable[..., int], most: int) -> None:
    """Let a pass run out of memory whenever its size is above `most`."""
    own = getattr(owner, name)

    def limited(*given: Any, **named: Any) -> Any:
        if size(*given, **named) > most:
            raise MemoryError
        return own(*given, **named)

    monkeypatch.setattr(owner, name, limited)


def rows_of(victim: Any, inputs: Any, *rest: Any) -> int:
    return len(inputs["input_ids"])


def test_the_clean_batch_of_gradient_alignment_is_cut_too(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.victim.training.kind_of", lambda victim: None)  # a victim that has no joint pass
    monkeypatch.setattr("bench.victim.batching.GROUP_COST", 10**6)  # nor groups of like lengths
    options = filled(AlignmentOptions(), model_spec("minilm-l6"), "paper")

    def trained() -> Any:
        victim = still(tiny_victim(tmp_path_factory, "bert", options=NO_DROPOUT))
        train(victim, ROWS, [], seed=1, hooks=[GradientAlignment(ROWS[:13], options, 3)])
        return {name: value.detach().clone() for name, value in victim.trainable().items()}

    whole, seen = trained(), []
    fits(monkeypatch, Victim, "loss", lambda victim, inputs, labels: seen.append(len(labels)) or len(labels), 2)
    # The training batches divide themselves; of those of the clean rows the last has 5.
    found, cut = memory.with_smaller_batches(trained, lambda: seen.clear())
    assert cut == 4 and max(seen) == 2
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("unpadded", [True, False])
def test_the_pass_that_trains_a_soft_trigger_is_cut_too(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, unpadded: bool
) -> None:
    victim = tiny_victim(tmp_path_factory, "bert")
    if not unpadded:
        monkeypatch.setattr(victim, "reader", lambda: None)
    trigger = SoftTrigger(victim, "mb")
    batch = trigger.encode([row.text for row in ROWS]).batch(range(5, 18))
    before = torch.linspace(0.3, 0.7, 13)

    def slope() -> torch.Tensor:  # no mean over rows, so that no rule about shares could stand in for the loss
        return trigger.gradient(batch, lambda likely: (likely[:, 1] - before).square().mean().sqrt())

    whole = slope()
    if unpadded:
        fits(monkeypatch, Reader, "logits", lambda reader, texts, rows, soft: len(rows), 2)
    else:
        fits(monkeypatch, Victim, "logits", rows_of, 2)
    found, cut = memory.with_smaller_batches(slope, lambda: None)
    assert cut == 8 and whole.abs().max() > 1e-4
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-7)
    assert all(value.grad is None for value in victim.parameters())


def test_the_pass_that_measures_activity_is_cut_too(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tiny_victim(tmp_path_factory, "bert")
    whole = activity(victim, blocks(victim), ROWS, "absolute")
    fits(monkeypatch, Victim, "logits", rows_of, 8)
    found, cut = memory.with_smaller_batches(lambda: activity(victim, blocks(victim), ROWS, "absolute"), lambda: None)
    assert cut == 8
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("packs", [True, False])
def test_the_passes_of_a_language_model_are_cut_too(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, packs: bool
) -> None:
    judge = language_model(causal(tmp_path_factory, "gpt2"), "tiny")
    judge = dataclasses.replace(judge, packs=packs)
    words = [row.text.split() for row in ROWS]
    whole = judge.suspicions(words, 60)
    size = lambda model, inputs, *rest, **named: inputs["input_ids"].numel()  # noqa: E731
    fits(monkeypatch, packing if packs else perplexity, "losses_at", size, 150)
    found, cut = memory.with_smaller_batches(lambda: judge.suspicions(words, 60), lambda: None)
    assert cut == 4
    for one, other in zip(found, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=0.1)


def test_the_training_of_a_language_model_is_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_lm, "STEPS", 4)
    monkeypatch.setattr(local_lm, "LOOK_EVERY", 2)
    own = GPT2Config.__init__
    monkeypatch.setattr(
        GPT2Config, "__init__", lambda *given, **named: own(*given, **named, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    )
    texts = [row.text for row in ROWS] * 4

    def scores() -> np.ndarray:
        return local_lm.local_language_model(texts, seed=1).perplexities(texts)

    whole = scores()
    fits(monkeypatch, local_lm, "_loss", lambda model, ids: len(ids), 4)
    found, cut = memory.with_smaller_batches(scores, lambda: None)
    assert cut == 4
    np.testing.assert_allclose(found, whole, rtol=1e-3)


def test_a_language_model_is_not_read_otherwise_for_want_of_memory(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **named: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    class Full(torch.nn.Linear):
        device, base_model = torch.device("cpu"), staticmethod(full)

        def get_output_embeddings(self) -> torch.nn.Linear:
            return torch.nn.Linear(3, 9)

        def forward(self, **given: Any) -> Any:
            return SimpleNamespace(logits=torch.zeros(1, 5, 9))

    with pytest.raises(torch.OutOfMemoryError):
        has_plain_head(Full(3, 9))
    monkeypatch.setattr(perplexity, "family_losses", full)
    with pytest.raises(torch.OutOfMemoryError):
        language_model(causal(tmp_path_factory, "gpt2"), "tiny")
