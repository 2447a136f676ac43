"""Every defense of the folder, in a real run of tiny cells: it sees no poison flag, and gives back what it was lent."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.core.registry import DEFENDERS, names
from bench.engine import plugins
from bench.engine.executors.inline import InlineExecutor
from bench.engine.expand import expand
from bench.engine.grid import Grid
from bench.engine.plan import make_plan
from bench.engine.runner import Runner
from bench.engine.work import Machine
from bench.victim.victim import Victim
from defenders import base
from defenders.base import Defender
from tests.tiny import tiny_model

LENT = ("correct", "detect", "suspicion", "questions")
ACTING = (*LENT, "repair", "hooks", "wrap")
DECORATED = tuple(f"tests.defenders.decorated:{name}" for name in ("Removes", "Rewrites", "Flags"))
# Cheaper than what a study would take; the same code.
OPTIONS: dict[str, dict[str, Any]] = {
    "onion": {"lm": "local"},
    "cube": {"victim": "shared"},
    "rap": {"epochs": 1},
    "fine-mixing": {"epochs": 1, "grid": [0.5]},
    "fine-mixing-sel": {"epochs": 1, "grid": [0.5]},
    "fine-pruning": {"epochs": 1, "grid": [0.5]},
    "fine-pruning-f": {"epochs": 1, "grid": [0.5]},
    "fine-tuning": {"epochs": 1},
}


def examples_in(value: Any) -> list[Any]:
    """Return every example inside what was handed to a defense."""
    if isinstance(value, tuple) and len(value) == 3 and isinstance(value[0], str):
        return [value]
    if hasattr(value, "clean") and hasattr(value, "calibration"):
        return examples_in([*value.clean, *value.calibration])
    if isinstance(value, dict):
        return [found for item in value.values() for found in examples_in(item)]
    if isinstance(value, (list, tuple)):
        return [found for item in value for found in examples_in(item)]
    return []


@pytest.mark.slow
@pytest.mark.parametrize("name", [*names(DEFENDERS), *DECORATED])
def test_a_defense_sees_no_flag_and_changes_nothing_that_it_was_lent(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = type(plugins.construct(DEFENDERS, name, OPTIONS.get(name, {})))
    seen: list[tuple[str, int, bool]] = []

    def watched(method: str) -> Any:
        guarded = getattr(cls, method)
        # What the defense itself wrote, decorators included, behind the guard.
        plain = guarded.__wrapped__ if base.is_guarded(guarded) else guarded

        @contextmanager
        def noted(self: Any, arguments: Any, given: Any) -> Iterator[None]:
            handed = examples_in([list(arguments), dict(given), self.__dict__.get("_knowledge")])
            victims = [value for value in (*arguments, *given.values()) if isinstance(value, Victim)]
            lent = victims if method in LENT else []
            before = [victim.fingerprint() for victim in lent]
            try:
                yield
            finally:  # also where it gives up with a reason
                kept = before == [victim.fingerprint() for victim in lent]
                seen.append((method, sum(example[2] != 0 for example in handed), kept))

        def act(self: Any, *arguments: Any, **given: Any) -> Any:
            with noted(self, arguments, given):
                return plain(self, *arguments, **given)

        def ask(self: Any, *arguments: Any, **given: Any) -> Any:
            with noted(self, arguments, given):
                return (yield from plain(self, *arguments, **given))

        seeing = ask if inspect.isgeneratorfunction(plain) else act
        return base._guarded(seeing) if plain is not guarded else seeing

    for method in ACTING:
        if getattr(cls, method) is not getattr(Defender, method):
            monkeypatch.setattr(cls, method, watched(method))
    settings = {"model.max_steps": 2, "model.batch_size": 8}
    choice = {"name": name, **OPTIONS.get(name, {})}
    model = str(tiny_model(tmp_path_factory, "bert"))
    grid = Grid(datasets=["demo"], attacks=["badnets"], models=[model], defenders=[choice], limit=64, set=settings)
    runner = Runner(make_plan(expand([grid])), tmp_path, {"device": "cpu"})
    report = runner.run(InlineExecutor(tmp_path / "store", Machine(None)), runner.todo())
    (record,) = [json.loads(path.read_text()) for path in (tmp_path / "records").glob("*.json")]
    # On 64 rows and 2 steps a cleanser or a detector may rightly give up; that is a failed record with its reason.
    assert report.done == 1 or record["error"]["type"] == "CellError", record["error"]
    assert all(flags == 0 for _, flags, _ in seen), seen
    assert all(kept for _, _, kept in seen), seen
    stages = plugins.construct(DEFENDERS, name, OPTIONS.get(name, {})).stages()
    assert seen or not stages - {"train"}
