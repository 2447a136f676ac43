"""Fixtures: the published data where BENCH_DATA names it, and a small folder in the published layout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.data.files import sha256
from bench.data.spec import DatasetSpec


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of the published data; the test is skipped where there is none."""
    folder = os.environ.get("BENCH_DATA")
    if not folder:
        pytest.skip("BENCH_DATA is not set")
    return Path(folder)


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., DatasetSpec]:
    """A function that writes files (path -> text) under `tmp_path` and returns a spec with their pins."""

    def make(files: dict[str, str], **fields: object) -> DatasetSpec:
        pins = {}
        for path, text in files.items():
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text.encode("utf-8"))
            pins[path] = sha256(text.encode("utf-8"))
        known = {split: f"{split}.tsv" for split in ("train", "dev", "test") if f"{split}.tsv" in files}
        defaults = {"name": "small", "format": "quoted-tsv", "classes": ("no", "yes"), "files": known, "pins": pins}
        return DatasetSpec(**{**defaults, **fields})

    return make
