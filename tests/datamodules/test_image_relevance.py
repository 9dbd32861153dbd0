"""Files of relevance scores: names with or without extension, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmib.datamodules.image_relevance import ImageRelevance
from mmib.schema import DataError


def written(folder: Path, *rows: Any) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "relevance.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder / "relevance.jsonl"


def test_images_are_matched_by_name_with_or_without_extension(tmp_path: Path) -> None:
    rows = ({"image": "1.jpg", "relevance": 3e-6}, "", {"image": "2", "relevance": 1}, {"image": "2", "relevance": 1.0})
    scores = ImageRelevance(written(tmp_path, *rows))
    assert [scores.of(name) for name in ("1.jpg", "1.png", "1", "2.jpeg", "3.jpg", "")] == [
        3e-6,
        3e-6,
        3e-6,
        1,
        *[None] * 2,
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{"], r"relevance\.jsonl:1: not JSON .*expected one image a line"),
        ([{"relevance": 1}], r":1: .* names no image"),
        ([{"image": "1.jpg"}], r":1: the relevance is None, no number"),
        ([{"image": "1.jpg", "relevance": True}], r":1: the relevance is True, no number"),
        (['{"image": "1.jpg", "relevance": NaN}'], r":1: not JSON"),
        (
            [{"image": "1.jpg", "relevance": 1}, {"image": "1.jpg", "relevance": 2}],
            r":2: 1\.jpg has the relevance 2 here and 1 before; keep one of them",
        ),
        ([""], r"relevance\.jsonl holds no relevance of any image"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageRelevance(written(tmp_path, *rows))


def test_a_file_of_another_data_set_is_refused(tmp_path: Path) -> None:
    scores = ImageRelevance(written(tmp_path, {"image": "1.jpg", "relevance": 0.0}))
    scores.check_common(["7.jpg", "1.jpg"], "posts")
    scores.check_common([], "posts")
    with pytest.raises(DataError, match=r"no relevance of any image of posts: it names 1\.jpg, the posts 7\.jpg; give"):
        scores.check_common(["7.jpg"], "posts")
    with pytest.raises(DataError, match="absent"):
        ImageRelevance(tmp_path / "absent.jsonl")
