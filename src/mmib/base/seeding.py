"""Random numbers that depend on where in a run they are sampled, and on no state that would have to be saved."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def run_seed() -> int:
    """The seed given to `seed_everything`, or that of torch where there was none."""
    return int(os.environ.get("PL_GLOBAL_SEED", torch.initial_seed()))


def seed_from(*keys: object) -> int:
    """A seed of 63 bits for what keys name, such as seed, rank and step; unrelated to those of other keys."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, keys)).encode()).digest()[:8]) >> 1


@contextmanager
def seeded(*keys: object) -> Iterator[None]:
    """Seeds what torch, on the CPU, and Python sample in here by `seed_from`; outside nothing changes."""
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_from(*keys))
            random.seed(seed_from(*keys))
            yield
    finally:
        random.setstate(state)
