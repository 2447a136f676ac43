"""Digests and generators: known values, so that no identity ever changes unnoticed, and no global state."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest

from bench.core.seeding import derived_seed, digest, numpy_rng, python_rng

# Worked out with sha256sum over the canonical JSON beside each; changing one makes every stored result an orphan.
KNOWN = [
    ((), "[]", "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"),
    ((1,), "[1]", None),
    ((1.0, 0.1, 1e-05), "[1.0,0.1,1e-05]", None),
    (("a", None, True), '["a",null,true]', None),
    (({"b": 1, "a": [2, (3,)]},), '[{"a":[2,[3]],"b":1}]', None),
    (("Ünïcode 漢",), '["Ünïcode 漢"]', None),
]


@pytest.mark.parametrize(("parts", "text", "known"), KNOWN, ids=lambda item: str(item)[:20])
def test_a_digest_is_the_sha256_of_canonical_json(parts: tuple, text: str, known: str | None) -> None:
    assert digest(*parts) == hashlib.sha256(text.encode("utf-8")).hexdigest()
    assert known is None or digest(*parts) == known


def test_a_digest_knows_int_from_float_and_order_only_of_lists() -> None:
    assert digest(1) != digest(1.0) and digest("1") != digest(1) and digest(True) != digest(1)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1]) and digest("a", "b") != digest("ab") != digest(["a", "b"])


def test_a_digest_takes_lone_surrogates_and_refuses_what_is_no_json() -> None:
    assert digest("\ud800") == hashlib.sha256(b'["\xed\xa0\x80"]').hexdigest()
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest(float("nan"))
    with pytest.raises(TypeError):
        digest({1, 2})


def test_a_seed_is_63_bits_of_the_digest() -> None:
    text = '["seed","cell","positions"]'
    whole = int(hashlib.sha256(text.encode()).hexdigest()[:16], 16)
    assert derived_seed("cell", "positions") == whole // 2 == 3899193953706013012


def test_generators_depend_on_seed_and_name_alone() -> None:
    drawn = [python_rng(0, "positions").random() for _ in range(2)]
    assert drawn == [0.7519942214051159] * 2
    assert numpy_rng(0, "positions").integers(0, 10**6) == numpy_rng(0, "positions").integers(0, 10**6)
    others = {python_rng(seed, name).random() for seed in (0, 1) for name in ("positions", "train")}
    assert len(others) == 4 and drawn[0] in others


def test_no_global_generator_is_touched() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist()
    python_rng(3, "x").random()
    numpy_rng(3, "x").random(5)
    digest("x")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_global_seeds_do_not_reach_in() -> None:
    random.seed(1)
    first = python_rng(3, "x").random()
    random.seed(2)
    assert python_rng(3, "x").random() == first
