"""How much of a GPU one worker may take, and that nothing but a GPU is bounded."""

from __future__ import annotations

from typing import Any

import pytest

from bench.commands import memory_plan
from bench.commands.run import Request, memory_of_a_worker
from bench.core.errors import RequestError
from bench.engine.bounded import bounded

GIGABYTE = 1e9


@pytest.mark.parametrize(
    ("memory", "workers", "devices", "expected"),
    [
        ("40GB", None, ["cuda:0"], 40.0),
        ("40GB", 4, ["cuda:0"], 10.0),  # four workers share one GPU
        ("40GB", 3, ["cuda:0", "cuda:1"], 20.0),  # one of the two has two of them
        (None, None, ["cuda:0"], 80.0),  # 80 % of 100
    ],
)
def test_workers_share_the_memory_of_their_gpu(
    monkeypatch: pytest.MonkeyPatch, memory: str | None, workers: int | None, devices: list[str], expected: float
) -> None:
    monkeypatch.setattr(memory_plan, "_device", lambda: ("GPU", 100 * GIGABYTE))
    request = Request("demo", memory=memory, workers=workers)
    assert memory_of_a_worker(request, devices) == pytest.approx(expected * GIGABYTE)


def test_machines_elsewhere_are_bounded_by_what_is_said_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "_device", lambda: ("machine", 10 * GIGABYTE))  # of the one that plans
    away = {"engine": "slurm", "device": "cuda"}
    assert memory_of_a_worker(Request("demo", **away), ["cuda:0"]) is None
    assert memory_of_a_worker(Request("demo", memory="40GB", workers=8, **away), ["cuda:0"]) == 40 * GIGABYTE
    with pytest.raises(RequestError, match="has 2 sizes"):
        memory_of_a_worker(Request("demo", memory="24GB,80GB"), ["cuda:0"])


def test_a_cpu_is_not_bounded() -> None:
    assert memory_of_a_worker(Request("demo"), ["cpu"]) is None
    with pytest.raises(RequestError, match="bounds a GPU"):
        memory_of_a_worker(Request("demo", memory="4GB"), ["cpu"])
    with bounded("cpu", 1.0), bounded("cuda:0", None):
        pass


def test_a_bound_is_set_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    shares: list[tuple[float, Any]] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: type("Gpu", (), {"total_memory": 80})())
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: shares.append((share, device))
    )
    with pytest.raises(RuntimeError, match="stop"), bounded("cuda:1", 20.0):
        raise RuntimeError("stop")
    assert shares == [(0.25, "cuda:1"), (1.0, "cuda:1")]
