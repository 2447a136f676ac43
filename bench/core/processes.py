"""Worker processes that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import re
import threading
from collections.abc import Mapping


def _libc() -> str:
    """Return the name and version of the C library, such as `glibc 2.36`; empty where it does not say."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):  # no glibc
        return ""


def _kept_pages(libc: str) -> dict[str, str]:
    """Return what lets a worker keep freed pages, where the C library takes it.

    glibc gives large blocks back at once, so that every step of a full training meets its gradients' pages anew: an
    eighth of its time. Read when a process starts, so it acts on those that are started from here, not on this one.
    Before 2.35 glibc refuses a threshold above 32 MiB and keeps its low one for good: worse than to say nothing.
    """
    found = re.fullmatch(r"glibc (\d+)\.(\d+).*", libc)
    if not found or (int(found[1]), int(found[2])) < (2, 35):
        return {}
    return {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


# A neighbour that spins while it waits costs a factor of ten; one thread each makes numbers repeat.
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    **_kept_pages(_libc()),
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
