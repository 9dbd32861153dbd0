"""Images are found by the extensions of their files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmib.datamodules import image_names
from mmib.datamodules.image_names import ENDINGS, ImageNames, searched_folder, split_ending


def fill(folder: Path, *names: str) -> ImageNames:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return ImageNames(folder)


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        ("1.jpg", ["1.jpg", "1.png"], "1.jpg"),
        ("1.jpg", ["1.png"], "1.png"),
        ("1.jpg", ["1.jpeg"], "1.jpeg"),
        ("1.jpg", ["1.JPG"], "1.JPG"),
        ("1.jpg", ["1.png", "1.JPG"], "1.JPG"),
        ("1.jpg", ["1.webp", "1.png"], "1.png"),
        ("1.PNG", ["1.jpg"], "1.jpg"),
        ("1", ["1.jpg"], "1.jpg"),
        ("1", ["1"], "1"),
        ("17_06.1.jpg", ["17_06.1.png", "17_06.png"], "17_06.1.png"),
        ("1.png", ["1.png.jpg"], "1.png.jpg"),
        ("1.png.jpg", ["1.png"], None),
        ("a/1.jpg", ["a/1.png", "1.jpg"], "a/1.png"),
        ("1.jpg", ["1.txt", "1", "11.png", ".png", "1.jpg/x.png"], None),
        ("\ud83d.jpg", ["1.jpg"], None),
    ],
)
def test_the_file_of_a_name_is_found(tmp_path: Path, name: str, files: list[str], expected: str | None) -> None:
    names = fill(tmp_path, *files)
    assert names.find(name) == (None if expected is None else tmp_path / expected)
    assert names.renamed == (expected not in (None, name))


def test_distinct_names_that_were_read_as_another_are_counted(tmp_path: Path) -> None:
    names = fill(tmp_path, "1.png", "2.png", "3.jpg")
    for name in ("1.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"):
        names.find(name)
    assert names.renamed == 2


def test_a_broken_link_is_a_file_and_a_folder_is_not(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").symlink_to(tmp_path / "gone.jpg")
    assert ImageNames(tmp_path).find("1.jpg") == tmp_path / "1.jpg"
    assert ImageNames(tmp_path / "nowhere").find("1.jpg") is None
    assert ImageNames(tmp_path / "1.jpg" / "below").find("1.jpg") is None


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = fill(tmp_path, "1.jpg", "a/2.png")
    listed: list[Path] = []
    scandir = os.scandir
    monkeypatch.setattr(image_names.os, "scandir", lambda folder: (listed.append(folder), scandir(folder))[1])
    monkeypatch.setattr(image_names.os, "stat", None)
    for name in ("1.jpg", "a/2.jpg", "1.png", "3.jpg", "a/2.jpg"):
        names.find(name)
    assert listed == [tmp_path, tmp_path / "a"]


@given(st.text(), st.sampled_from(("", *ENDINGS)))
def test_an_extension_can_be_split_off_and_restored(stem: str, ending: str) -> None:
    name = stem + ending
    found_stem, found_ending = split_ending(name)
    assert found_stem + found_ending == name
    assert found_ending.lower() in ("", *ENDINGS)
    assert found_stem or not name


def test_a_missing_image_folder_is_described(tmp_path: Path) -> None:
    assert searched_folder(tmp_path, ["a/1.jpg"]) == str(tmp_path)
    assert searched_folder(tmp_path / "gone", []) == f"{tmp_path}/gone, which does not exist"
    assert "not by \\" in searched_folder(tmp_path, ["1.jpg", "images\\2.jpg"])
