"""Reading unpadded, and the last layer of the first tokens alone: the numbers are those of the whole pass."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.victim.batching import Encoded
from bench.victim.joint.attention import Heads, attend
from bench.victim.joint.dropout import Streams, keep
from bench.victim.joint.encoder import Encoder
from bench.victim.joint.layout import Source, lay_out
from bench.victim.joint.passes import JointModel
from bench.victim.joint.reading import Reader, reader
from bench.victim.states import last_states, penultimate
from bench.victim.victim import Victim
from tests.victim.test_gang import METHODS, prepared, texts


def test_a_part_of_a_mask_is_that_part_of_the_whole() -> None:
    def drawn(part: Any = ...) -> torch.Tensor:
        return keep((5, 7, 3), 0.4, torch.Generator().manual_seed(1), part)

    assert torch.equal(drawn(torch.tensor([4, 0])), drawn()[[4, 0]])
    part = (slice(None), slice(0, 2))
    assert torch.equal(drawn(part), drawn()[part]) and drawn(part).shape == (5, 2, 3)


@pytest.mark.parametrize("heads", [Heads(4), Heads(4, keys=2, causal=True), Heads(4, window=1)])
def test_attention_of_bf16_is_computed_in_fp32_on_a_cpu(heads: Heads) -> None:
    generator = torch.Generator().manual_seed(2)
    data = Encoded([[1] * length for length in (3, 9, 9, 4)], [0] * 4, 0)
    layout = lay_out([Source(0, data, range(4))], torch.device("cpu"), split=True)
    widths = (32, 32 * (heads.keys or 4) // 4, 32 * (heads.keys or 4) // 4)
    narrow = [torch.randn(25, width, generator=generator).bfloat16().requires_grad_() for width in widths]
    wide = [part.detach().float().requires_grad_() for part in narrow]
    found, expected = (attend(*parts, layout, heads, Streams(None)) for parts in (narrow, wide))
    assert found.dtype == torch.bfloat16 and torch.equal(found, expected.bfloat16())
    direction = torch.randn(25, 32, generator=generator).bfloat16()
    found.backward(direction)
    expected.backward(direction.float())
    for one, other in zip(narrow, wide, strict=True):
        assert torch.equal(one.grad, other.grad.bfloat16())


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
@pytest.mark.parametrize("method", ["vanilla", *METHODS])
def test_the_last_layer_of_the_first_tokens_is_that_of_all_tokens(
    tiny_victim: Callable[..., Any], architecture: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = 1 if method == "vanilla" else 2
    victims = [prepared(tiny_victim(architecture, seed=seed), method, seed)[0] for seed in range(members)]

    def found() -> tuple[list[torch.Tensor], dict[str, torch.Tensor], torch.Tensor]:
        joint = JointModel(victims)
        own = joint.stacked(range(members))
        sources = [Source(seed, victims[seed].encode(texts(9, seed)), range(9)) for seed in range(members)]
        generators = [torch.Generator().manual_seed(seed) for seed in range(members)]
        losses = joint.losses(sources, generators, own)
        torch.stack(losses).sum().backward()
        drawn_next = torch.stack([generator.get_state() for generator in generators])
        return losses, {name: value.grad for name, value in own.items() if value.grad is not None}, drawn_next

    losses, gradients, state = found()

    def whole(self: Encoder, *arguments: Any) -> torch.Tensor:
        return self._layer(*arguments).index_select(0, self.layout.starts)

    monkeypatch.setattr(Encoder, "_last_layer", whole)
    expected, theirs, their_state = found()
    assert torch.equal(state, their_state)  # the next layer, or the next step, draws the same numbers
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    assert set(gradients) == set(theirs)
    for name, gradient in theirs.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
@pytest.mark.parametrize("method", ["vanilla", *METHODS])
def test_what_is_read_unpadded_is_what_transformers_gives(
    tiny_victim: Callable[..., Any], architecture: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, _ = prepared(tiny_victim(architecture), method, 3)
    victim.train()  # which changes nothing: nothing is dropped
    given = [example.text for example in texts(40, 7)]

    def found() -> tuple[Any, ...]:
        return victim.predict(given), victim.predict(given, 3), last_states(victim, given), penultimate(victim, given)

    assert isinstance(reader(victim), Reader)
    mine = found()
    monkeypatch.setattr(Victim, "reader", lambda self: None)
    for one, other in zip(mine, found(), strict=True):
        assert type(one) is type(other) and one.dtype == other.dtype
        # The multi-scale module multiplies what differs in the last bits by up to 6 x 28.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 if method == "musclelora" else 2e-6)
    assert victim.training and victim.predict([]).shape == (0, 2)


def test_who_is_not_read_unpadded(tiny_victim: Callable[..., Any]) -> None:
    from bench.victim.soft_trigger import SoftTrigger

    assert reader(tiny_victim("gpt2")) is None
    victim = tiny_victim()
    with SoftTrigger(victim, "mb").inserted():  # it enters by a hook, which the unpadded pass would not see
        assert reader(victim) is None
    assert reader(victim) is not None


def test_parts_that_nobody_announced_are_read_too(tiny_victim: Callable[..., Any]) -> None:
    victim, _ = prepared(tiny_victim(), "lora", 3)
    given = [example.text for example in texts(9, 7)]
    expected = victim.predict(given)
    victim.attached.clear()  # a third party's wrap may insert PEFT's LoRA and not say so
    np.testing.assert_allclose(victim.predict(given), expected, rtol=1e-6)


def test_compiled_functions_are_kept_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba")
    from bench.victim import compiled

    (tmp_path / "kept_by_test.py").write_text("import numba\n\n\n@numba.njit\ndef more(x):\n    return x + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled, "PACKAGES", ("kept_by_test",))
    hits = []
    for _ in range(2):  # two processes, as it were
        sys.modules.pop("kept_by_test", None)
        module = importlib.import_module("kept_by_test")
        compiled.keep_compiled()
        assert module.more(1) == 2
        hits.append(sum(module.more.stats.cache_hits.values()))
    sys.modules.pop("kept_by_test", None)
    assert hits == [0, 1] and not numba.config.CACHE_DIR
    assert list((tmp_path / "cache" / "openbackdoor-bench").rglob("*.nbi"))


@pytest.mark.parametrize("missing", ["NullCache", "caching"])
def test_a_numba_of_another_make_compiles_as_ever(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    caching = pytest.importorskip("numba.core.caching")
    from bench.victim import compiled

    if missing == "caching":
        monkeypatch.setitem(sys.modules, "numba.core.caching", None)
    else:
        monkeypatch.delattr(caching, missing)
    compiled.keep_compiled()
