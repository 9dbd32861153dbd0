"""Find where a device waits for its host: kernels, gaps between them, and operations that make the host wait.

Kernels and gaps come from a trace of PyTorch's profiler. Operations that make the host wait (reading a number from a
tensor, indexing with a boolean mask, copying to the host) are intercepted where the code calls them, so they are found
on a CPU too; those inside the backward pass are only in the trace.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parents[2]
DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
HOST_WORK = ("cpu_op",)
SYNCHRONIZING_CALLS = ("cudaStreamSynchronize", "cudaEventSynchronize")
aten = torch.ops.aten
# The size of their results depends on values.
DATA_DEPENDENT = (aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten._local_scalar_dense)
INDEXED = (aten.index, aten.index_put, aten.index_put_)


@dataclass
class Trace:
    """The work of a device over several steps.

    Attributes:
        milliseconds: duration of a step, from the start of the first kernel to the end of the last.
        kernels: kernels per step.
        busy: share of the time with a running kernel.
        longest_gap: longest time without a kernel, in milliseconds.
        synchronizations: synchronisations of the host with the device per step.
        heaviest: names of kernels with their share of the busy time.
    """

    milliseconds: float
    kernels: float
    busy: float
    longest_gap: float
    synchronizations: float
    heaviest: list[tuple[str, float]]


def trace(call: Callable[[], object], steps: int, device: torch.device) -> Trace:
    """Profile a call that runs `steps` steps; on a CPU, the outermost operations count as kernels."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    return read_trace(events, steps, DEVICE_WORK if device.type == "cuda" else HOST_WORK)


def read_trace(events: Sequence[dict[str, Any]], steps: int, categories: Sequence[str]) -> Trace:
    """Summarise the events of a trace of `steps` steps.

    Raises:
        ValueError: there are no events of these categories.
    """
    spans = [(e["ts"], e["ts"] + e["dur"], e["name"]) for e in events if e.get("cat") in categories]
    work = sorted(spans, key=lambda span: (span[0], -span[1]))  # an event before those within it
    if not work:
        raise ValueError(f"the trace holds no events of {', '.join(categories)}: the profiler has no access to them")
    time_of: Counter[str] = Counter()
    outermost, busy, longest, reached = 0, 0.0, 0.0, work[0][0]
    for start, end, name in work:
        if end <= reached:  # within another one
            continue
        outermost += 1
        longest = max(longest, start - reached)
        busy += end - max(start, reached)
        time_of[name] += end - max(start, reached)
        reached = end
    waits = sum(e.get("name") in SYNCHRONIZING_CALLS for e in events)
    whole = reached - work[0][0]
    heaviest = [(name, time / busy) for name, time in time_of.most_common(5)]
    return Trace(whole / 1e3 / steps, outermost / steps, busy / whole, longest / 1e3, waits / steps, heaviest)


class HostReads(TorchDispatchMode):
    """Counts the operations whose values the host must wait for, by location in the repository.

    Attributes:
        places: number of occurrences, by `file:line operation`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See `TorchDispatchMode`."""
        if reads_values(func, args, kwargs or {}):
            self.places[f"{_place()} {func.overloadpacket.__name__}"] += 1
        return func(*args, **(kwargs or {}))


def reads_values(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the host waits for the values of an operation's arguments."""
    packet = func.overloadpacket
    if packet in INDEXED:
        return any(index is not None and index.dtype == torch.bool for index in args[1])
    if packet is aten._to_copy:
        target = torch.device(kwargs.get("device") or args[0].device)
        return target.type == "cpu" and args[0].device.type != "cpu" and not kwargs.get("non_blocking")
    return packet in DATA_DEPENDENT


def _place() -> str:
    """File and line of the innermost frame in the repository, relative to its root; else of the innermost frame."""
    frame = sys._getframe(2)
    innermost = frame
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(f"{ROOT}{os.sep}") and f"{os.sep}site-packages{os.sep}" not in file:
            return f"{Path(file).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return f"{Path(innermost.f_code.co_filename).name}:{innermost.f_lineno}"
