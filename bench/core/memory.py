"""Running out of memory: the same work again with its batches cut into more and more parts, then an error."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from bench.core.errors import CellError

CUTS = (1, 2, 4, 8, 16)  # into how many parts a batch is cut, one after the other
ALLOCATORS = ("DefaultCPUAllocator", "Cannot allocate memory")  # torch's, and the system's under a limit
ONEDNN = ("could not create a primitive", "could not create a memory object")  # what its CPU kernels then say, no more
_cut: ContextVar[int] = ContextVar("cut", default=1)
Result = TypeVar("Result")


def cut() -> int:
    """Return into how many parts batches have to be cut: 1 while memory suffices."""
    return _cut.get()


def part_size(size: int) -> int:
    """Return the size that stays of a batch (rows, or padded tokens) once it is cut; at least 1."""
    return max(1, -(-size // _cut.get()))


@contextmanager
def cut_into(parts: int) -> Iterator[None]:
    """Cut batches into that many parts within the block: what another process has found to be needed."""
    token = _cut.set(parts)
    try:
        yield
    finally:
        _cut.reset(token)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out: Python's own, a GPU's, that of torch on a CPU."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    said = str(error).strip()
    return isinstance(error, RuntimeError) and (said in ONEDNN or any(name in said for name in ALLOCATORS))


def free() -> None:
    """Give back what is no longer used, on a GPU too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def with_smaller_batches(work: Callable[[], Result], clear: Callable[[], None]) -> tuple[Result, int]:
    """Return what `work` returns and the cut that it took; after each failure `clear` undoes what it left.

    Raises:
        CellError: memory does not suffice for batches cut into 16 parts.
    """
    reason = ""
    for parts in CUTS:
        token = _cut.set(parts)
        try:
            return work(), parts
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        finally:
            _cut.reset(token)
        clear()  # here, where the error no longer holds on to the frames and their tensors
        free()
    raise CellError(
        f"Memory ran out, even with batches cut into {CUTS[-1]} parts: {reason.rstrip('.')}.",
        "Lower model.batch_size or model.max_length, take a smaller model, run with fewer --workers, or use a GPU.",
    )
