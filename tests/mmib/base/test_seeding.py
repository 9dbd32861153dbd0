"""Random numbers that depend on the position in a run."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys

import pytest
import pytorch_lightning as pl
import torch

from mmib.base.seeding import run_seed, seed_from, seeded


def test_equal_keys_have_equal_seeds_and_different_keys_different_ones() -> None:
    keys = list(itertools.product(range(5), range(10), range(100)))
    seeds = [seed_from(*key) for key in keys]
    assert seeds == [seed_from(*key) for key in keys]
    assert len(set(seeds)) == len(keys)


def test_concatenated_keys_do_not_collide() -> None:
    assert len({seed_from(1, 23), seed_from(12, 3), seed_from(123), seed_from(1, 2, 3), seed_from(3, 2, 1)}) == 5


def test_seeds_are_valid_for_torch() -> None:
    seeds = [seed_from(0, rank, step) for rank in range(4) for step in range(250)]
    assert min(seeds) >= 0
    assert 2**60 < max(seeds) < 2**63, "all of the 63 bits are in use"
    torch.manual_seed(max(seeds))


def test_neighbouring_keys_give_uncorrelated_numbers() -> None:
    draws = torch.stack([torch.randn(400, generator=torch.Generator().manual_seed(seed_from(1, n))) for n in range(20)])
    correlations = torch.corrcoef(draws) - torch.eye(20)
    assert float(correlations.abs().max()) < 5 / 400**0.5


def test_a_seed_is_the_same_in_every_process() -> None:
    """Python's own hash differs between processes."""
    code = "from mmib.base.seeding import seed_from; print(seed_from(1, 'train', 7))"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        assert int(process.stdout) == seed_from(1, "train", 7)


def test_the_seed_of_a_run_is_that_of_seed_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "")
    monkeypatch.delenv("PL_GLOBAL_SEED")
    torch.manual_seed(17)
    assert run_seed() == 17
    pl.seed_everything(5, verbose=False)
    torch.rand(3)
    torch.manual_seed(99)
    assert run_seed() == 5, "drawing and seeding in between change nothing"


def draw() -> tuple[float, float]:
    """A random number from Python and one from torch; timm's transforms use both."""
    return random.random(), torch.rand(1).item()


def test_samples_depend_only_on_the_keys() -> None:
    drawn = []
    for key in ((1, 2), (1, 2), (1, 3)):
        draw()
        with seeded(*key):
            drawn.append(draw())
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[2][0]
    assert drawn[0][1] != drawn[2][1]


def test_sampling_does_not_change_the_global_random_state() -> None:
    def fail() -> None:
        draw()
        raise ZeroDivisionError

    def outside(inner: bool) -> list[tuple[float, float]]:
        random.seed(4)
        torch.manual_seed(4)
        numbers = [draw()]
        if inner:
            with seeded(9):
                draw()
            with pytest.raises(ZeroDivisionError), seeded(9):
                fail()
        return [*numbers, draw()]

    assert outside(inner=True) == outside(inner=False)
