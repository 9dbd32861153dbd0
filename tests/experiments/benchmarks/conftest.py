"""Small data sets in the formats of the real ones, for measurements."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

ROWS = 4


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """A folder with MNRE and Twitter-2017, with posts of 4 to 7 words."""
    root = tmp_path / "sets"
    (root / "mnre/txt").mkdir(parents=True)
    (root / "twitter2017").mkdir()
    posts = [["anna", "meets", "bob", "the", *["paris"] * number] for number in range(ROWS)]
    entities = {"h": {"name": "anna", "pos": [0, 1]}, "t": {"name": "bob", "pos": [2, 3]}}
    rows = [{"token": words, **entities, "img_id": "x.jpg", "relation": "/per/per/peer"} for words in posts]
    (root / "mnre/txt/ours_train.txt").write_text("".join(f"{row!r}\n" for row in rows))
    tags = {"anna": "B-PER", "bob": "B-PER", "paris": "B-LOC"}
    blocks = ["".join(f"{word}\t{tags.get(word, 'O')}\n" for word in words) for words in posts]
    (root / "twitter2017/train.txt").write_text("".join(f"IMGID:{n}\n{block}\n" for n, block in enumerate(blocks)))
    return root


@pytest.fixture(autouse=True)
def _level_of_lightning_restored() -> Iterator[None]:
    """The commands silence Lightning in their process, in which other tests read its messages."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    yield
    logger.setLevel(level)
