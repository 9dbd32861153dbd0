"""All ranks of a job end together, and the cause is named; real jobs are tested with the commands."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.exceptions import SIGTERMException

from mmib.callbacks import shutdown
from mmib.callbacks.shutdown import LostRank, OrderlyEnd
from mmib.schema import JobError

MODULE: Any = SimpleNamespace(device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def job(accumulates: bool = False, fn: TrainerFn = TrainerFn.FITTING) -> Any:
    """A trainer stub with the attributes these callbacks use."""
    return SimpleNamespace(
        _signal_connector=SimpleNamespace(received_sigterm=False),
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(_should_accumulate=lambda: accumulates)),
        state=SimpleNamespace(fn=fn),
        strategy=SimpleNamespace(launcher=None),
        default_root_dir="runs/x/1",
    )


def test_sigterm_ends_training_after_a_complete_step() -> None:
    callback, within, after = OrderlyEnd(), job(accumulates=True), job()
    callback.setup(within, MODULE, "fit")
    callback.on_train_batch_end(after, MODULE, None, None, 0)
    assert not after._signal_connector.received_sigterm, "nobody asked"
    signal.raise_signal(signal.SIGTERM)
    for trainer in (within, after):
        callback.on_train_batch_end(trainer, MODULE, None, None, 0)
    assert not within._signal_connector.received_sigterm, "its step is not done"
    assert after._signal_connector.received_sigterm


def test_sigterm_ends_scoring_but_a_validation_during_training_is_completed() -> None:
    callback = OrderlyEnd()
    callback.setup(job(), MODULE, "test")
    signal.raise_signal(signal.SIGTERM)
    callback.on_validation_batch_end(job(), MODULE, None, None, 0)
    for fn in (TrainerFn.VALIDATING, TrainerFn.TESTING):
        with pytest.raises(SIGTERMException):
            callback.on_test_batch_end(job(fn=fn), MODULE, None, None, 0)


def test_the_child_that_broke_the_connection_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = [SimpleNamespace(poll=lambda: None), SimpleNamespace(poll=lambda: 9, returncode=9)]
    monkeypatch.setattr(shutdown, "starts_ranks", lambda _: True)
    monkeypatch.setattr(shutdown, "started_ranks", lambda _: ended)
    with pytest.raises(
        JobError, match=r"rank 2 \(status 9\) of this job ended.* mmib fit --config runs/x/1/config.yaml"
    ):
        LostRank().on_exception(job(), MODULE, RuntimeError("Connection closed by peer"))


@pytest.mark.parametrize("error", [RuntimeError("a shape"), KeyboardInterrupt()])
def test_errors_are_unchanged_if_all_ranks_are_alive(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setattr(shutdown, "LOST_RANK_S", 0.2)
    monkeypatch.setattr(shutdown, "starts_ranks", lambda _: True)
    monkeypatch.setattr(shutdown, "started_ranks", lambda _: [SimpleNamespace(poll=lambda: None)])
    LostRank().on_exception(job(), MODULE, error)


def test_a_child_names_the_first_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "started_by_first_rank", lambda: True)
    callback = LostRank()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(JobError, match=r"rank 0 of this job ended"):
        callback.on_exception(job(), MODULE, RuntimeError("Connection reset by peer"))
