"""A fuzz target: valid inputs, their mutation, and a reader that checks its result.

A reader raises `WrongError` if a result is invalid; all other errors are judged by `fuzz.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.robustness.mutations import mutate_bytes, mutate_tree


class WrongError(Exception):
    """A reader accepted an invalid input, or misread an input."""


@dataclass(frozen=True)
class Target:
    """A reader and its inputs.

    Attributes:
        file: path of the input file, below a temporary folder.
        sound: generates an input that must be accepted.
        mutated: generates a damaged input.
        read: reads the input, given the folder.
    """

    file: str
    sound: Callable[[random.Random], bytes]
    mutated: Callable[[random.Random], bytes]
    read: Callable[[Path], object]


def structured(file: str, trees: list[Any], write: Callable[[Any], bytes], read: Callable[[Path], object]) -> Target:
    """A target whose inputs are nested containers, mutated as containers, as bytes, or both."""

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
    """Raise `WrongError` unless a condition holds."""
    if not holds:
        raise WrongError(what)
