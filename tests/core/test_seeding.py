"""Digests and generators: known values, so that no identity ever changes unnoticed, and no global state."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest

from bench.core.seeding import derived_seed, digest, numpy_rng, python_rng

# By `printf '%s' JSON | sha256sum`, the JSON beside each; changing one makes every stored result an orphan.
KNOWN = [
    ((), "[]", "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"),
    ((1,), "[1]", "080a9ed428559ef602668b4c00f114f1a11c3f6b02a435f0bdc154578e4d7f22"),
    ((1.0, 0.1, 1e-05), "[1.0,0.1,1e-05]", "3ea9a28ff5fba67276068d38273ed5bd28b4aa0094ddf86b5b4d9c6fac236cea"),
    (("a", None, True), '["a",null,true]', "129fb74e081f0a455e9a63db196398ed9bd9f61bc7aa88805623360cd53027f3"),
    (
        ({"b": 1, "a": [2, (3,)]},),
        '[{"a":[2,[3]],"b":1}]',
        "d436880bf92a9ad4eea328f51c875687e533ffcf44ebcd191c6fe5ef1857b62a",
    ),
    (("Ünïcode 漢",), '["Ünïcode 漢"]', "be5ec175af073c0b2228ad10b99fd0b135003f43985cd556ee3756a718ee3ae6"),
]


@pytest.mark.parametrize(("parts", "text", "known"), KNOWN, ids=lambda item: str(item)[:20])
def test_a_digest_is_the_sha256_of_canonical_json(parts: tuple, text: str, known: str) -> None:
    assert digest(*parts) == hashlib.sha256(text.encode("utf-8")).hexdigest() == known


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
    assert derived_seed("cell", "positions") == whole // 2 == 5721486960428039737


def test_generators_depend_on_seed_and_name_alone() -> None:
    drawn = [python_rng(0, "positions").random() for _ in range(2)]
    assert drawn == [0.6910940192401818] * 2
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
