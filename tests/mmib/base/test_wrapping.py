"""Long lines of output: wrapped between words, with paths in one piece."""

from __future__ import annotations

from mmib.base.wrapping import hanging


def test_further_lines_are_indented() -> None:
    assert hanging("one two three", 9) == "  one two\n    three"


def test_a_path_is_not_broken() -> None:
    path = "a-long/path-to/train.jsonl:3"
    assert hanging(f"see {path} there", 12) == f"  see\n    {path}\n    there"
