"""Sentences a second of the defenses that act at inference, each measured in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.core.registry import DEFENDERS
from bench.engine.clean_rows import divide
from bench.victim.contenders import classes
from bench.victim.spec import ModelSpec
from bench.victim.speed import Process, fresh_process

JUDGE = "GPT-2 small's shape"


def inference_rows(
    spec: ModelSpec,
    dev: Sequence[Example],
    texts: Sequence[str],
    *,
    device: str = "cpu",
    threads: int = 1,
    layers: int = 12,
    sample: int = 0,
    process: Process = fresh_process,
) -> list[dict[str, Any]]:
    """Return a row each for ONION and STRIP on the texts: sentences a second, peak memory in MiB.

    Before them stand the rows of `onion_ways` on `sample` of the texts, which are spread evenly; 0: none.
    ONION reads them by a random language model of GPT-2 small's shape (of `layers` layers). STRIP asks an untrained
    victim, whose answers take as long as those of a trained one; its calibration on the rows that the suite gives it
    counts too.

    Raises:
        RequestError: no texts.
        CellError: too few dev rows to calibrate STRIP.
    """
    apart = tuple(texts[len(texts) * place // sample] for place in range(sample)) if sample < len(texts) else texts
    rows: list[dict[str, Any]] = []
    for act, arguments in (
        *([(_ways, (tuple(apart), device, threads, layers))] if sample else []),
        (_onion, (tuple(texts), device, threads, layers)),
        (_strip, (spec, tuple(dev), tuple(texts), device, threads)),
    ):
        with process() as pool:
            rows += pool.submit(act, *arguments).result()
    return rows


def _onion(texts: tuple[str, ...], device: str, threads: int, layers: int) -> list[dict[str, Any]]:
    from bench.victim.inference_speed import onion_speed

    row = onion_speed(texts, device=device, threads=threads, layers=layers)
    return [{**row, "model": JUDGE, **_peak(device)}]


def _ways(texts: tuple[str, ...], device: str, threads: int, layers: int) -> list[dict[str, Any]]:
    from bench.victim.inference_speed import onion_ways

    rows = onion_ways(texts, device=device, threads=threads, layers=layers)
    return [{**row, "model": JUDGE} for row in rows]


def _strip(
    spec: ModelSpec, dev: tuple[Example, ...], texts: tuple[str, ...], device: str, threads: int
) -> list[dict[str, Any]]:
    from bench.core import registry
    from bench.victim.inference_speed import detector_speed
    from bench.victim.loading import load_victim

    count = classes(dev)
    victim = load_victim(spec, count, seed=0, device=device)
    calibration = divide(dev, 0, True, "speed", 0).calibration
    strip = registry.plugin_class(DEFENDERS, "strip")().bound(Knowledge(count, calibration=calibration))
    row = detector_speed(strip, victim, calibration, texts, threads=threads)
    return [{**row, "model": spec.name, "calibration_rows": len(calibration), **_peak(device)}]


def _peak(device: str) -> dict[str, float]:
    import torch

    from bench.victim.progress import peak_memory_mb

    return {"peak_memory_mb": peak_memory_mb(torch.device(device))}
