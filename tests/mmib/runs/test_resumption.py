"""Messages about resuming describe what is possible."""

from __future__ import annotations

from pathlib import Path

from mmib.runs.resumption import LAST, PREVIOUS, resumable, resumption


def test_a_run_is_resumed_from_its_newest_checkpoint_or_restarted(tmp_path: Path) -> None:
    assert not resumable(tmp_path)
    assert resumption(tmp_path).endswith(f"mmib fit --config {tmp_path / 'config.yaml'}")
    (tmp_path / "checkpoints").mkdir()
    for name in (PREVIOUS, LAST):
        (tmp_path / "checkpoints" / name).touch()
    assert [path.name for path in resumable(tmp_path)] == [LAST, PREVIOUS]
    assert resumption(tmp_path) == f"resume with mmib fit --run {tmp_path} --ckpt_path last"
