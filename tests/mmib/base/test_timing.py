"""The clock of phases: every second belongs to one phase, and nested phases are subtracted from their parents."""

from __future__ import annotations

import pytest

from mmib.base import timing
from mmib.base.timing import PhaseClock, duration


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, advanced by the test."""
    time = [100.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: time[0])
    return time


def test_each_second_counts_for_the_innermost_phase(now: list[float]) -> None:
    clock = PhaseClock()
    now[0] += 1
    with clock.phase("training"):
        now[0] += 10
        with clock.phase("evaluation"):
            now[0] += 4
        now[0] += 20
    now[0] += 2
    with clock.phase("evaluation"):
        now[0] += 5
    assert clock.seconds() == {"set-up": 3.0, "training": 30.0, "evaluation": 9.0}
    clock.restart()
    now[0] += 7
    assert clock.seconds() == {"set-up": 7.0}


def test_an_error_ends_its_phase(now: list[float]) -> None:
    clock = PhaseClock()

    @clock.phase("training")
    def broken() -> None:
        now[0] += 2
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    now[0] += 1
    assert clock.seconds() == {"set-up": 1.0, "training": 2.0}


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (45.2, "45 s"), (160, "2 min 40 s")])
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text
