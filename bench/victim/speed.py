"""How fast this machine trains one victim under vanilla, LoRA and MuScleLoRA, and in how much memory."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from bench.core.errors import RequestError, unknown
from bench.core.example import Example
from bench.victim.recipes import AlignmentOptions, LoraOptions, MultiScaleOptions, filled
from bench.victim.spec import ModelSpec

DEFENSES = ("vanilla", "lora", "musclelora")
WARM_UP = 2  # steps before the clock starts


def speed_rows(
    spec: ModelSpec,
    examples: Sequence[Example],
    *,
    defenses: Sequence[str] = DEFENSES,
    steps: int = 20,
    device: str = "cpu",
    precision: str = "fp32",
    threads: int = 1,
) -> list[dict[str, Any]]:
    """Return one row per defense: training samples per second, peak memory in MiB, trainable parameters, steps timed.

    Each is measured in a fresh process of `threads` threads, since a process's peak memory never falls. The batches
    are drawn from `examples`, whose labels must lie in [0, number of labels); no evaluation is timed.

    Raises:
        RequestError: too few examples for one batch, or a defense that is not measured here.
    """
    if len(examples) < spec.batch_size:
        raise RequestError(
            f"{len(examples)} examples make no batch of {spec.batch_size}.", "Measure on a larger training set."
        )
    for name in defenses:
        if name not in DEFENSES:
            raise unknown("defense to measure", name, DEFENSES)
    rows = []
    for name in defenses:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            rows.append(pool.submit(measured, spec, tuple(examples), name, steps, device, precision, threads).result())
    return rows


def measured(
    spec: ModelSpec, examples: Sequence[Example], name: str, steps: int, device: str, precision: str, threads: int
) -> dict[str, Any]:
    """Return the row of one defense, measured in this process, whose thread count is set and given back."""
    import torch

    from bench.victim.training import train

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for count in (WARM_UP, steps):
            per_epoch = len(examples) // spec.batch_size
            timed = dataclasses.replace(spec, max_steps=count, epochs=count // per_epoch + 1)
            victim, hooks = _prepared(timed, examples, name, device, precision)
            log = train(victim, examples, (), seed=0, hooks=hooks)
    finally:
        torch.set_num_threads(before)
    return {
        "name": "ours",
        "defense": name,
        "model": spec.name,
        "precision": precision,
        "device": device,
        "threads": threads,
        "batch_size": spec.batch_size,
        "steps": log.steps,
        "samples_per_second": log.samples_per_second,
        "peak_memory_mb": log.peak_memory_mb,
        "trainable_parameters": log.trainable_parameters,
    }


def _prepared(
    spec: ModelSpec, examples: Sequence[Example], name: str, device: str, precision: str
) -> tuple[Any, tuple[Any, ...]]:
    """Return a fresh victim with the parts of one defense in it, and its hooks."""
    from bench.victim.alignment import GradientAlignment
    from bench.victim.assembly import add_lora, add_multiscale
    from bench.victim.loading import load_victim

    victim = load_victim(spec, max(label for _, label, *_ in examples) + 1, seed=0, device=device, precision=precision)
    if name == "vanilla":
        return victim, ()
    add_lora(victim, filled(LoraOptions(), spec, "released"), seed=0)
    if name == "lora":
        return victim, ()
    add_multiscale(victim, filled(MultiScaleOptions(), spec, "released"), seed=0)
    options = filled(AlignmentOptions(), spec, "released")
    return victim, (GradientAlignment(examples[: options.samples()], options, seed=0),)
