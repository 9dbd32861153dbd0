"""The benchmark of extraction at minimal size; it fails if the two variants differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.benchmarks import extraction
from mmib.export.folder import write_export
from mmib.export.model import TrainedModel
from mmib.extract.results import Entity, Extraction, Relation

FOUND = Extraction(
    "a b",
    [Entity("a", 0, 1, "PER", 0.9), Entity("b", 2, 3, "PER", 0.8)],
    [Relation("/per/per/peer", 0, 1, 0.7, True)],
)


def test_results_equal_up_to_rounding_pass() -> None:
    rounded = replace(FOUND, entities=[replace(FOUND.entities[0], confidence=0.90001), FOUND.entities[1]])
    extraction.check_same([FOUND, FOUND], [rounded, FOUND])


@pytest.mark.parametrize(
    "other",
    [
        replace(FOUND, entities=FOUND.entities[:1]),
        replace(FOUND, entities=[replace(FOUND.entities[0], type="ORG"), FOUND.entities[1]]),
        replace(FOUND, entities=[replace(FOUND.entities[0], confidence=0.5), FOUND.entities[1]]),
        replace(FOUND, relations=[]),
        replace(FOUND, relations=[replace(FOUND.relations[0], head=1, tail=0)]),
        replace(FOUND, relations=[replace(FOUND.relations[0], confidence=0.6)]),
    ],
)
def test_other_differences_stop_the_benchmark(other: Extraction) -> None:
    with pytest.raises(RuntimeError, match="post 1: one by one"):
        extraction.check_same([FOUND, FOUND], [FOUND, other])


def test_a_line_is_printed_for_each_variant(
    data_root: Path, tmp_path: Path, make_trained: Callable[..., TrainedModel], capsys: pytest.CaptureFixture[str]
) -> None:
    write_export([make_trained("mner"), make_trained("mre")], tmp_path / "both")
    options = [
        "--runtimes",
        "torch",
        "--sets",
        "twitter2017",
        "--posts",
        "3",
        "--repeats",
        "1",
        "--data-root",
        str(data_root),
    ]
    assert extraction.main(["--model", str(tmp_path / "both"), *options]) == 0
    output = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.splitlines() if "|" in line]
    names = [f"{models}, images in torch" for models in ("entities", "both")]
    rates = [line for line in lines if len(line) == 6 and line[0] in names]
    assert [line[:2] for line in rates] == [[name, shown] for name in names for shown in ("text", "text and image")]
    assert all(float(cell.split()[0]) > 0 for line in rates for cell in line[2:])
    spent = [line for line in lines if len(line) == 8 and line[0] in names]
    assert len(spent) == 2 * len(rates)
    assert {line[-1] == "" for line in spent if line[0] == names[0]} == {True}


def test_without_a_model_of_entities_the_error_is_one_sentence(
    tmp_path: Path, make_trained: Callable[..., TrainedModel], capsys: pytest.CaptureFixture[str]
) -> None:
    write_export([make_trained("mre")], tmp_path / "mre")
    assert extraction.main(["--model", str(tmp_path / "mre")]) == 2
    assert "name a model of them" in capsys.readouterr().err
    assert extraction.main(["--model", str(tmp_path / "nowhere")]) == 2
    assert "there is no model" in capsys.readouterr().err
