"""Checkpoints are written completely, and errors name the location."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmib.runs.checkpoint_io import WholeCheckpoints
from mmib.schema import CheckpointError


def test_checkpoints_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.ckpt"
    WholeCheckpoints().save_checkpoint({"state_dict": {"a": torch.arange(5)}}, path)
    assert torch.load(path, weights_only=True)["state_dict"]["a"].tolist() == [0, 1, 2, 3, 4]
    assert [file.name for file in path.parent.iterdir()] == ["x.ckpt"]


def test_a_full_disk_keeps_the_previous_checkpoint(small_disk: Path) -> None:
    path, files = small_disk / "x.ckpt", WholeCheckpoints()
    files.save_checkpoint({"a": torch.zeros(10)}, path)
    with pytest.raises(
        CheckpointError, match=rf"{path} cannot be written: .*No space left.*files saved earlier are kept"
    ):
        files.save_checkpoint({"a": torch.zeros(100_000)}, path)
    assert len(torch.load(path, weights_only=True)["a"]) == 10
    assert [file.name for file in small_disk.iterdir()] == ["x.ckpt"]


@pytest.mark.parametrize("saved", [False, True])
def test_errors_offer_resuming_only_where_it_is_possible(small_disk: Path, saved: bool) -> None:
    run = small_disk / "run"
    (run / "checkpoints").mkdir(parents=True)
    if saved:
        (run / "checkpoints" / "previous.ckpt").touch()
    with pytest.raises(CheckpointError) as error:
        WholeCheckpoints().save_checkpoint({"a": torch.zeros(100_000)}, run / "checkpoints" / ".last.ckpt.new")
    assert ("--ckpt_path last" in str(error.value)) is saved
    assert (
        f"start again, as there is no checkpoint to resume from: mmib fit --config {run}" in str(error.value)
    ) != saved


def test_an_unwritable_folder_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()
    path = tmp_path / "checkpoints" / "x.ckpt"
    with pytest.raises(CheckpointError, match=rf"the checkpoint {path} cannot be written: .*checkpoints"):
        WholeCheckpoints().save_checkpoint({}, path)
