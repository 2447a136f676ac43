"""Tiny victims for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.core.example import Example
from bench.victim.spec import ModelSpec, model_spec
from tests.tiny import tiny_model


@pytest.fixture
def tiny_spec(tmp_path_factory: Any) -> Callable[..., ModelSpec]:
    """Return a maker of specs: `tiny_spec("bert", epochs=2)`."""

    def make(architecture: str = "bert", **options: Any) -> ModelSpec:
        folder: Path = tiny_model(tmp_path_factory, architecture)
        return model_spec(str(folder), {"batch_size": 4, "epochs": 2, "learning_rate": 1e-3, **options})

    return make


@pytest.fixture
def tiny_victim(tiny_spec: Callable[..., ModelSpec]) -> Callable[..., Any]:
    """Return a maker of victims: `tiny_victim("bert", seed=1, epochs=2)`."""

    def make(architecture: str = "bert", *, seed: int = 0, classes: int = 2, **options: Any) -> Any:
        from bench.victim.loading import load_victim

        return load_victim(tiny_spec(architecture, **options), classes, seed=seed)

    return make


@pytest.fixture
def reviews() -> list[Example]:
    """Return 10 labelled texts of different lengths."""
    words = ("the film is good", "a dull mess", "what a warm and moving story", "we hate it", "i like it")
    return [Example(f"{words[row % 5]} {'very ' * row}", row % 2) for row in range(10)]
