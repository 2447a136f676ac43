"""What a machine and a data set allow: the matmul peak, the work in a training sample, and what padding adds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from bench.core.example import Example
from bench.core.seeding import derived_seed
from bench.victim.reference import insert_lora, insert_multiscale, plain_victim
from bench.victim.spec import ModelSpec

SIDES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192)}  # of the square matrices that are multiplied
SECONDS = 0.4  # for each size and precision
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def matmul_peak(device: str, precision: str) -> float:
    """Return the most floating-point operations per second of a square matrix product on this device, best of a few."""
    kind = torch.device(device).type
    best = 0.0
    for side in SIDES.get(kind, SIDES["cpu"]):
        left, right = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
        left @ right
        synchronize(device)
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            began = time.perf_counter()
            left @ right
            synchronize(device)
            best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best


def synchronize(device: str) -> None:
    """Wait for what a GPU was given; nothing on a CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def useful_work(spec: ModelSpec, examples: Sequence[Example], name: str) -> float:
    """Return the floating-point operations that training on one example of mean length needs under one defense.

    Counted from the matrix products of one forward and one backward pass of a lone text of that length: no padding, no
    optimizer. Gradient alignment needs a clean example for each training example: twice the work.
    """
    from torch.utils.flop_counter import FlopCounterMode

    victim = plain_victim(spec, 2, seed=0)
    if name != "vanilla":
        insert_lora(victim)
    if name == "musclelora":
        insert_multiscale(victim)
    lengths = token_counts(victim, examples)
    ids = torch.full((1, max(1, round(sum(lengths) / len(lengths)))), victim.tokenizer.unk_token_id or 0)
    with FlopCounterMode(display=False) as counter:
        victim.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum().backward()
    return float(counter.get_total_flops()) * (2 if name == "musclelora" else 1)


def padding(spec: ModelSpec, examples: Sequence[Example]) -> dict[str, float]:
    """Return the mean tokens of an example, the mean longest of a random batch, and their ratio: what padding costs."""
    victim = plain_victim(spec, 2, seed=0)
    lengths = torch.tensor(token_counts(victim, examples), dtype=torch.float64)
    generator = torch.Generator().manual_seed(derived_seed(0, "batches"))
    shuffled = lengths[torch.randperm(len(lengths), generator=generator)]
    batches = shuffled.split(spec.batch_size)
    padded = sum(float(batch.max()) * len(batch) for batch in batches) / len(lengths)
    mean = float(lengths.mean())
    return {"mean_tokens": mean, "mean_padded_tokens": padded, "bound": padded / mean}


def token_counts(victim: Any, examples: Sequence[Example]) -> list[int]:
    """Return the tokens of each example as the victim reads it."""
    texts = [text for text, *_ in examples]
    return [len(ids) for ids in victim.tokenizer(texts, truncation=True, max_length=victim.max_length)["input_ids"]]
