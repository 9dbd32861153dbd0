"""A reader that is fuzzed: sound inputs, how they are mutated, and what reads them and checks the result.

A reader raises `WrongError` where it returned something that it must never return; everything else that it raises is
judged by `fuzz.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.robustness.mutations import mutate_bytes, mutate_tree


class WrongError(Exception):
    """A reader accepted what it must refuse, or made something else of it."""


@dataclass(frozen=True)
class Target:
    """A reader with what it reads.

    Attributes:
        file: where the input stands, below a folder of its own.
        sound: draws an input that must be accepted.
        mutated: draws a damaged one.
        read: reads it, given the folder.
    """

    file: str
    sound: Callable[[random.Random], bytes]
    mutated: Callable[[random.Random], bytes]
    read: Callable[[Path], object]


def structured(file: str, trees: list[Any], write: Callable[[Any], bytes], read: Callable[[Path], object]) -> Target:
    """A target whose inputs are containers, mutated as such, as bytes, or both."""

    def mutated(rng: random.Random) -> bytes:
        tree = rng.choice(trees)
        kind = rng.random()
        data = write(mutate_tree(rng, tree) if kind < 0.7 else tree)
        return mutate_bytes(rng, data) if kind > 0.5 else data

    return Target(file, lambda rng: write(rng.choice(trees)), mutated, read)


def plain(file: str, inputs: Callable[[random.Random], bytes], read: Callable[[Path], object]) -> Target:
    """A target whose inputs are bytes."""
    return Target(file, inputs, lambda rng: mutate_bytes(rng, inputs(rng)), read)


def check(holds: bool, what: str) -> None:
    """Raise `WrongError` where something does not hold."""
    if not holds:
        raise WrongError(what)
