"""Readings in step against each alone: predictions, triggers and slopes; failures and want of memory stay apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from bench.core import memory
from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.victim.joint.answers import Read, read_gang
from bench.victim.joint.passes import JointModel
from bench.victim.questions import Likely, LikelyUnder, Reading, Slope, answered
from bench.victim.soft_trigger import SoftTrigger
from bench.victim.victim import Victim
from defenders.rap import Rap
from defenders.strip import Strip
from tests.tiny import ARCHITECTURES, FURTHER
from tests.victim.test_gang import METHODS, prepared, texts

COUNTS = (40, 3, 25)  # texts of each member: who has answered leaves the passes to the others
MIXED = {"lora": ("bert", "llama"), "adapter": ("bert", "gpt2"), "prefix": ("bert", "llama")}
CASES = [(method, architecture) for method in METHODS for architecture in MIXED.get(method, ("bert", "llama"))]


def trained(make: Callable[..., Any], method: str, architecture: str = "bert", count: int = 3) -> list[Any]:
    """Return victims whose inserted parts are all random: as they begin, some of them change nothing."""
    victims = []
    for seed in range(count):
        victim, _ = prepared(make(architecture, seed=seed), method, seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for value in victim.trainable().values():
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
        victims.append(victim)
    return victims


def words(count: int, seed: int) -> list[str]:
    return [example.text for example in texts(count, seed)]


def likely(victim: Any, given: Sequence[str]) -> Reading:
    """Return the reading that finds the probabilities of texts."""

    def ask() -> Any:
        return (yield Likely(given))

    return Reading(victim, ask)


def found(results: Sequence[Read | Exception]) -> list[Any]:
    for result in results:
        if isinstance(result, Exception):
            raise result
    return [result.found for result in results]


def close(one: Any, other: Any, method: str) -> None:
    # The multi-scale module multiplies what differs in the last bits by up to 6 x 28.
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 if method == "musclelora" else 2e-6)


@pytest.mark.parametrize("width", [2, 3])
@pytest.mark.parametrize(("method", "architecture"), CASES)
def test_predictions_in_one_pass_are_those_of_each_alone(
    tiny_victim: Callable[..., Any], method: str, architecture: str, width: int
) -> None:
    given = [words(count, seed) for seed, count in enumerate(COUNTS)]
    alone = [victim.predict(own) for victim, own in zip(trained(tiny_victim, method, architecture), given, strict=True)]
    assert np.abs(alone[0][:3] - alone[1]).max() > 1e-3  # members differ by far more than the tolerance
    victims = trained(tiny_victim, method, architecture)
    results = read_gang([likely(*it) for it in zip(victims, given, strict=True)], width=width)
    assert all(result.cut == 1 and result.seconds > 0 for result in results)
    for one, other in zip(found(results), alone, strict=True):
        assert one.dtype == other.dtype == np.float32
        close(one, other, method)
    assert len({victim.word_embedding.data_ptr() for victim in victims}) == 1  # one backbone


def test_on_a_cpu_members_take_turns_and_get_every_bit_that_they_get_alone(tiny_victim: Callable[..., Any]) -> None:
    victims, given = trained(tiny_victim, "lora"), [words(9, seed) for seed in range(3)]
    alone = [victim.predict(own) for victim, own in zip(victims, given, strict=True)]
    for one, other in zip(
        found(read_gang([likely(*it) for it in zip(victims, given, strict=True)])), alone, strict=True
    ):
        assert (one == other).all()


def test_bf16_in_one_pass_stays_near_bf16_alone(tiny_victim: Callable[..., Any]) -> None:
    victims, given = trained(tiny_victim, "lora"), words(9, 0)
    exact = [victim.predict(given) for victim in victims]
    for victim in victims:
        victim.precision = "bf16"
    alone = [victim.predict(given) for victim in victims]
    together = found(read_gang([likely(it, given) for it in victims], width=3))
    for one, other, full in zip(together, alone, exact, strict=True):
        assert (one != full).any()
        np.testing.assert_allclose(one, other, atol=0.02)


def under(victim: Any, given: Sequence[str], seed: int) -> Reading:
    """Return the reading that finds, for a trigger with vectors of its own, probabilities and the slope of a loss."""

    def ask() -> Any:
        trigger = SoftTrigger(victim, "mb")
        trigger.vectors = trigger.vectors * (seed + 2)
        ready = trigger.encode(given)
        rows = [2, 0, 1][: len(given)]
        slope = yield Slope(trigger, ready.batch(rows), lambda likely: (likely[:, 1] * torch.arange(1, 4)).mean())
        return slope.numpy(), (yield LikelyUnder(trigger, ready))

    return Reading(victim, ask)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *FURTHER])
def test_triggers_and_slopes_in_one_pass_are_those_of_each_alone(
    tiny_victim: Callable[..., Any], architecture: str
) -> None:
    def readings() -> list[Reading]:
        return [under(it, words(5, seed), seed) for seed, it in enumerate(trained(tiny_victim, "lora", architecture))]

    alone = [answered(it.victim, it.ask()) for it in readings()]
    assert np.abs(alone[0][0]).max() > 1e-4
    for one, other in zip(found(read_gang(readings(), width=3)), alone, strict=True):
        np.testing.assert_allclose(one[0], other[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one[1], other[1], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("defense", [Strip(repeat=2), Rap(epochs=1, batch_size=8)], ids=lambda defense: defense.name)
def test_a_detector_in_a_gang_scores_as_it_does_alone(tiny_victim: Callable[..., Any], defense: Any) -> None:
    def asked(seed: int, victim: Any) -> dict[str, Any]:
        rows = [Example(f"{text} clever moving story", 0) for text in words(40 + seed, seed)]
        return {"model": victim, "clean_data": {"dev": rows}, "poison_data": texts(12, 7 + seed)}

    def label(victim: Any, seed: int) -> Any:
        own = defense.bound(Knowledge(2, seed=seed))
        if defense.name != "rap":
            return own
        predicted = victim.predict([text for text, *_ in asked(seed, victim)["clean_data"]["dev"]]).argmax(-1)
        return Rap(epochs=1, batch_size=8, protected_label=int(predicted.mean() > 0.5)).bound(Knowledge(2, seed=seed))

    victims = trained(tiny_victim, "lora")
    bound = [label(victim, seed) for seed, victim in enumerate(victims)]
    alone = [it.suspicion(**asked(seed, victims[seed])) for seed, it in enumerate(bound)]
    readings = [
        Reading(victims[seed], lambda it=it, seed=seed: it.questions(**asked(seed, victims[seed])))
        for seed, it in enumerate(bound)
    ]
    for one, other in zip(found(read_gang(readings, width=2)), alone, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4, atol=1e-5)
        assert one.threshold == pytest.approx(other.threshold, rel=1e-4, abs=1e-5)


def test_one_that_is_no_number_spoils_none(tiny_victim: Callable[..., Any]) -> None:
    given = [words(9, seed) for seed in range(3)]
    calm = [victim.predict(own) for victim, own in zip(trained(tiny_victim, "lora"), given, strict=True)]
    victims = trained(tiny_victim, "lora")
    with torch.no_grad():
        next(value for name, value in victims[1].tensors().items() if ".lora_A." in name).fill_(torch.nan)
    results = found(read_gang([likely(*it) for it in zip(victims, given, strict=True)], width=3))
    assert np.isnan(results[1]).all()
    for place in (0, 2):
        close(results[place], calm[place], "lora")


@pytest.mark.parametrize("width", [1, 3])
def test_a_member_that_fails_at_any_point_fails_alone(tiny_victim: Callable[..., Any], width: int) -> None:
    """At its beginning, in its text, in its loss, after an answer; the last member is as if it were alone."""
    victims = trained(tiny_victim, "lora", count=5)
    ended: list[int] = []

    def failing(place: int) -> Any:
        def ask() -> Any:
            try:
                if place == 0:
                    raise CellError("at once", "")
                trigger = SoftTrigger(victims[place], "mb")
                ready = trigger.encode(words(3, 0))

                def loss(likely: torch.Tensor) -> torch.Tensor:
                    if place == 2:
                        raise ValueError("in the loss")
                    return likely[:, 1].mean()

                before = yield Likely([None] if place == 1 else words(4, 1))
                yield Slope(trigger, ready.batch(range(3)), loss)
                if place == 3:
                    raise CellError("in the end", "")
                return before
            finally:
                ended.append(place)

        return ask

    alone = victims[4].predict(words(4, 1))
    results = read_gang([Reading(victim, failing(place)) for place, victim in enumerate(victims)], width=width)
    assert [type(result) for result in results[:4]] == [CellError, TypeError, ValueError, CellError]
    assert sorted(ended) == [0, 1, 2, 3, 4]
    close(results[4].found, alone, "lora")


@pytest.mark.parametrize("room", [2, 1])
def test_a_pass_that_does_not_fit_is_tried_again_with_half_the_members(
    tiny_victim: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    given = [words(5, seed) for seed in range(5)]
    alone = [victim.predict(own) for victim, own in zip(trained(tiny_victim, "lora", count=5), given, strict=True)]
    whole, passes = JointModel.probabilities, []

    def short(self: Any, own: Any, *arguments: Any) -> Any:
        passes.append(len(own))
        if len(own) > room:
            raise torch.OutOfMemoryError("out of memory")
        return whole(self, own, *arguments)

    monkeypatch.setattr(JointModel, "probabilities", short)
    victims = trained(tiny_victim, "lora", count=5)
    results = found(read_gang([likely(*it) for it in zip(victims, given, strict=True)]))
    assert passes == []  # on a CPU they take turns
    results = found(read_gang([likely(*it) for it in zip(victims, given, strict=True)], width=5))
    assert passes == ([5, 3, 2, 2] if room == 2 else [5, 3, 2])
    for one, other in zip(results, alone, strict=True):
        close(one, other, "lora")


@pytest.mark.parametrize("width", [1, 2])
def test_who_does_not_fit_alone_begins_anew_with_smaller_batches(
    tiny_victim: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    victims = trained(tiny_victim, "lora")
    alone, whole = [victim.predict(words(9, 0)) for victim in victims], Victim.predict_encoded

    def short(self: Any, *arguments: Any) -> Any:
        if self is victims[2] and memory.cut() < 4:
            raise torch.OutOfMemoryError("out of memory")
        return whole(self, *arguments)

    monkeypatch.setattr(Victim, "predict_encoded", short)
    results = read_gang([likely(victim, words(9, 0)) for victim in victims], width=width)
    assert [result.cut for result in results] == [1, 1, 4]
    for one, other in zip(found(results), alone, strict=True):
        close(one, other, "lora")


def test_who_cannot_be_read_together(tiny_victim: Callable[..., Any]) -> None:
    whole = [tiny_victim(seed=seed) for seed in range(2)]
    with pytest.raises(CellError, match="cannot be read as one gang: .*trains, and is no inserted module"):
        read_gang([likely(victim, ["a"]) for victim in whole])
    (only,) = found(read_gang([likely(whole[0], words(3, 0))]))
    assert (only == whole[0].predict(words(3, 0))).all()
    assert found(read_gang([likely(it, []) for it in trained(tiny_victim, "prefix", count=2)], width=2))[1].shape == (
        0,
        2,
    )
