"""Hostile clients cause no lost answers for honest ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.benchmarks.serving import posts, service
from experiments.robustness import soak
from mmib.export.folder import write_export
from mmib.export.model import TrainedModel


@pytest.mark.slow
def test_no_honest_request_is_lost_among_hostile_clients(
    make_trained: Callable[..., TrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "HOLD_S", 0.2)
    write_export([make_trained("mner"), make_trained("mre")], tmp_path / "both")
    with service([tmp_path / "both"]) as running:
        alone, beside, grown = soak.soak(running, posts(images=False, entities=False)[:10], clients=5, requests=40)
    assert not alone.lost + beside.lost
    assert len(alone.seconds) + len(beside.seconds) == 40
    assert grown < soak.MEMORY_MB
    assert beside.hostile
    assert not {"500", "504"} & beside.hostile.keys()
