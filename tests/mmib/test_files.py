"""Files are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmib.files import atomic_file, write_text


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "x.bin"
    with atomic_file(target) as file:
        file.write(b"one")
        assert not target.exists()
        file.write(b"two")
    assert target.read_bytes() == b"onetwo"
    assert [path.name for path in target.parent.iterdir()] == ["x.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "x.txt"
    write_text(target, "old")

    def fail() -> None:
        with atomic_file(target) as file:
            file.write(b"half of the new")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_text_is_written_as_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "x.txt", "é\u2028\r\nλ\n")
    assert (tmp_path / "x.txt").read_bytes() == "é\u2028\r\nλ\n".encode()


def test_a_file_has_the_permissions_that_any_new_file_has(tmp_path: Path) -> None:
    write_text(tmp_path / "own", "text")
    (tmp_path / "plain").touch()
    assert (tmp_path / "own").stat().st_mode == (tmp_path / "plain").stat().st_mode
