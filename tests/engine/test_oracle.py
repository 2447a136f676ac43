"""What only bridged plug-ins do: a defense that is given the true flags, an attack that cannot tell its rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from attackers.base import Attacker
from attackers.selection import Poisoned
from bench.core.example import Example
from defenders.base import Defender
from tests.engine.conftest import Tiny

HERE = "tests.engine.test_oracle"


@dataclass(frozen=True, kw_only=True)
class Told(Defender):
    """Flag what is poisoned when told, nothing otherwise."""

    name = "told"
    told: bool = True

    @property
    def oracle(self) -> bool:
        """Whether it is told."""
        return self.told

    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[int]:
        """Return the flags that it sees."""
        assert not self.told or {label for _, label, flag in poison_data if flag} == {1}
        return [example.poisoned for example in poison_data]


@dataclass(frozen=True)
class Peeks(Defender):
    """Remove the training rows that it sees to be poisoned, without gradients."""

    name = "peeks"
    pre = True
    correction = True

    @torch.no_grad()
    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[Example]:
        """Return the rows whose flag is 0."""
        return [row for row in poison_data if not row[2]]


@dataclass(frozen=True)
class Unguarded(Peeks):
    """The same, given its method only after the guards were set."""

    name = "unguarded"


Unguarded.correct = Peeks.correct.__wrapped__


@dataclass(frozen=True)
class Forgets(Attacker):
    """Put one poisoned row behind the clean ones without saying where it comes from."""

    name = "forgets"

    @property
    def selection(self) -> str:
        """Name its rule."""
        return "one row"

    def pins(self) -> dict[str, str]:
        """Depend on something outside."""
        return {"elsewhere": "version 7"}

    def poison_training(self, examples: Sequence[Example], rows: Any = None) -> Poisoned:
        """Add the row."""
        return Poisoned((*examples, Example("cf", 1, 1)), (), (*range(len(examples)), None), 0)

    def poison_heldout(self, split: str, examples: Sequence[Example], rows: Any = None) -> Poisoned:
        """Poison the first row of class 0."""
        return Poisoned((Example("cf", 1, 1),), (), (None,), 2)


def records(tiny: Tiny) -> list[dict]:
    return [json.loads(path.read_text()) for path in (tiny.out / "records").glob("*.json")]


def test_an_oracle_sees_the_flags_and_its_record_says_so(tiny: Tiny) -> None:
    assert not tiny.run(tiny.plan(defenders=[f"{HERE}:Told", f"{HERE}:Told(told=false)"])).failed
    found = {record["cell"]["defense"]["options"]["told"]: record for record in records(tiny)}
    assert found[True]["oracle"] is True and found[False]["oracle"] is False
    assert [found[True]["metrics"][rate]["value"] for rate in ("frr", "far")] == [0.0, 0.0]
    assert [found[False]["metrics"][rate]["value"] for rate in ("frr", "far")] == [0.0, 1.0]


@pytest.mark.parametrize("name", ["Peeks", "Unguarded"])
def test_a_cleanser_that_looks_for_flags_removes_nothing(tiny: Tiny, name: str) -> None:
    assert not tiny.run(tiny.plan(defenders=[f"{HERE}:{name}"])).failed
    (record,) = records(tiny)
    assert record["oracle"] is False
    assert record["cleansed"] == {"removed": 0, "removed_poisoned": 0}


def test_rows_of_unknown_source_have_no_positions_and_no_floor(tiny: Tiny) -> None:
    plan = tiny.plan(attacks=[f"{HERE}:Forgets"], defenders=["vanilla"])
    (cell,) = plan.cells.values()
    assert cell.attack.pins["elsewhere"] == "version 7"
    assert not tiny.run(plan).failed
    (record,) = records(tiny)
    poison = {"rule": "mix", "rows": 1, "positions": None, "dropped": 0, "selection": "one row", "training_rows": 49}
    assert record["poison"] == poison
    assert record["metrics"]["asr_floor"] is None and record["asr_floor_missing"]
    assert record["metrics"]["asr"]["n"] == 1
