"""A training whose batches are cut because memory ran out takes the same steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.core import memory
from bench.core.example import Example
from bench.victim.joint.passes import JointModel
from bench.victim.training import train
from tests.tiny import tiny_victim

ROWS = [Example(f"row {'word ' * (number % 7)}{number}", number % 2, 0) for number in range(20)]
NO_DROPOUT = {"batch_size": 8, "max_steps": 3}


def trained(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, cuts: int
) -> tuple[dict[str, Any], Any]:
    victim = tiny_victim(tmp_path_factory, "bert", options=NO_DROPOUT)
    for module in victim.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    sizes, losses = [], JointModel.losses

    def noted(joint: JointModel, sources: Any, *rest: Any) -> Any:
        sizes.extend(len(source.rows) for source in sources)
        return losses(joint, sources, *rest)

    monkeypatch.setattr(JointModel, "losses", noted)

    def work() -> Any:
        if memory.cut() < cuts:
            raise MemoryError
        return train(victim, ROWS, [], seed=1)

    log, cut = memory.with_smaller_batches(work, lambda: None)
    assert cut == cuts
    return {name: value.detach().clone() for name, value in victim.trainable().items()}, (log, max(sizes))


def test_cut_batches_take_the_same_steps_in_smaller_pieces(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, (log, largest) = trained(tmp_path_factory, monkeypatch, 1)
    cut, (cut_log, cut_largest) = trained(tmp_path_factory, monkeypatch, 4)
    assert largest > 2 and cut_largest == 2
    assert cut_log.losses == pytest.approx(log.losses, rel=1e-5)
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-3, atol=2e-5)


def test_predictions_do_not_depend_on_the_cut(tmp_path_factory: pytest.TempPathFactory) -> None:
    victim = tiny_victim(tmp_path_factory, "bert")
    texts = [example.text for example in ROWS]

    def work() -> Any:
        if memory.cut() < 8:
            raise MemoryError
        return victim.predict(texts)

    found, _ = memory.with_smaller_batches(work, lambda: None)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(victim.predict(texts)), rtol=1e-5, atol=1e-6)
