"""The benchmark commands at minimal size: they print complete tables with consistent counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.benchmarks import cost, inference, training

SMALL = ["--sets", "twitter2017", "--encoders", "tiny"]


def cells(output: str) -> list[list[str]]:
    """The cells of each table row, without headers."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.splitlines() if "|" in line]
    return [line for line in lines if line[0] != "---"]


def test_training_prints_the_waterfall(
    data_root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    rows = ["--rows", "4", "--repeats", "1", "--batch-sizes", "4"]
    training.main([*SMALL, *rows, "--data-root", str(data_root)])
    output = capsys.readouterr().out
    head, *lines = cells(output)
    table = {line[0]: line for line in lines}
    assert list(table) == [*training.waterfall("mner"), training.FIRST_EPOCH]
    counted = [float(line[head.index("GFLOP a row")]) for line in lines if line[-1]]
    # Each change removes operations or keeps their number.
    assert counted == sorted(counted, reverse=True)
    assert counted[0] > 4 * counted[-1]
    for line in lines:
        assert float(line[1].split()[0]) > 0
    # Four posts, each with an image and four crops.
    assert "The first epoch of all 4 rows, with 20 distinct images" in output


def test_the_first_epoch_is_the_sum_of_its_parts(data_root: Path) -> None:
    # All four rows of this MNRE show one image, and have three crops each: 13 images of 2 s, and 4 rows of 0.5 s.
    found = training.first_epoch("mnre", data_root, image=2.0, recipe=[0.04, 0.05, 9.0], ours=[2.0])
    assert "with 13 distinct images" in found
    assert "the recipe's 80 s; ours 26 s for the cache and 2 s of training, 2.86 times as fast" in found


def test_compiled_code_has_a_separate_line() -> None:
    plain, compiled = (list(training.waterfall("mre", compiled=flag)) for flag in (False, True))
    assert [label for label in compiled if label not in plain] == ["+ torch.compile"]
    assert [label for label in compiled if label in plain] == plain


def test_emulated_bf16_is_not_measured(
    data_root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [label for label in training.waterfall("mre") if label not in training.waterfall("mre", bf16=False)] == [
        "+ bf16"
    ]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    inference.main([*SMALL, "--rows", "4", "--repeats", "1", "--data-root", str(data_root)])
    _, *lines = cells(capsys.readouterr().out)
    assert [line[0] for line in lines] == [label for label in inference.WAYS if "bf16" not in label]
    assert lines[0][-1] == "1.00"


def test_the_cost_model_alone_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    cost.main([*SMALL, "--paper"])
    output = capsys.readouterr().out
    assert "Ceilings" not in output
    first = cells(output)[1]
    images, text, rest, total = map(float, first[-4:])
    assert total == pytest.approx(images + text + rest, abs=0.2)
