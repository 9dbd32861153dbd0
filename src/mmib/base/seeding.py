"""Seeds derived from keys such as rank and step, so that no random state has to be saved."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def run_seed() -> int:
    """Return the seed of `seed_everything`, or torch's initial seed if there is none."""
    return int(os.environ.get("PL_GLOBAL_SEED", torch.initial_seed()))


def seed_from(*keys: object) -> int:
    """Return a 63-bit seed for keys such as seed, rank and step, independent of the seeds of other keys."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, keys)).encode()).digest()[:8]) >> 1


@contextmanager
def seeded(*keys: object) -> Iterator[None]:
    """Return a context in which torch, on the CPU, and Python are seeded by `seed_from`; their states are restored."""
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_from(*keys))
            random.seed(seed_from(*keys))
            yield
    finally:
        random.setstate(state)
