"""Rows of raw posts: counted and skipped without parsing, and numbered consistently."""

from __future__ import annotations

import gzip
import io
from typing import Any
from unittest import mock

import pytest

from mmib.datamodules import raw_rows
from mmib.datamodules.raw_rows import count_rows, read_raw_rows

JSON_LINES = (
    b'{"text": "a"}\n\nbroken\r\n \t\n\xc2\x85\n{"text": "\xff"}\r[1]\n{"text": "' + b"x" * 99 + b'"}\n{"text": "b"}'
)
CSV = b'text,id\n"two\nlines",1\n\na,1,more\n"b"x,2\n\xff,3\nc\n'
CUT = gzip.compress(JSON_LINES, mtime=0)[:-9]


def buffered(content: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(content))  # type: ignore[arg-type] - any raw file


@pytest.mark.parametrize(("content", "is_csv", "total"), [(JSON_LINES, False, 6), (CSV, True, 5), (CUT, False, 6)])
def test_rows_are_counted_and_selected_without_parsing_the_others(
    monkeypatch: pytest.MonkeyPatch, content: bytes, is_csv: bool, total: int
) -> None:
    monkeypatch.setattr(raw_rows, "LONGEST", 90)
    every = list(read_raw_rows(buffered(content), is_csv))
    assert [row.number for row in every] == list(range(1, total + 1))
    with (
        mock.patch.object(raw_rows, "_parsed", return_value=({}, None)) as parsed,
        mock.patch.object(raw_rows, "_checked", return_value=({}, None)) as checked,
    ):
        assert count_rows(buffered(content), is_csv) == total
        assert len(list(read_raw_rows(buffered(content), is_csv, range(1, 2)))) == 1
        assert parsed.call_count + checked.call_count == 1
    for start in range(1, total + 1):
        for stop in range(start, total + 1):
            assert list(read_raw_rows(buffered(content), is_csv, range(start, stop))) == every[start - 1 : stop - 1]


class Counting(io.BytesIO):
    """Counts the bytes read."""

    read_bytes = 0

    def readinto(self, buffer: Any) -> int:
        found = super().readinto(buffer)
        self.read_bytes += found
        return found


def test_a_file_is_not_read_beyond_the_requested_rows() -> None:
    content = Counting(b'{"text": "a"}\n' * 100_000)
    file = io.BufferedReader(content)  # type: ignore[arg-type] - any raw file
    assert len(list(read_raw_rows(file, is_csv=False, wanted=range(1, 3)))) == 2
    assert content.read_bytes < 100_000
