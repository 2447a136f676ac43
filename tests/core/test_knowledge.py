"""The small values of the core: examples, what a defense may know, which packages are here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.core.errors import CellError, RequestError
from bench.core.example import Example, blinded
from bench.core.knowledge import Knowledge
from bench.core.packages import installed, openbackdoor_wanted
from bench.core.seeding import derived_seed


def test_blinding_hides_the_flags_and_nothing_else() -> None:
    rows = [Example("a", 1, 1), ("b", 0, 0), ("c", 2)]
    assert blinded(rows) == [("a", 1, 0), ("b", 0, 0), ("c", 2, 0)]
    assert rows[0].poisoned == 1 and all(isinstance(row, Example) for row in blinded(rows))


def test_a_named_generator_depends_on_the_seed_and_the_name_alone() -> None:
    known = Knowledge(classes=2, seed=5)
    first = known.generator("threshold").integers(0, 10**9, 3).tolist()
    assert first == Knowledge(classes=4, seed=5, recipe="paper").generator("threshold").integers(0, 10**9, 3).tolist()
    assert first != known.generator("order").integers(0, 10**9, 3).tolist()
    assert first != Knowledge(classes=2, seed=6).generator("threshold").integers(0, 10**9, 3).tolist()
    assert derived_seed(5, "threshold") != derived_seed(5, "order")


def test_pretrained_weights_are_made_fresh_or_refused() -> None:
    made: list[object] = []

    def pretrained() -> object:
        made.append(object())
        return made[-1]

    known = Knowledge(classes=2, pretrained=pretrained)
    assert known.fresh_victim() is not known.fresh_victim() and len(made) == 2
    with pytest.raises(CellError, match="No pre-trained weights were given"):
        Knowledge(classes=2).fresh_victim()


def test_a_package_is_looked_for_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud_package.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (tmp_path / "bare_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert installed("loud_package") and "loud_package" not in sys.modules
    assert not installed("bare_folder") and not installed("no_such_package")
    assert installed("pytest")
    monkeypatch.setitem(sys.modules, "blocked_package", None)
    assert not installed("blocked_package")


def test_the_variable_that_asks_for_openbackdoor() -> None:
    assert openbackdoor_wanted({"BENCH_OPENBACKDOOR": "1"}) and openbackdoor_wanted({"BENCH_OPENBACKDOOR": " 1 "})
    assert not any(
        openbackdoor_wanted(given) for given in ({}, {"BENCH_OPENBACKDOOR": "0"}, {"BENCH_OPENBACKDOOR": ""})
    )
    with pytest.raises(RequestError, match="BENCH_OPENBACKDOOR is 'yes': it is 0 or 1"):
        openbackdoor_wanted({"BENCH_OPENBACKDOOR": "yes"})
