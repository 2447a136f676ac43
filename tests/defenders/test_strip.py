"""STRIP: known entropies, what a perturbed copy is, and a planted backdoor told from none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench.core.errors import CellError, RequestError
from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.core.metrics import auroc
from defenders.calibration import order_statistic
from defenders.strip import Strip, _Donors, mean_entropies
from tests.defenders.planted import Planted, planted

# Twenty dev texts; "donor3a" and "donor3b" occur in the third alone, "shared" in all.
DEV = [Example(f"shared donor{row}a donor{row}b donor{row}b", row % 2) for row in range(20)]


class Scripted:
    """A victim that is certain of texts most of whose words begin with `a`, and undecided about all others."""

    classes = 2

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def predict(self, texts: list[str]) -> np.ndarray:
        """Return (1, 0) or (0.5, 0.5) for each text."""
        self.calls.append(list(texts))
        starts = [[word[0] for word in text.split()] for text in texts]
        return np.array([(1.0, 0.0) if row.count("a") * 2 > len(row) else (0.5, 0.5) for row in starts])


def examined(found: Planted) -> tuple[list[Example], list[int]]:
    """Return the clean and the poisoned test examples, and which are poisoned."""
    return [*found.test_clean, *found.test_poisoned], [0] * len(found.test_clean) + [1] * len(found.test_poisoned)


def test_entropies_are_averaged_over_the_copies_of_one_text() -> None:
    # Three texts of two copies: (0, 1) bits, (1, 1) bits, and log2(3) twice over three classes.
    half, third = (0.5, 0.5, 0.0), (1 / 3, 1 / 3, 1 / 3)
    found = mean_entropies(np.array([(0.0, 1.0, 0.0), half, half, half, third, third]), 2)
    assert found == pytest.approx([0.5, 1.0, math.log2(3)])


def test_two_texts_whose_entropies_are_known() -> None:
    # One word in four is replaced, so each text keeps its majority: 0 bits for the first and the last, 1 bit between.
    victim = Scripted()
    texts = [Example("a1 a2 a3 a4", 0), Example("b1 b2 b3 b4", 0), Example("a5 a6 a7 a8", 1, 1)]
    found = Strip().bound(Knowledge(2)).suspicion(victim, {"dev": DEV}, texts)
    assert found.scores == pytest.approx([0.0, -1.0, 0.0], abs=1e-12)
    # Every dev text has 1 bit: what has less is flagged.
    assert found.threshold == pytest.approx(-1.0) and found.flags().tolist() == [1, 0, 1]
    assert [len(call) for call in victim.calls] == [5 * (20 + 3)]  # one pass over all copies


def test_the_threshold_is_a_low_order_statistic() -> None:
    values = np.array([5.0, 1.0, 4.0, 2.0, 3.0])
    assert [order_statistic(values, share) for share in (0.0, 0.19, 0.2, 0.5, 1.0)] == [1.0, 1.0, 2.0, 3.0, 5.0]


@pytest.mark.parametrize(
    ("words", "ratio", "replaced"), [(8, 0.25, 2), (8, 0.5, 4), (7, 0.5, 3), (3, 0.25, 1), (8, 0, 0)]
)
def test_as_many_words_are_replaced_as_the_ratio_says(words: int, ratio: float, replaced: int) -> None:
    donors, rng = _Donors([text for text, *_ in DEV]), np.random.default_rng(0)
    text = " ".join(f"w{place}" for place in range(words))
    for _ in range(50):
        copy = donors.perturbed(text, ratio, rng).split()
        assert len(copy) == words
        assert sum(one != other for one, other in zip(copy, text.split(), strict=True)) == replaced


def test_inserted_words_are_the_rarest_of_one_dev_text() -> None:
    donors, rng = _Donors([text for text, *_ in DEV]), np.random.default_rng(0)
    assert donors.words[3] == ["donor3b", "donor3a", "shared"]  # twice in one text, once, in every text
    for _ in range(50):
        copy = donors.perturbed("w w", 1.0, rng, besides=3).split()
        assert {word[:-1] for word in copy} == {copy[0][:-1]} and copy[0][:-1] != "donor3"
        assert {word[-1] for word in copy} == {"a", "b"}
    longer = donors.perturbed(" ".join("w" * 9), 1.0, rng).split()  # nine words need three dev texts
    assert longer.count("shared") == 3 and "w" not in longer


def test_a_dev_text_gets_no_words_of_its_own() -> None:
    victim = Scripted()
    Strip(swap_ratio=1.0).bound(Knowledge(2)).suspicion(victim, {"dev": DEV}, DEV[:1])
    (copies,) = victim.calls
    for row in range(20):
        inserted = {word for copy in copies[5 * row : 5 * row + 5] for word in copy.split()}
        assert len(inserted) > 2 and not inserted & {f"donor{row}a", f"donor{row}b"}


def test_texts_without_words_stay() -> None:
    donors = _Donors([text for text, *_ in DEV])
    assert donors.perturbed("", 0.5, np.random.default_rng(0)) == ""


@pytest.mark.parametrize("classes", [2, 3])
def test_a_planted_backdoor_is_told_from_clean_texts(tmp_path_factory: Any, classes: int) -> None:
    found = planted(tmp_path_factory, classes=classes)
    data, poisoned = examined(found)
    before, mode = found.victim.fingerprint(), found.victim.training
    known = Knowledge(classes, seed=1)
    # At the published ratio the one-word trigger itself is overwritten in a quarter of the copies.
    answer = Strip(swap_ratio=0.1, repeat=30).bound(known).suspicion(found.victim, {"dev": found.dev}, data)
    assert auroc(answer.scores, poisoned) >= 0.95
    flags = answer.flags()
    assert flags[: len(found.test_clean)].mean() <= 0.1 and flags[len(found.test_clean) :].mean() >= 0.4
    assert found.victim.fingerprint() == before and found.victim.training is mode


def test_the_published_setting_finds_it_too(tmp_path_factory: Any) -> None:
    found = planted(tmp_path_factory)
    data, poisoned = examined(found)
    answer = Strip().bound(Knowledge(2)).suspicion(found.victim, {"dev": found.dev}, data)
    assert auroc(answer.scores, poisoned) >= 0.95


def test_without_a_backdoor_there_is_nothing_to_tell(tmp_path_factory: Any) -> None:
    found = planted(tmp_path_factory, trigger=False)
    data, marked = examined(found)
    for seed in (0, 1):
        answer = Strip(repeat=10).bound(Knowledge(2, seed=seed)).suspicion(found.victim, {"dev": found.dev}, data)
        assert 0.4 <= auroc(answer.scores, marked) <= 0.6


def test_the_seed_decides_the_copies_and_no_flag_matters() -> None:
    rows = [Example(f"w{row} x{row} y{row} z{row}", 0, row % 2) for row in range(6)]

    def copies(seed: int, data: list[Example]) -> list[str]:
        victim = Scripted()
        Strip().bound(Knowledge(2, seed=seed)).detect(victim, {"dev": DEV}, data)
        return victim.calls[0]

    first = copies(3, rows)
    np.random.seed(5)
    assert copies(3, [Example(text, label) for text, label, _ in rows]) == first != copies(4, rows)


def test_the_score_of_a_text_hangs_on_no_other_text() -> None:
    """Its copies are drawn for the text itself: not for its place, nor for what was examined before it."""
    words = [Example(f"a{row} b{row} a b c{row}", 0) for row in range(12)]
    defense = Strip(repeat=3).bound(Knowledge(2, seed=4))

    def copies(examples: list[Example]) -> dict[str, list[str]]:
        victim = Scripted()
        defense.suspicion(victim, {"dev": DEV}, examples)
        made = victim.calls[0][3 * len(DEV) :]
        return {example.text: made[3 * row : 3 * row + 3] for row, example in enumerate(examples)}

    whole = copies(words)
    assert copies(words[::-1]) == whole
    assert copies(words[5:6]) == {words[5].text: whole[words[5].text]}
    assert len({copy for each in whole.values() for copy in each}) > 24  # the copies of one text differ


def test_it_needs_enough_clean_texts_with_words() -> None:
    for rows in ([], DEV[:19]):
        with pytest.raises(CellError, match=f"at least 20 clean dev rows .* got {len(rows)}"):
            Strip().bound(Knowledge(2)).suspicion(Scripted(), {"dev": rows}, DEV)
    with pytest.raises(CellError, match="Fewer than two clean dev texts have a word"):
        Strip().bound(Knowledge(2)).suspicion(Scripted(), {"dev": [Example("the of and", 0)] * 20}, DEV)
    # Rows it was bound to stand in for a dev split that is not given, and without a binding the seed is 0.
    given = Strip().bound(Knowledge(2, calibration=tuple(DEV))).suspicion(Scripted(), None, DEV)
    assert (given.scores == Strip().suspicion(Scripted(), {"dev": DEV}, DEV).scores).all()


def test_options() -> None:
    assert Strip().identity() == {"repeat": 5, "swap_ratio": 0.25, "frr": 0.01}
    assert (
        Strip(name="STRIP", pre=False, correction=False, metrics=["FRR", "FAR"], repeat=5, swap_ratio=0.25) == Strip()
    )
    assert Strip.stages() == {"detect"} and Strip.calibrated
    for wrong in ({"repeat": 0}, {"swap_ratio": 1.5}, {"frr": -0.1}):
        with pytest.raises(RequestError, match=f"strip.{next(iter(wrong))}"):
            Strip(**wrong)
