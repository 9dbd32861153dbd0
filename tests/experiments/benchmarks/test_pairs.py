"""The benchmark of levitated markers at minimal size: one row per post compared with one per pair."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from experiments.benchmarks import pairs
from mmib.export.folder import write_export
from mmib.export.model import TrainedModel
from mmib.extract.extractor import Post

MakeTrained = Callable[..., TrainedModel]


def test_levitated_markers_take_one_row_per_post(
    make_trained: MakeTrained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exports = [tmp_path / markers for markers in pairs.MARKERS]
    for folder in exports:
        write_export([make_trained("mre", markers=folder.name)], folder)
    people = [{"start": start, "end": start + 1, "type": "PER"} for start in (0, 2, 4, 6)]
    posts = [Post("a b c d", Image.new("RGB", (40, 30)), entities=people)] * 2
    monkeypatch.setattr(pairs, "posts_of", lambda *_: posts)
    assert pairs.main(["--model", *map(str, exports), "--repeats", "1"]) == 0
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    found = {tuple(line[:3]): line[3:] for line in lines if len(line) == 8 and line[2] in pairs.MARKERS}
    assert len(found) == 8
    for (_, way, markers), (calls, rows, pieces, rate, _) in found.items():
        assert calls == ("1.00" if way == "one by one" else "0.50")
        # Four people give twelve pairs; the text has two more pieces than words.
        assert (rows, pieces) == (("12.00", "120.00") if markers == "inserted" else ("1.00", "54.00"))
        assert float(rate.split()[0]) > 0
    assert pairs.main(["--model", str(exports[0])]) == 2
    assert "one with inserted markers, one with levitated" in capsys.readouterr().err
