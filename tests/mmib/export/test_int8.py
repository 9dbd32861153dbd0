"""The int8 ONNX file, and its scores on the run's validation rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from torch import nn

from mmib.base.onnx_files import exported
from mmib.cli import main
from mmib.export.int8 import quantized, validation_data
from mmib.export.model import model_of_run
from mmib.runs.reader import read_run
from mmib.schema import ExportError


class Sum(nn.Module):
    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers + 1


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 32)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(numbers)
        return result


def written(network: nn.Module, path: Path) -> Path:
    path.write_bytes(exported(network.eval(), [torch.randn(3, 64)], ["numbers"], "found", {"numbers": {0: "rows"}}))
    return path


@pytest.fixture
def run(finished_runs: Callable[[str], Any], tmp_path: Path) -> Path:
    """A copy of a run on the tiny demo corpus, to damage."""
    return Path(shutil.copytree(finished_runs("mre").folder, tmp_path / "run"))


def test_matrix_products_are_close_and_their_weights_a_quarter_of_the_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Product()
    content = quantized(written(network, tmp_path / "model.onnx"))
    numbers = torch.randn(7, 64)
    expected = network(numbers).detach().numpy()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"numbers": numbers.numpy()})
    assert 0 < np.abs(found - expected).max() < 0.05
    assert len(content) < len((tmp_path / "model.onnx").read_bytes())


def test_a_network_without_matrix_products_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no MatMul or Gemm with fixed weights that could be quantised: leave --int8"):
        quantized(written(Sum(), tmp_path / "model.onnx"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_export_reports_the_cost_of_quantisation(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    assert main(["export", str(run), "-o", str(out), "--int8"]) == 0
    measured = json.loads((out / "config.json").read_text())["trained"]["int8"]
    card = (out / "README.md").read_text()
    for file, precision in (("model.onnx", "float32"), ("model.int8.onnx", "int8")):
        assert measured[precision]["bytes"] == (out / file).stat().st_size
        assert f"| {file} | {measured[precision]['bytes']:,} | {measured[precision]['f1']:.4f} |" in card
    assert measured["int8"]["bytes"] < measured["float32"]["bytes"]
    # The score of PyTorch, with cached features.
    summary = json.loads((run / "summary.json").read_text())
    assert measured["rows"] == summary["data"]["val"]["rows"]
    assert measured["float32"]["f1"] == pytest.approx(summary["val"]["f1"], abs=0.02)
    assert abs(measured["int8"]["f1"] - measured["float32"]["f1"]) < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": None}, "which cannot be read: 'class_path'; put them back, or leave --int8 out"),
        (
            {"data": {"class_path": "mmib.datamodules.gone.Gone", "init_args": {}}},
            "No module named 'mmib.datamodules.gone'",
        ),
    ],
)
def test_missing_rows_are_named(run: Path, change: dict[str, Any], message: str) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    model = model_of_run(run)
    (run / "config.yaml").write_text(yaml.safe_dump({**config, **change}))
    with pytest.raises(ExportError) as raised:
        validation_data(read_run(run), model)
    assert message in str(raised.value)


@pytest.mark.filterwarnings("ignore")
def test_changed_rows_are_refused(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    summary["data"]["val"] |= {"held_out": {"val": 0.2}, "holdout_seed": 1}  # in the same file
    (run / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ExportError, match="have changed since it was trained: put them back, or leave --int8 out"):
        validation_data(read_run(run), model_of_run(run))
