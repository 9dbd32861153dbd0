"""The number of cores that a process may use."""

from __future__ import annotations

import os

import pytest

from mmib.base.cores import allowed_cores


def test_cores_are_limited_by_cpu_affinity_if_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert allowed_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert allowed_cores() == 64
