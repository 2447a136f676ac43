"""RAP: its word has vectors of its own in every architecture, and tells a planted backdoor from none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bench.core.errors import CellError, RequestError
from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.core.metrics import auroc
from bench.victim.questions import answered
from bench.victim.soft_trigger import SoftTrigger, train_soft_trigger
from defenders.rap import NO_DROP, Rap
from tests.defenders.planted import TARGET, Planted, planted
from tests.tiny import ARCHITECTURES, tiny_victim

# Plain descent at the published rate hardly moves a word of the tiny model in the few steps of a test. At a rate of 3
# its path is chaotic: what differs in the last bit differs by a tenth ten epochs later.
QUICK = Rap(lr=1.0, epochs=20)
TEXTS = ["the film is good", "we hate it", "a cold, dull and empty mess and a warm story", ""]


def examined(found: Planted) -> tuple[list[Example], np.ndarray]:
    """Return the clean and the poisoned test examples, and which are poisoned."""
    return [*found.test_clean, *found.test_poisoned], np.repeat(
        [0, 1], [len(found.test_clean), len(found.test_poisoned)]
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_unchanged_vectors_are_the_word_itself(tmp_path_factory: Any, architecture: str) -> None:
    victim = tiny_victim(tmp_path_factory, architecture)
    before = victim.fingerprint()
    trigger = SoftTrigger(victim, "mb")
    assert len(trigger.pieces) == 2  # several tokens in these vocabularies
    plain = victim.predict([f"mb {text}".strip() for text in TEXTS])
    assert np.abs(trigger.probabilities(trigger.encode(TEXTS)) - plain).max() < 1e-6
    trigger.vectors = trigger.vectors * -3
    assert np.abs(trigger.probabilities(trigger.encode(TEXTS)) - plain).max() > 1e-4
    assert (victim.predict([f"mb {text}".strip() for text in TEXTS]) == plain).all()
    assert victim.fingerprint() == before


@pytest.mark.parametrize("wrap", ["nothing", "lora"])
def test_the_gradient_is_that_of_the_vectors_alone(tmp_path_factory: Any, wrap: str) -> None:
    victim = tiny_victim(tmp_path_factory, "bert")
    if wrap == "lora":
        from bench.victim.lora import attach_lora

        attach_lora(victim, rank=2, alpha=2, targets=("query", "value"), seed=0)
        assert not victim.word_embedding.requires_grad
    trigger = SoftTrigger(victim, "mb")
    ready = trigger.encode(TEXTS)
    batch = ready.batch(range(len(ready)))
    found = trigger.gradient(batch, lambda likely: likely[:, 1].mean())
    assert found.shape == trigger.vectors.shape
    assert all(value.grad is None for value in victim.parameters())
    # The slope along one direction, by central differences.
    step, start = 1e-2, trigger.vectors
    direction = torch.linspace(-1, 1, start.numel()).reshape(start.shape)
    direction = direction / direction.norm()
    values = []
    for sign in (1, -1):
        trigger.vectors = start + sign * step * direction
        values.append(trigger.probabilities(ready)[:, 1].mean(dtype=np.float64))
    assert float((found * direction).sum()) == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.05, abs=1e-5)


@pytest.mark.parametrize("label", [0, 1])
def test_only_texts_of_the_protected_label_are_read_again(tmp_path_factory: Any, label: int) -> None:
    victim = tiny_victim(tmp_path_factory, "bert")
    trigger = SoftTrigger(victim, "mb")

    def drops(before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return answered(victim, Rap(protected_label=label)._drops(trigger, list(TEXTS), before))

    before = np.array([[0.9, 0.1] if row % 3 else [0.2, 0.8] for row in range(len(TEXTS))], dtype=np.float32)
    drop, protected = drops(before)
    assert protected.tolist() == [bool(row % 3) == (label == 0) for row in range(len(TEXTS))]
    assert np.isnan(drop).tolist() == (~protected).tolist()
    expected = before[:, label] - trigger.probabilities(trigger.encode(TEXTS))[:, label]
    np.testing.assert_allclose(drop[protected], expected[protected], atol=1e-6)
    nobody, none = drops(np.tile(np.eye(2)[1 - label], (len(TEXTS), 1)))
    assert np.isnan(nobody).all() and not none.any()


def test_a_step_uses_its_own_gradient_and_keeps_the_length(tmp_path_factory: Any) -> None:
    def moved(momentum: float) -> torch.Tensor:
        trigger = SoftTrigger(tiny_victim(tmp_path_factory, "bert"), "mb")
        trigger.vectors = torch.tensor([[3.0, 4.0]])
        trigger.norms, trigger.velocity = torch.tensor([[5.0]]), torch.zeros(1, 2)
        trigger.descend(torch.tensor([[3.0, 0.0]]), 1.0, momentum)  # (0, 4), made as long as before: (0, 5)
        assert trigger.vectors.tolist() == [[0.0, 5.0]]
        trigger.descend(torch.tensor([[0.0, 0.0]]), 1.0, momentum)
        return trigger.vectors[0]

    assert moved(0.0).tolist() == [0.0, 5.0]
    # Added up, the first gradient acts again: (-3, 5), made 5 long.
    assert moved(1.0).tolist() == pytest.approx([-15 / 34**0.5, 25 / 34**0.5])


def test_training_brings_the_change_into_the_range(tmp_path_factory: Any) -> None:
    found = planted(tmp_path_factory)
    texts = [text for text, label, _ in found.dev if label == TARGET]
    trigger = SoftTrigger(found.victim, "mb")

    def missed() -> float:
        before = found.victim.predict(texts)[:, TARGET]
        change = trigger.probabilities(trigger.encode(texts))[:, TARGET] - before
        return float(np.maximum(change + 0.1, 0).mean() + np.maximum(-0.3 - change, 0).mean())

    first = missed()
    options = {"label": TARGET, "change": (-0.1, -0.3), "scale": 1.0, "batch_size": 32, "momentum": 0.0}
    answered(found.victim, train_soft_trigger(trigger, texts, epochs=20, rate=3.0, **options))
    assert missed() < 0.8 * first
    assert trigger.vectors.norm(dim=-1).tolist() == pytest.approx(trigger.norms.flatten().tolist(), rel=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_planted_backdoor_is_told_from_clean_texts(tmp_path_factory: Any, classes: int) -> None:
    found = planted(tmp_path_factory, classes=classes)
    data, poisoned = examined(found)
    before, mode = found.victim.fingerprint(), found.victim.training
    answer = QUICK.bound(Knowledge(classes)).suspicion(found.victim, {"dev": found.dev}, data)
    assert auroc(answer.scores, poisoned) >= 0.95
    assert answer.flags()[poisoned == 0].mean() <= 0.1
    assert found.victim.fingerprint() == before and found.victim.training is mode
    assert all(value.grad is None for value in found.victim.parameters())
    # Only what is predicted as the protected label can be flagged.
    elsewhere = found.victim.predict([text for text, *_ in data]).argmax(-1) != TARGET
    assert elsewhere.any() and (answer.scores[elsewhere] == NO_DROP).all() and not answer.flags()[elsewhere].any()


def test_without_a_backdoor_there_is_nothing_to_tell(tmp_path_factory: Any) -> None:
    found = planted(tmp_path_factory, trigger=False)
    data, marked = examined(found)
    answer = QUICK.bound(Knowledge(2)).suspicion(found.victim, {"dev": found.dev}, data)
    assert 0.4 <= auroc(answer.scores, marked) <= 0.6


def test_the_answer_follows_from_the_data_alone(tmp_path_factory: Any) -> None:
    found = planted(tmp_path_factory)
    data, _ = examined(found)
    first = Rap(epochs=1).suspicion(found.victim, {"dev": found.dev}, data)
    torch.manual_seed(9)
    blind = [Example(text, label) for text, label, _ in data]
    again = Rap(epochs=1).bound(Knowledge(2, calibration=tuple(found.dev))).suspicion(found.victim, None, blind)
    assert (first.scores == again.scores).all() and first.threshold == again.threshold


def test_the_victim_is_whole_after_a_failure(tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tiny_victim(tmp_path_factory, "bert").train()
    before, embedding = victim.fingerprint(), victim.model.get_input_embeddings()
    trigger = SoftTrigger(victim, "mb")
    options = {"label": 1, "change": (-0.1, -0.3), "scale": 1.0, "epochs": 2, "batch_size": 2, "rate": 1.0}
    with monkeypatch.context() as patch:
        patch.setattr(victim, "logits", None)
        patch.setattr(victim, "reader", lambda: None)  # transformers' own pass, which the vectors enter by a hook
        with pytest.raises(TypeError):
            trigger.gradient(trigger.encode(TEXTS).batch([0]), torch.sum)
    with monkeypatch.context() as patch:
        patch.setattr(trigger, "descend", None)
        with pytest.raises(TypeError):
            answered(victim, train_soft_trigger(trigger, TEXTS, momentum=0.0, **options))
    assert not embedding._forward_hooks and victim.training and victim.fingerprint() == before


def test_what_it_refuses(tmp_path_factory: Any) -> None:
    found = planted(tmp_path_factory)
    with pytest.raises(CellError, match="protect label 2, and this model has the labels 0 to 1"):
        Rap(protected_label=2).suspicion(found.victim, {"dev": found.dev}, found.test_clean)
    with pytest.raises(CellError, match="at least 20 clean dev rows .* got 19"):
        Rap().suspicion(found.victim, {"dev": found.dev[:19]}, found.test_clean)
    others = [row for row in found.dev if row.label != TARGET]
    with pytest.raises(CellError, match="takes 0 clean dev texts for label 1, and rap needs at least 10"):
        Rap(epochs=1).suspicion(found.victim, {"dev": others}, found.test_clean)
    trigger = SoftTrigger(found.victim, "mb")
    trigger.pieces = [5]
    with pytest.raises(CellError, match="does not keep 'mb' apart"):
        trigger.encode(["the film is bad"])


def test_options() -> None:
    assert Rap().identity() == {
        "trigger": "mb",
        "protected_label": 1,
        "epochs": 5,
        "batch_size": 32,
        "lr": 0.01,
        "momentum": 0.0,
        "prob_range": [-0.1, -0.3],
        "scale": 1.0,
        "frr": 0.01,
    }
    openbackdoor = {"name": "rap", "epochs": 5, "batch_size": 32, "lr": 1e-2, "prob_range": [-0.1, -0.3], "scale": 1}
    assert Rap(**openbackdoor, frr=0.01) == Rap() and Rap.stages() == {"detect"} and Rap.calibrated
    for wrong in ({"prob_range": (-0.3, -0.1)}, {"prob_range": (0.1, -0.3)}, {"protected_label": -1}, {"trigger": ""}):
        with pytest.raises(RequestError, match=f"rap.{next(iter(wrong))}"):
            Rap(**wrong)
