"""The cores that this process may use."""

from __future__ import annotations

import os


def allowed_cores() -> int:
    """Return the number of cores that this process may use: a batch system may allow fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
