"""The analysis on real tiny models: texts as points, when it looks, and its series against all pairs at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.analysis.filtering import GaussianFilter, low_parts
from bench.analysis.texts import Embedding, TextPoints
from bench.analysis.watchers.fourier import Fourier, FourierWatcher, rounded
from bench.core.example import Example
from tests.tiny import tiny_victim

TEXTS = ["good", "the film is bad and we hate it", "a warm story", "what a cold , dull and empty mess it is", "fine"]


def flat(victim: Any, texts: list[str]) -> torch.Tensor:
    """Return each text embedded on its own, without padding, then zeros up to the longest."""
    encoded = victim.encode_texts(texts)
    rows = []
    with torch.inference_mode():
        for place in range(len(encoded)):
            rows.append(victim.embeddings(encoded.batch([place]).inputs)[0].double().flatten())
    longest = max(len(row) for row in rows)
    return torch.stack([torch.nn.functional.pad(row, (0, longest - len(row))) for row in rows])


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert", "gpt2", "llama"])
def test_a_text_is_its_real_tokens_whatever_stands_beside_it(
    architecture: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tiny_victim(tmp_path_factory, architecture)
    matrix, columns = flat(victim, TEXTS), torch.arange(10.0).view(5, 2)
    kernel = torch.exp(-torch.cdist(matrix, matrix, compute_mode="donot_use_mm_for_euclid_dist") / 8)
    direct = kernel / kernel.sum(1, keepdim=True) @ columns.double()
    victim.train()  # dropout must not reach the kernel
    encoded = victim.encode_texts(TEXTS)
    for size in (2**27, 1):  # one block, and a block for each text
        monkeypatch.setattr("bench.analysis.texts.BLOCK_BYTES", size)
        points = TextPoints(encoded, range(5), Embedding(victim))
        assert len(points.blocks) == (1 if size > 1 else 5)
        (found,) = low_parts(points, columns, [GaussianFilter("released", 4.0)])
        assert torch.allclose(found.low, direct, atol=1e-5)


def test_the_filter_stays_that_of_the_start(tmp_path_factory: pytest.TempPathFactory) -> None:
    victim = tiny_victim(tmp_path_factory, "bert")
    embedding, encoded = Embedding(victim), victim.encode_texts(TEXTS)
    before = TextPoints(encoded, range(5), embedding).block(0)
    with torch.no_grad():
        for value in victim.trainable().values():
            value.add_(1.0)
    assert torch.equal(TextPoints(encoded, range(5), embedding).block(0), before)
    assert not torch.equal(TextPoints(encoded, range(5), Embedding(victim)).block(0), before)


@pytest.mark.parametrize(
    ("options", "steps", "at"),
    [
        ({"looks": 4}, 8, [0, 2, 4, 6, 8]),
        ({"looks": 20}, 3, [0, 1, 2, 3]),
        ({"looks": 3}, 10, [0, 3, 7, 10]),
        ({"every": 5}, 12, [0, 5, 10, 12]),
        ({"every": 50}, 12, [0, 12]),
    ],
)
def test_when_it_looks(options: dict[str, int], steps: int, at: list[int]) -> None:
    assert sorted(Fourier(**options).steps(steps)) == at


def test_rows_are_drawn_the_same_way_every_time() -> None:
    clean = [Example(f"text {i}", i % 2) for i in range(30)]
    drawn = [Fourier(rows=10).watcher(clean, clean[:20], 2) for _ in range(2)]
    assert drawn[0].clean == drawn[1].clean and len(set(drawn[0].clean)) == 10
    assert len(Fourier(rows=25).watcher(clean, clean[:20], 2).poisoned) == 20
    assert len(Fourier().watcher(clean, clean[:20], 2).clean) == 30


def watched(tmp_path_factory: pytest.TempPathFactory, options: Fourier) -> tuple[FourierWatcher, Any]:
    """Return a watcher after two looks at a tiny victim that changed in between."""
    victim = tiny_victim(tmp_path_factory, "bert")
    clean = [Example(text, place % 2) for place, text in enumerate(TEXTS)]
    poisoned = [Example(f"cf {text} mn", 1, 1) for text in TEXTS[:4]]
    watcher = options.watcher(clean, poisoned, 2)
    for step in (0, 1):
        watcher.on_step(SimpleNamespace(victim=victim, step=step, steps=1, steps_per_epoch=1))
        with torch.no_grad():
            victim.model.classifier.weight.mul_(-3.0)
    return watcher, victim


@pytest.mark.parametrize("over", ["separate", "joint"])
def test_the_series_are_those_of_all_pairs_at_once(over: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    watcher, victim = watched(tmp_path_factory, Fourier(kernels=("released",), quantiles=(0.5,), over=(over,)))
    found = watcher.found()
    assert (found["steps"], found["rows"]) == ([0, 1], {"clean": 5, "backdoor": 4})
    texts = [example.text for example in [*watcher.clean, *watcher.poisoned]]
    truth = np.eye(2)[[example.label for example in [*watcher.clean, *watcher.poisoned]]]
    parts = {"clean": slice(0, 5), "backdoor": slice(5, 9)}
    matrix = flat(victim, texts).numpy()
    shown = 0
    for entry in found["filters"]:
        rows = parts[entry["mapping"]]
        among = rows if over == "separate" else slice(0, 9)
        gaps = np.linalg.norm(matrix[among, None] - matrix[None, among], axis=-1)
        kernel = np.exp(-gaps / (2 * entry["delta"]))
        kernel /= kernel.sum(1, keepdims=True)
        local = slice(0, rows.stop - rows.start) if over == "separate" else rows
        assert entry["self_weight"] == pytest.approx(np.diag(kernel)[local].mean(), rel=1e-4)
        if entry["degenerate"]:
            continue
        shown += 1
        for look, outputs in enumerate(watcher.outputs):
            y, t = outputs[among].astype(float), truth[among]
            size = {
                name: np.linalg.norm(part[local], axis=1).mean()
                for name, part in {
                    "y": y,
                    "low": kernel @ y,
                    "high": y - kernel @ y,
                    "off": kernel @ (y - t),
                    "t": kernel @ t,
                }.items()
            }
            assert entry["lfr"][look] == pytest.approx(size["low"] / size["y"], rel=1e-4)
            assert entry["hfr"][look] == pytest.approx(size["high"] / size["y"], rel=1e-4)
            assert entry["low_error"][look] == pytest.approx(size["off"] / size["t"], rel=1e-4)
        # All poisoned rows have the target as label: among themselves nothing is high in that.
        assert (entry["high_error"] is None) == (over == "separate" and entry["mapping"] == "backdoor")
        assert (entry["note"] is None) == (entry["high_error"] is not None)
    assert shown >= 1


def test_accuracies_are_those_of_the_looks(tmp_path_factory: pytest.TempPathFactory) -> None:
    watcher, _ = watched(tmp_path_factory, Fourier())
    found = watcher.found()["accuracy"]
    labels = np.array([example.label for example in watcher.clean])
    assert found["clean"] == rounded([float((one[:5].argmax(1) == labels).mean()) for one in watcher.outputs])
    assert found["backdoor"] == rounded([float((one[5:].argmax(1) == 1).mean()) for one in watcher.outputs])


def test_a_degenerate_filter_says_so_and_draws_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    watcher, _ = watched(tmp_path_factory, Fourier(kernels=("paper",), deltas=(1e-4, 1e6), quantiles=()))
    entries = watcher.found()["filters"]
    assert len(entries) == 8
    for entry in entries:
        assert entry["degenerate"] == ("identity" if entry["delta"] == 1e-4 else "constant")
        assert entry["lfr"] is entry["low_error"] is None and "nearly" in entry["note"]


def test_rounding_keeps_six_digits_and_everything_that_is_no_float() -> None:
    assert rounded({"a": [1.23456789e-9, 3, None, "x", True]}) == {"a": [1.23457e-9, 3, None, "x", True]}
