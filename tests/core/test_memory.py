"""Out of memory: the same work with smaller batches, then an error that says so."""

from __future__ import annotations

import pytest
import torch

from bench.core import memory
from bench.core.errors import CellError


def test_work_is_tried_again_with_batches_cut_until_it_fits() -> None:
    seen, cleared = [], []

    def work() -> str:
        seen.append((memory.cut(), memory.part_size(10)))
        if memory.part_size(10) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    assert memory.with_smaller_batches(work, lambda: cleared.append(1)) == ("done", 4)
    assert seen == [(1, 10), (2, 5), (4, 3)] and len(cleared) == 2
    assert memory.cut() == 1


def test_what_never_fits_is_an_error_of_the_cell_with_a_remedy() -> None:
    def work() -> None:
        raise MemoryError

    with pytest.raises(CellError, match="Memory ran out, even with batches cut into 16 parts: MemoryError.") as caught:
        memory.with_smaller_batches(work, lambda: None)
    assert "model.batch_size" in caught.value.remedy


def test_memory_that_really_runs_out_is_recognised_and_other_errors_pass() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)  # an exbibyte
    assert memory.is_out_of_memory(caught.value)
    assert not memory.is_out_of_memory(RuntimeError("shapes do not match"))
    # What torch 2.13 said under `ulimit -v 1500000`, and what it says of a kind of number that a kernel does not take.
    assert memory.is_out_of_memory(RuntimeError("could not create a primitive"))
    assert memory.is_out_of_memory(RuntimeError("unable to mmap 90868376 bytes: Cannot allocate memory (12)"))
    assert not memory.is_out_of_memory(RuntimeError("could not create a primitive descriptor for a matmul primitive"))
    with pytest.raises(ZeroDivisionError):
        memory.with_smaller_batches(lambda: 1 // 0, lambda: None)
