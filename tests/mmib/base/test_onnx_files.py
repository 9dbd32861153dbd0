"""ONNX files: the network's results for any size of a dynamic axis, and no information about this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmib.base.onnx_files import exported, open_session
from mmib.schema import ExportError


class Doubled(torch.nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return 2 * values


class Deciding(torch.nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values if values.sum() > 0 else -values


def test_a_file_computes_the_networks_output_and_contains_no_paths(tmp_path: Path) -> None:
    content = exported(Doubled(), [torch.ones(2, 3)], ["values"], "doubled", {"values": {0: "rows"}})
    assert str(Path(__file__).parent).encode() not in content
    (tmp_path / "doubled.onnx").write_bytes(content)
    for model in (content, tmp_path / "doubled.onnx"):
        values = torch.randn(5, 3).numpy()
        (found,) = open_session(model).run(["doubled"], {"values": values})
        assert (found == 2 * values).all()
    with pytest.raises(ExportError, match="cannot be exported to ONNX"):
        exported(Deciding(), [torch.ones(2, 3)], ["values"], "same", {"values": {0: "rows"}})
