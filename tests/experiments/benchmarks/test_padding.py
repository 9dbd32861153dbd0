"""Padding fractions for known lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import padding


def test_rows_of_equal_length_need_no_padding() -> None:
    lengths = np.full(10, 7)
    assert padding.share_of_padding(lengths, 4) == padding.share_in_random_order(lengths, 4) == 0


def test_the_shorter_of_two_lengths_in_a_batch_is_padded() -> None:
    lengths = np.array([2, 6])
    assert padding.share_of_padding(lengths, 2) == padding.share_in_random_order(lengths, 2) == pytest.approx(1 / 3)
    assert padding.share_of_padding(lengths, 1) == 0
    assert padding.share_of_padding(lengths, 2, max_tokens=6) == 0


def test_every_set_has_its_lines(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    padding.main(["--sets", "mnre", "twitter2017", "--batch-sizes", "4", "--data-root", str(data_root)])
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| real")]
    # Posts of 4 to 7 words with one piece each; two special pieces, and four markers for relations.
    assert [line[1] for line in lines] == ["11.5", "7.5"]
    assert [line[5] for line in lines] == [f"{1 - 11.5 / 13:.1%}", f"{1 - 7.5 / 9:.1%}"]
    assert [line[3] for line in lines] == [f"{1 - 11.5 / 80:.1%}", f"{1 - 7.5 / 128:.1%}"]
