"""What the folders of finished stages hold: examples as JSON lines, predictions as plain arrays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.core.example import Example


class Numbered(NamedTuple):
    """Examples and, for each, the number of its row in the source."""

    examples: tuple[Example, ...]
    rows: tuple[int, ...]


def write_examples(path: Path, examples: Iterable[Example], rows: Iterable[int]) -> None:
    """Write one JSON array a line: text, label, poison flag, row."""
    with path.open("w", encoding="utf-8", errors="surrogatepass") as stream:
        for (text, label, poisoned), row in zip(examples, rows, strict=True):
            stream.write(json.dumps([text, label, poisoned, row], ensure_ascii=False) + "\n")


def read_examples(path: Path) -> Numbered:
    """Return the examples that `write_examples` wrote."""
    with path.open(encoding="utf-8", errors="surrogatepass") as stream:
        lines = [json.loads(line) for line in stream]
    return Numbered(
        tuple(Example(text, label, poisoned) for text, label, poisoned, _ in lines), tuple(line[3] for line in lines)
    )


def read_meta(folder: Path) -> dict[str, Any]:
    """Return what a stage says of itself."""
    return json.loads((folder / "meta.json").read_text("utf-8"))


def write_arrays(path: Path, arrays: dict[str, Sequence | np.ndarray]) -> None:
    """Write named arrays of numbers; nothing is pickled."""
    with path.open("wb") as stream:
        np.savez(stream, **{name: np.asarray(values) for name, values in arrays.items()})


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays that `write_arrays` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
