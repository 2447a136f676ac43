"""Randomness as an argument: every generator derives from what it is for, never from global state."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import numpy as np

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(*parts: Any) -> str:
    """Return the sha256 of the canonical JSON of `parts`, as 64 hexadecimal digits."""
    return hashlib.sha256(_CANONICAL.encode(parts).encode("utf-8", "surrogatepass")).hexdigest()


def derived_seed(identity: Any, name: str) -> int:
    """Return a seed in [0, 2**63) that depends on nothing but the identity and the name."""
    return int(digest("seed", identity, name)[:16], 16) >> 1


def python_rng(seed: int, name: str) -> random.Random:
    """Return a `random.Random` for one named use of a seed."""
    return random.Random(derived_seed(seed, name))


def numpy_rng(seed: int, name: str) -> np.random.Generator:
    """Return a numpy generator for one named use of a seed."""
    return np.random.default_rng(derived_seed(seed, name))
