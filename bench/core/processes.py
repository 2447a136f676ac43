"""Worker processes that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Mapping

# A neighbour that spins while it waits costs a factor of ten; one thread each makes numbers repeat.
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # glibc gives large blocks back at once, so that every step of a full training meets its gradients' pages anew: an
    # eighth of its time. Read when a process starts, so it acts on those that are started from here, not on this one.
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}


def settle(environment: Mapping[str, str] = ENVIRONMENT) -> None:
    """Set this worker's environment, before it imports torch, and let it end when its parent does, killed or not."""
    os.environ.update(environment)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)  # a pool's worker waits for its next task for ever otherwise
