"""Checking a data folder against every pin, and which of two allowed files stands in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.data.catalog import dataset_names, dataset_spec
from bench.data.files import git_blob, sha256
from bench.data.spec import DatasetSpec

OK, MISSING, ALTERED = "ok", "missing", "altered"


def _published() -> Iterator[DatasetSpec]:
    for name in dataset_names():
        spec = dataset_spec(name)
        if spec.files:
            yield spec


def verify(data_dir: Path) -> list[tuple[str, str]]:
    """Return (path relative to the folder, "ok" | "missing" | "altered") for every pinned file, sorted by path.

    A file that cannot be read counts as missing; a published original in place of a rebuilt file is "ok".
    """
    pins: dict[str, str] = {}
    originals: dict[str, str] = {}
    for spec in _published():
        pins.update(spec.pins)
        originals.update(spec.originals)
    return [(path, state_of(Path(data_dir) / path, pins[path], originals.get(path))) for path in sorted(pins)]


def state_of(path: Path, pin: str, original: str | None) -> str:
    """Return whether a file is "ok" (its sha256 is the pin, or its git blob id the original's), "missing" or "altered".

    A file that cannot be read counts as missing.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return MISSING
    return OK if sha256(content) == pin or git_blob(content) == original else ALTERED


def pins_in_force(spec: DatasetSpec, data_dir: Path | None) -> dict[str, str]:
    """Return path -> sha256 of the files a load would read: the pins, or the published originals that stand there.

    Reads only files that have a published original; a file that cannot be read keeps its pin.
    """
    pins = dict(spec.pins)
    for path, original in spec.originals.items():
        try:
            content = (Path(data_dir) / path).read_bytes() if data_dir is not None else b""
        except OSError:
            continue
        if git_blob(content) == original:
            pins[path] = sha256(content)
    return pins
