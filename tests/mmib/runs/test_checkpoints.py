"""Checkpoints are loaded without executing code, and refused in one sentence."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from mmib.datamodules.released import TWITTER
from mmib.labels import LabelSet
from mmib.runs.checkpoints import (
    CHECKPOINT_LABELS_KEY,
    CHECKPOINT_TASK_KEY,
    check_labels,
    open_checkpoint,
    run_of,
)
from mmib.schema import CheckpointError


class Trap:
    """Executes code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("code of a checkpoint was run",)


def test_the_run_of_a_checkpoint_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.chdir(tmp_path / "checkpoints")
    assert run_of(Path("best.ckpt")) == tmp_path.resolve()


def test_the_content_of_a_checkpoint_is_returned(tmp_path: Path) -> None:
    torch.save({CHECKPOINT_TASK_KEY: "mre", "state_dict": {"a": torch.ones(2)}}, tmp_path / "a.ckpt")
    content = open_checkpoint(tmp_path / "a.ckpt", "mre")
    assert content["state_dict"]["a"].tolist() == [1.0, 1.0]
    with pytest.raises(CheckpointError, match="made by the task 'mre', this configuration is for 'mner'"):
        open_checkpoint(tmp_path / "a.ckpt", "mner")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps(Trap())])
def test_a_damaged_checkpoint_is_refused_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged .*; buy another"):
        open_checkpoint(tmp_path / "a.ckpt", "mre", lambda: "; buy another")


def test_non_finite_weights_are_refused(tmp_path: Path) -> None:
    weights = {"a": torch.zeros(2), "b": torch.tensor([1.0, float("nan")])}
    torch.save({CHECKPOINT_TASK_KEY: "mre", "state_dict": weights}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="not finite, b and maybe others"):
        open_checkpoint(tmp_path / "a.ckpt", "mre")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*a\.ckpt"):
        open_checkpoint(tmp_path / "a.ckpt", "mre")


def test_checkpoints_of_other_projects_are_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="made by something else"):
        open_checkpoint(tmp_path / "a.ckpt", "mre")


def test_a_different_label_set_is_refused_and_both_shown() -> None:
    content = {CHECKPOINT_TASK_KEY: "mner", CHECKPOINT_LABELS_KEY: LabelSet(("A", "B")).to_dict()}
    check_labels(content, LabelSet(("A", "B")), "it")
    with pytest.raises(
        CheckpointError, match=r"it was trained on other labels .*2 labels, A, B against 2 labels, B, A"
    ):
        check_labels(content, LabelSet(("B", "A")), "it")


def test_checkpoints_of_version_0_1_have_the_released_labels() -> None:
    check_labels({CHECKPOINT_TASK_KEY: "mner"}, TWITTER, "it")
    with pytest.raises(CheckpointError, match="PER, LOC, ORG, MISC against 4 labels, A, B, C, D"):
        check_labels({CHECKPOINT_TASK_KEY: "mner"}, LabelSet(("A", "B", "C", "D")), "it")
