"""What makes a number repeat whatever engine or machine load: one thread on a CPU, and on request exact GPU kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def repeatable(device: str, deterministic: bool) -> Iterator[None]:
    """Run a block on one thread if the device is a CPU; `deterministic` forbids kernels whose result varies.

    Sums over several threads are taken in another order than over one. All settings are given back.
    """
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    workspace, benchmark = os.environ.get(CUBLAS), torch.backends.cudnn.benchmark
    if deterministic:
        os.environ[CUBLAS] = ":4096:8"
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        if device == "cpu":
            with threadpool_limits(1):
                torch.set_num_threads(1)
                yield
        else:
            yield
    finally:
        if device == "cpu":
            torch.set_num_threads(threads)
        if deterministic:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.backends.cudnn.benchmark = benchmark
            if workspace is None:
                os.environ.pop(CUBLAS, None)
            else:
                os.environ[CUBLAS] = workspace
