"""Ranks of a sharded training as processes forked from one that has imported what they need."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import bench.victim.loading
import bench.victim.sharded.training  # noqa: F401  # here once, not in every rank
from bench.core.example import Example
from bench.core.memory import cut_into

PATIENCE = 300.0
# 13 rows in batches of 4: the last batch is one row, which two of three ranks do without.
TEXTS = ("the film is good and i like it", "the film is bad", "what a warm, clever and moving story", "dull", "good")
ROWS = [Example(TEXTS[place % 5] + " and" * (place % 4), place % 2) for place in range(13)]
SELECTION = [Example(TEXTS[place % 5], place % 2) for place in range(7)]
SEED, HEAD = 5, 3


@dataclasses.dataclass(frozen=True)
class Asked:
    """One training: the model's folder and options, in which precision, and into how many parts batches are cut."""

    folder: str
    options: dict[str, Any]
    precision: str = "fp32"
    parts: int = 1


def loaded(asked: Asked) -> Any:
    """Return the fresh victim of a training."""
    from bench.victim.spec import model_spec

    return bench.victim.loading.load_victim(
        model_spec(asked.folder, asked.options), 2, seed=HEAD, precision=asked.precision
    )


def trained_by(size: int, asked: Sequence[Asked], out: Path) -> list[tuple[dict[str, Any], dict[str, torch.Tensor]]]:
    """Run trainings one after the other on `size` ranks; return the log and the saved tensors of each."""
    from safetensors.torch import load_file

    out.mkdir()
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.victim.ranks"])
    ranks = [context.Process(target=_rank, args=(rank, size, asked, out)) for rank in range(size)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(PATIENCE)
        rank.kill()
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0] * size
    return [
        (torch.load(out / f"{place}.log"), load_file(out / str(place) / "weights.safetensors"))
        for place in range(len(asked))
    ]


def _rank(rank: int, size: int, asked: Sequence[Asked], out: Path) -> None:
    from bench.victim.sharded.group import joined
    from bench.victim.sharded.model import shard, write_whole
    from bench.victim.sharded.training import train_sharded
    from bench.victim.training import Task

    torch.set_num_threads(1)
    with joined(rank, size, "cpu", out / "meeting", PATIENCE) as group:
        for place, one in enumerate(asked):
            victim = loaded(one)
            rows = shard(victim, group)
            with cut_into(one.parts):
                log = train_sharded(Task(victim, ROWS, SELECTION, SEED), group, rows)
            write_whole(victim, group, out / str(place))
            if rank == 0:
                held = sum(value.to_local().numel() for value in victim.parameters())
                torch.save({**log.json(), "held": held}, out / f"{place}.log")
