"""Growth of costs: known slopes, batches of the requested sizes, and the command at minimal size."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.benchmarks import scaling
from experiments.benchmarks.recipe import ENCODERS, build_module


@pytest.mark.parametrize(
    ("costs", "slope"), [([3.0, 6.0, 12.0], "1.00"), ([5.0, 1.0, 5.0], "0.00"), ([2, 8, 32], "2.00")]
)
def test_growth_is_the_slope_between_the_endpoints(costs: list[float], slope: str) -> None:
    assert scaling.growth([4, 8, 16], costs) == slope


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_random_batches_have_the_requested_sizes(tmp_path: Path, task: str) -> None:
    batch = scaling.random_batch(build_module(task, ENCODERS["tiny"], tmp_path), rows=3, pieces=20, regions=5)
    assert batch.input_ids.shape == (3, 20)
    assert batch.region_mask.shape == (3, 5)
    assert int(batch.positions.max()) < 20
    assert batch.word_ids.max() == 14


def test_a_larger_set_costs_more_before_its_first_batch() -> None:
    found = scaling.draw_epoch(50, batch_size=8)
    assert found.keys() == {"first", "further"}


def test_the_command_prints_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--batch-sizes", "2", "4", "--lengths", "8", "9", "--region-counts", "1", "2", "--posts", "100", "200"]
    scaling.main(
        [*small, "--encoders", "tiny", "--tasks", "mre", "--repeats", "1", "--steps", "1", "--batch-size", "2"]
    )
    output = capsys.readouterr().out
    assert output.count("grows as") == 3
    for line in ("| 2 |", "| 4 |", "| 8 |", "| 9 |", "| 100 |", "| 200 |"):
        assert line in output
