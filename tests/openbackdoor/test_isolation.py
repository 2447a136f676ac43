"""Options read off a constructor, and what its code may do while it runs; the package is not needed."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional  # noqa: UP035  (as its constructors are annotated)

import numpy as np
import pytest
import torch

from bench.core.errors import CellError, RequestError
from bench.core.options import build
from bench.openbackdoor.isolation import isolated
from bench.openbackdoor.options import constructor_arguments, constructor_fields, options_class
from defenders.base import Defender


class Theirs:
    """Annotated as OpenBackdoor's classes are."""

    def __init__(
        self,
        words: Optional[List[str]] = ["a", "b"],  # noqa: B006, UP006, UP045
        scale: Optional[float] = 1,  # noqa: UP045
        count: Optional[int] = 2,  # noqa: UP045
        cached: Optional[bool] = True,  # noqa: UP045
        path: Optional[str] = "here",  # noqa: UP045
        config: Optional[Dict] = {"name": "cagm"},  # noqa: B006, UP006, UP045
        **kwargs: Any,
    ) -> None:
        self.got = {"words": words, "scale": scale, "count": count, "cached": cached, "path": path, **kwargs}


def test_the_parameters_of_a_constructor_become_options() -> None:
    assert constructor_fields(Theirs, ("path",)) == [
        ("words", tuple[str, ...], ("a", "b")),
        ("scale", float, 1),
        ("count", int, 2),
        ("cached", bool, True),
    ]


def test_they_are_validated_and_handed_back_as_the_code_wants_them() -> None:
    cls = options_class("openbackdoor:x", Defender, Theirs, ("path",), "About.")
    made = build(cls, {"words": ["c"], "scale": 2}, "defender", "openbackdoor:x")
    assert dataclasses.is_dataclass(cls) and cls.name == "openbackdoor:x" and made == cls(words=("c",), scale=2.0)
    assert made.identity() == {"words": ["c"], "scale": 2.0, "count": 2, "cached": True}
    arguments = constructor_arguments(made)
    assert arguments == {"words": ["c"], "scale": 2.0, "count": 2, "cached": True}
    assert Theirs(**arguments).got["words"] == ["c"]
    for wrong, problem in (
        ({"count": None}, "count is None"),
        ({"path": "x"}, "named 'path'"),
        ({"cached": 1}, "is 1"),
    ):
        with pytest.raises(RequestError, match=problem):
            build(cls, wrong, "defender", "openbackdoor:x")


def test_what_runs_isolated_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm" / "config.json").write_text("{}")
    root = logging.getLogger()
    before = (random.getstate(), torch.get_rng_state().tolist(), list(root.handlers), root.level, sys.stdout, os.system)
    drawn = []
    for _ in range(2):
        with isolated(5, "cpu", {"gpt2": Path("lm")}) as folder:
            assert Path.cwd() == folder.resolve() and (folder / "gpt2" / "config.json").is_file()
            os.makedirs("models/x")
            os.environ["THEIRS"] = "1"
            root.handlers = []
            root.setLevel(logging.DEBUG)
            print("not seen", file=sys.stdout)
            drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1] and not folder.exists() and Path.cwd() == tmp_path
    after = (random.getstate(), torch.get_rng_state().tolist(), list(root.handlers), root.level, sys.stdout, os.system)
    assert after == before and "THEIRS" not in os.environ
    assert sorted(item.name for item in tmp_path.iterdir()) == ["lm"]


def test_everything_is_given_back_after_an_error_and_the_shell_is_refused() -> None:
    before = (random.getstate(), np.random.get_state()[1].tolist(), os.getcwd(), os.system)
    with pytest.raises(CellError, match="wants to run 'bash download.sh'"), isolated(5):
        os.system("bash download.sh")
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), os.getcwd(), os.system)
