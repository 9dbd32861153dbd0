"""Shared by the benchmarks: measuring in turns, Markdown tables, and a description of the machine."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch

from mmib.base.revision import revision

PACKAGES = ("torch", "pytorch-lightning", "transformers", "timm")


class Spread(NamedTuple):
    """Median, minimum and maximum of repeated measurements."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


class Clock:
    """Seconds since `start`, after the device has finished its work."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.began = 0.0

    def start(self) -> None:
        """Start the clock."""
        self.began = self._now()

    def seconds(self) -> float:
        """Seconds since the start."""
        return self._now() - self.began

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def spread(values: Sequence[float]) -> Spread:
    """Compute median and range."""
    return Spread(statistics.median(values), min(values), max(values))


def in_turns(
    measures: Mapping[str, Callable[[], float]], repeats: int, progress: Callable[[str], None] = lambda line: None
) -> dict[str, list[float]]:
    """Run each measure `repeats` times, one round of all measures after the other, so that drift affects all alike.

    Args:
        measures: measures by name.
        repeats: number of rounds.
        progress: receives a line per measurement.
    """
    found: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(1, repeats + 1):
        for name, measure in measures.items():
            found[name].append(measure())
            progress(f"  round {number} of {repeats}, {name}: {found[name][-1]:.3g}")
    return found


def to_standard_error(line: str) -> None:
    """Print progress, separate from the tables on standard output."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 for products and convolutions of float32 numbers on a GPU."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    _set_tf32("high" if allowed else "highest", allowed)
    try:
        yield
    finally:
        _set_tf32(*before)


def _set_tf32(products: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def best_device() -> torch.device:
    """The GPU if available, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine(device: torch.device | None = None) -> str:
    """One line: processor, number of threads, current load, GPU, versions."""
    device = device or best_device()
    load = f"load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores"
    parts = [_processor(), f"{torch.get_num_threads()} threads", load]
    if device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{', '.join(parts)}; Python {platform.python_version()}, {versions}, mmib {revision()}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    text = information.read_text(encoding="utf-8") if information.is_file() else ""
    names = {line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")}
    return ", ".join(sorted(names)) or platform.processor() or platform.machine()
