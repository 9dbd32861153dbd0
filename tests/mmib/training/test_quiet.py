"""Every line that a run prints is relevant to users."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

# What a fit may print besides the tables of its summary; progress bars are separated by carriage returns.
EXPECTED = [
    r"Seed set to 1",
    r"demo corpus: +\d+%\|.*image/s\]",
    r"Using bfloat16 Automatic Mixed Precision \(AMP\)",
    r"train: \d+ rows, \d+ labels",
    r"image features: +\d+%\|.*image/s\]",
    r"train: found \d+ of \d+ images, \d+ of \d+ rows, \d+ rows left out by the trainer's limits",
    r"val: \d+ rows, \d+ labels",
    r"val: found \d+ of \d+ images, \d+ of \d+ rows",
    r"model: [\d.]+ [KM] +parameters \(\d+ MB\), [\d.]+ [KM] +of them trained",
    r"test: \d+ rows, \d+ labels",
    r"test: found \d+ of \d+ images, \d+ of \d+ rows",
]


def test_a_fit_prints_only_relevant_lines(workspace: Any, tmp_path: Path) -> None:
    command = [
        *(str(Path(sys.executable).with_name("mmib")), "fit", "--config", str(workspace.experiment)),
        *("--config", "trainer/debug.yaml", "--trainer.limit_train_batches", "2", "--trainer.precision", "32-true"),
        *("--wandb", "offline", "--data.cache_dir", str(tmp_path / "cache")),
        *("--trainer.enable_progress_bar", "true", "--trainer.enable_model_summary", "true"),
    ]
    srun = tmp_path / "bin" / "srun"  # a machine on which jobs are submitted
    srun.parent.mkdir()
    srun.touch(mode=0o755)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{srun.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in re.split(r"[\r\n]+", done.stderr) if line]
    unknown = [line for line in lines if not any(re.fullmatch(pattern, line.strip()) for pattern in EXPECTED)]
    assert unknown == []
    assert max(map(len, done.stdout.splitlines())) <= max(80, len(str(workspace.root)) + 80)
    assert re.match(r"epoch 0, batch 2 of 2: loss [\d.]+, val/f1 [\d.]+\nmre on demo-tiny", done.stdout)
