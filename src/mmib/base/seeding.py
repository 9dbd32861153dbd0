"""Random numbers that depend on where in a run they are drawn, and on nothing that would have to be saved."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def run_seed() -> int:
    """The seed given to `seed_everything`, or torch's own where there was none."""
    return int(os.environ.get("PL_GLOBAL_SEED", torch.initial_seed()))


def seed_from(*place: object) -> int:
    """A seed of 63 bits for a place in a run, unrelated to that of any other."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, place)).encode()).digest()[:8]) >> 1


@contextmanager
def seeded(*place: object) -> Iterator[None]:
    """What torch, on the CPU, and Python draw in here is decided by a place in a run; outside nothing changes."""
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_from(*place))
            random.seed(seed_from(*place))
            yield
    finally:
        random.setstate(state)
