"""How many cores a process may use."""

from __future__ import annotations

import os

import pytest

from mmib.base.cores import allowed_cores


def test_cores_are_those_that_the_process_may_use_where_the_system_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert allowed_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert allowed_cores() == 64
