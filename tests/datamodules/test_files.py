"""Names from data files stay inside their folder, and lines are decoded correctly."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmib.datamodules.files import inside, is_there, read_lines
from mmib.schema import DataError


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../b.jpg", "x/../../b.jpg", "/etc/passwd", "sub/../..", "../images-two/a.jpg", "a\0.jpg"]
)
def test_a_name_outside_the_folder_is_refused_with_its_location(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"ours_train\.txt:3: the file name .* is not inside"):
        inside(tmp_path / "images", name, "ours_train.txt:3")


@pytest.mark.parametrize("name", ["a.jpg", "sub/a.jpg", "sub/../a.jpg", "..a.jpg", "a b.jpg"])
def test_other_names_are_accepted_unchanged(tmp_path: Path, name: str) -> None:
    assert inside(tmp_path, name, "here").resolve() == (tmp_path / name).resolve()


@pytest.mark.parametrize("name", ["a" * 256, "\u00e9" * 128, "x/" + "b" * 300 + "/c.jpg"])
def test_an_impossible_file_name_is_refused_with_its_location(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        DataError, match=r"^ours_train\.txt:3: the file name .* is longer than 255 bytes, and no file can have it$"
    ):
        inside(tmp_path, name, "ours_train.txt:3")
    assert inside(tmp_path, "a" * 255, "here").name == "a" * 255


def test_broken_links_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    names = ("loop", "dangling", "nothing", "file/below", "file", ".")
    assert [is_there(tmp_path / name) for name in names] == [False] * 4 + [True, False]


def test_a_path_without_search_permission_is_named(tmp_path: Path) -> None:
    path = tmp_path.joinpath(*["d" * 250] * 20)
    with pytest.raises(DataError, match="cannot be looked for: File name too long"):
        is_there(path)


def test_a_link_inside_the_folder_may_point_anywhere(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.jpg").write_bytes(b"x")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").symlink_to(tmp_path / "disk" / "a.jpg")
    assert inside(tmp_path / "images", "a.jpg", "here").read_bytes() == b"x"


def test_a_relative_folder_is_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert inside(Path("../x/images"), "a.jpg", "here") == Path("../x/images/a.jpg")
    with pytest.raises(DataError):
        inside(Path("images"), "../a.jpg", "here")


def test_lines_are_read_without_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffa\r\n\r\n\ufeffb\x85c\r\r\nd".encode())
    assert list(read_lines(path, "a layout")) == ["a", "", "\ufeffb\x85c\r", "d"]


def test_the_offset_of_an_invalid_byte_is_counted_from_the_start_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffé\r\n".encode() + b"ab\xff")
    with pytest.raises(DataError, match="is not UTF-8: byte 9 of the file cannot be read"):
        list(read_lines(path, "a layout"))
