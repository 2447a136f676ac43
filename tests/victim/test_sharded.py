"""A training spread over ranks against the same training in one process: real processes, gloo, tiny random models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.core.errors import CellError
from bench.victim.sharded.group import Group
from bench.victim.sharded.model import layers, shard
from bench.victim.training import train
from tests.tiny import tiny_model
from tests.victim.ranks import ROWS, SEED, SELECTION, Asked, loaded, trained_by

STEPS = {"batch_size": 4, "epochs": 3, "learning_rate": 1e-3}
# Sums of floats in another order, through 12 steps of Adam, each of which moves a weight by up to 1e-3.
FASTER = {"learning_rate": 1e-2, "checkpointing": True}
TOLERANCE = {"rtol": 0.0, "atol": 2e-5}


@pytest.mark.slow
def test_ranks_train_what_one_process_trains(tmp_path: Path, tmp_path_factory: Any) -> None:
    """Every trained tensor, the losses and the selection, with an uneven last batch and ranks without a row.

    Without dropout (the plain head) by 2 and by 3 ranks, with checkpointing, and with batches cut for want of memory.
    """
    asked = Asked(str(tiny_model(tmp_path_factory, "llama")), {**STEPS, "head": "plain"})
    victim = loaded(asked)
    before = {name: value.detach().clone() for name, value in victim.kept().items()}
    log = train(victim, ROWS, SELECTION, seed=SEED)
    again = Asked(asked.folder, {**asked.options, "checkpointing": True})
    found = [
        *trained_by(2, [asked, again, Asked(asked.folder, asked.options, parts=4)], tmp_path / "two"),
        *trained_by(3, [asked], tmp_path / "three"),
    ]
    whole = sum(value.numel() for value in before.values())
    assert [told["held"] / whole for told, _ in found] == pytest.approx([1 / 2, 1 / 2, 1 / 2, 1 / 3], rel=0.03)
    for told, tensors in found:
        assert set(tensors) == set(before)
        for name, value in victim.kept().items():
            assert not torch.equal(value, before[name]), f"{name} did not train"
            torch.testing.assert_close(tensors[name], value.detach(), **TOLERANCE)
        assert told["selection"] == list(log.selection) and told["best"] == log.best
        assert told["losses"] == pytest.approx(log.losses, abs=1e-5)
        assert (told["steps"], told["trainable_parameters"]) == (log.steps, log.trainable_parameters)


@pytest.mark.slow
def test_dropout_does_not_depend_on_the_number_of_ranks(tmp_path: Path, tmp_path_factory: Any) -> None:
    """The paper's head has dropout, GPT-2 all over; where attention has it too, each rank draws its own."""
    llama = Asked(str(tiny_model(tmp_path_factory, "llama")), {**STEPS, "head": "paper"})
    plain = Asked(llama.folder, {**STEPS, "head": "plain"})
    gpt2 = Asked(str(tiny_model(tmp_path_factory, "gpt2")), {**STEPS, **FASTER})
    narrow = Asked(llama.folder, {**STEPS, "head": "paper", **FASTER}, "bf16")
    one = trained_by(1, [llama, plain], tmp_path / "one")
    two = trained_by(2, [llama, gpt2, narrow], tmp_path / "two")
    for name, value in one[0][1].items():
        torch.testing.assert_close(two[0][1][name], value, **TOLERANCE)
    assert one[0][0]["losses"] != one[1][0]["losses"]
    for log, tensors in two[1:]:
        assert all(bool(torch.isfinite(value).all()) for value in tensors.values())
        assert log["losses"][-1] < log["losses"][0]


@pytest.mark.parametrize(("count", "size", "expected"), [(5, 2, [3, 2]), (4, 2, [2, 2]), (1, 3, [1, 0, 0])])
def test_rows_are_dealt_once_and_evenly(count: int, size: int, expected: list[int]) -> None:
    dealt = [Group(rank, size, torch.device("cpu")).deal(count) for rank in range(size)]
    assert [len(rows) for rows in dealt] == expected
    assert [row for rows in dealt for row in rows] == list(range(count))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bert", "modernbert"])
def test_layers_are_the_transformer_s(architecture: str, tmp_path_factory: Any) -> None:
    victim = loaded(Asked(str(tiny_model(tmp_path_factory, architecture)), {}))
    assert len(layers(victim)) == victim.model.config.num_hidden_layers


def test_a_partly_frozen_model_is_refused(tmp_path_factory: Any) -> None:
    victim = loaded(Asked(str(tiny_model(tmp_path_factory, "llama")), {}))
    victim.word_embedding.requires_grad_(False)
    with pytest.raises(CellError, match="embed_tokens.weight of model 'llama' does not train"):
        shard(victim, Group(0, 2, torch.device("cpu")))
