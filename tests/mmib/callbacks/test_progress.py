"""Progress bars fit into 80 columns and show loss and score; log files have lines instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelSummary, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from mmib.callbacks import ModelSize, RichBar, TQDMBar
from mmib.callbacks.progress import with_defaults

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}") for text in (".*does not have many workers", ".*LeafSpec", ".*logging")
]
BATCHES = 40


class Learner(pl.LightningModule):
    """Logs the same values for progress bars as the project's modules."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        self.log("loss", 1280.5 + index, prog_bar=True, logger=False)
        return self.weight.sum()

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("val/f1", 0.6012, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def _moved(sequence: re.Match[str]) -> str:
    """Replaces cursor movements by line breaks and removes colours."""
    return "" if sequence.group().endswith("m") else "\n"


def fit(tmp_path: Path, bar: pl.Callback, **options: Any) -> None:
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        callbacks=[bar],
        logger=CSVLogger(tmp_path, version="a-long-version"),
        enable_checkpointing=False,
        enable_model_summary=False,
        max_epochs=1,
        val_check_interval=0.5,
        **options,
    )
    data: Any = torch.zeros(BATCHES, 1)
    trainer.fit(Learner(), DataLoader(data), DataLoader(data[:2]))


@pytest.mark.parametrize(
    ("bar", "loss", "score"), [(RichBar, "loss: 1.32e+03", "val/f1: 0.601"), (TQDMBar, "loss=1319.5", "val/f1=0.601")]
)
def test_a_progress_bar_is_one_terminal_line(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bar: type[pl.Callback],
    loss: str,
    score: str,
) -> None:
    for name, value in {"COLUMNS": "80", "TTY_COMPATIBLE": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda file: (80, 24))
    fit(tmp_path, bar())
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", _moved, capfd.readouterr().out)
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text)]
    assert max(map(len, lines)) <= 80
    last = [line for line in lines if line.startswith("Epoch 0")][-1]
    assert len(re.sub("[━╸█▉▊▋▌▍▎▏]", "", last)) + len("━━━━") + len("1200/1200") - len("40/40") <= 80
    assert "40/40" in last
    assert loss in last
    assert score in last
    assert "v_num" not in text


@pytest.mark.parametrize("bar", [RichBar, TQDMBar])
def test_a_log_file_has_a_line_for_each_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bar: type[pl.Callback]
) -> None:
    fit(tmp_path, bar())
    assert capsys.readouterr().out.splitlines() == [
        "epoch 0, batch 20 of 40: loss 1300, val/f1 0.6012",
        "epoch 0, batch 40 of 40: loss 1320, val/f1 0.6012",
    ]


def test_a_long_epoch_has_progress_lines_before_its_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmib.callbacks.progress.LINE_S", 0.0)
    fit(tmp_path, RichBar())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "epoch 0, batch 1 of 40: loss 1280"
    assert len(lines) == BATCHES + 2, "a line for each batch and for each validation"


def test_with_max_steps_the_last_epoch_ends_at_that_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmib.callbacks.progress.LINE_S", 0.0)
    fit(tmp_path, RichBar(), max_steps=12, accumulate_grad_batches=2)
    totals = {int(line.split(" of ")[1].split(":")[0]) for line in capsys.readouterr().out.splitlines()}
    assert totals == {24}, "two batches for each of twelve steps, at whichever batch the line is printed"


def test_progress_bars_and_summaries_of_the_configuration_are_used() -> None:
    kinds: Callable[..., list[type]] = lambda *options: [type(callback) for callback in with_defaults(*options)]  # noqa: E731
    assert kinds(None, None, None) == [RichBar, ModelSize]
    assert kinds([], True, True) == [RichBar, ModelSize]
    assert kinds([], False, False) == []
    assert kinds(TQDMProgressBar(), None, None) == [TQDMProgressBar, ModelSize]
    assert kinds([ModelSummary(max_depth=2)], None, None) == [ModelSummary, RichBar]
