"""A share of a GPU's memory for one process: what asks for more runs out, and is tried again smaller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bounded(device: str, memory: float | None) -> Iterator[None]:
    """Let this process take at most `memory` bytes of a GPU within the block; nothing on a CPU, or without a bound."""
    if memory is None or not device.startswith("cuda"):
        yield
        return
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, memory / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
