"""The phases of a training: validation is not part of it, and what follows both is neither."""

from __future__ import annotations

from typing import Any

import pytest

from mmib.base import timing
from mmib.base.timing import PhaseClock
from mmib.callbacks import phases
from mmib.callbacks.phases import PhaseTimes


def test_validation_during_training_and_test_after_it_are_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(phases, "clock", clock := PhaseClock())
    callback = PhaseTimes()
    nothing: Any = None
    hooks = (
        *(callback.on_train_start, callback.on_validation_start, callback.on_validation_end, callback.on_train_end),
        *(callback.on_test_start, callback.on_test_end),
    )
    for seconds, hook in enumerate(hooks, start=1):
        now[0] += seconds
        hook(nothing, nothing)
    # 1 before the training, 2 and 4 in it, 3 in validation, 5 in between, 6 in the test.
    assert clock.seconds() == {"set-up": 6.0, "training": 6.0, "evaluation": 9.0}
