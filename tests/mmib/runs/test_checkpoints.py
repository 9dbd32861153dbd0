"""Checkpoints are written whole, opened without running code, and refused in one sentence."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from mmib.runs.checkpoints import CHECKPOINT_TASK_KEY, WholeCheckpoints, open_checkpoint
from mmib.schema import CheckpointError


class Trap:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("code of a checkpoint was run",)


def test_what_a_checkpoint_holds_is_given_back(tmp_path: Path) -> None:
    torch.save({CHECKPOINT_TASK_KEY: "mre", "state_dict": {"a": torch.ones(2)}}, tmp_path / "a.ckpt")
    content = open_checkpoint(tmp_path / "a.ckpt", "mre")
    assert content["state_dict"]["a"].tolist() == [1.0, 1.0]
    with pytest.raises(CheckpointError, match="made by the task 'mre', this configuration is for 'mner'"):
        open_checkpoint(tmp_path / "a.ckpt", "mner")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps(Trap())])
def test_a_damaged_checkpoint_is_refused_with_its_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged .*; buy another"):
        open_checkpoint(tmp_path / "a.ckpt", "mre", lambda: "; buy another")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*a\.ckpt"):
        open_checkpoint(tmp_path / "a.ckpt", "mre")


def test_what_is_no_checkpoint_of_this_project_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="made by something else"):
        open_checkpoint(tmp_path / "a.ckpt", "mre")


# What is written


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.ckpt"
    WholeCheckpoints().save_checkpoint({"state_dict": {"a": torch.arange(5)}}, path)
    assert torch.load(path, weights_only=True)["state_dict"]["a"].tolist() == [0, 1, 2, 3, 4]
    assert [file.name for file in path.parent.iterdir()] == ["x.ckpt"]


def test_a_full_disk_leaves_the_checkpoint_before(small_disk: Path) -> None:
    path, files = small_disk / "x.ckpt", WholeCheckpoints()
    files.save_checkpoint({"a": torch.zeros(10)}, path)
    with pytest.raises(CheckpointError, match=rf"{path} cannot be written: .*No space left.*still there"):
        files.save_checkpoint({"a": torch.zeros(100_000)}, path)
    assert len(torch.load(path, weights_only=True)["a"]) == 10
    assert [file.name for file in small_disk.iterdir()] == ["x.ckpt"]


def test_where_no_file_can_be_made_the_error_says_so(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()
    path = tmp_path / "checkpoints" / "x.ckpt"
    with pytest.raises(CheckpointError, match=rf"the checkpoint {path} cannot be written: .*checkpoints"):
        WholeCheckpoints().save_checkpoint({}, path)
