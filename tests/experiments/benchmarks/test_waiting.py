"""Traces are parsed correctly, and operations that make the host wait are located."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from experiments.benchmarks.waiting import DEVICE_WORK, HostReads, read_trace, trace


def event(name: str, start: float, duration: float, category: str = "kernel") -> dict[str, Any]:
    return {"ph": "X", "name": name, "cat": category, "ts": start, "dur": duration}


def test_gaps_are_times_without_any_kernel() -> None:
    events = [
        event("copy", 1000, 100, "gpu_memcpy"),
        event("product", 1200, 300),
        event("beside it", 1300, 100),  # on another stream
        event("overlapping", 1400, 200),
        event("product", 1900, 100),
        event("cudaStreamSynchronize", 900, 2000, "cuda_runtime"),
        event("aten::mm", 0, 9000, "cpu_op"),
        {"ph": "M", "name": "process_name"},
    ]
    found = read_trace(events, steps=2, categories=DEVICE_WORK)
    assert found.milliseconds == 0.5
    assert found.kernels == 2  # one is nested in another
    assert found.busy == pytest.approx(0.6)
    assert found.longest_gap == pytest.approx(0.3)
    assert found.synchronizations == 0.5
    assert dict(found.heaviest) == pytest.approx({"product": 4 / 6, "copy": 1 / 6, "overlapping": 1 / 6})


def test_a_trace_without_kernels_is_reported() -> None:
    with pytest.raises(ValueError, match="no events of kernel, gpu_memcpy, gpu_memset"):
        read_trace([event("aten::mm", 0, 9, "cpu_op")], 1, DEVICE_WORK)


def test_cpu_operations_are_traced() -> None:
    left = torch.randn(64, 64)
    found = trace(lambda: [left @ left for _ in range(3)], 3, torch.device("cpu"))
    assert found.kernels == 1
    assert 0 < found.busy <= 1
    assert found.heaviest[0][0] == "aten::matmul"


def test_values_read_by_the_host_are_counted_by_location() -> None:
    numbers = torch.arange(4.0)
    with HostReads() as reads:
        total = numbers.sum()
        assert float(total) == 6
        assert total.item() == 6
        _ = numbers[numbers > 1], numbers[torch.tensor([0])], numbers.nonzero()
    operations = sorted(place.split()[1] for place in reads.places.elements())
    assert operations == ["_local_scalar_dense", "_local_scalar_dense", "index", "nonzero"]
    assert all(place.startswith("tests/experiments/benchmarks/test_waiting.py:") for place in reads.places)
