"""What makes a number repeat is set for the length of a stage, and given back."""

from __future__ import annotations

import os

import pytest
import torch

from bench.engine.repeatable import CUBLAS, repeatable


def test_a_stage_on_a_cpu_runs_on_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    with repeatable("cpu", False):
        assert torch.get_num_threads() == 1 and not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def test_deterministic_forbids_kernels_that_vary_and_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CUBLAS, raising=False)
    with pytest.raises(ZeroDivisionError), repeatable("cpu", True):
        assert torch.are_deterministic_algorithms_enabled() and os.environ[CUBLAS] == ":4096:8"
        raise ZeroDivisionError
    assert not torch.are_deterministic_algorithms_enabled() and CUBLAS not in os.environ
