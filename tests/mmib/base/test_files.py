"""Files are complete or absent; YAML and JSON are read, or refused in one line."""

from __future__ import annotations

import errno
import math
import os
import sys
import threading
from pathlib import Path

import pytest

from mmib.base import files
from mmib.base.files import atomic_file, check_output, parse_json, read_yaml, replace_folder, write_text
from mmib.schema import ConfigError


def test_a_file_appears_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "x.bin"
    with atomic_file(target) as file:
        file.write(b"one")
        assert not target.exists()
        file.write(b"two")
    assert target.read_bytes() == b"onetwo"
    assert [path.name for path in target.parent.iterdir()] == ["x.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file_and_no_temporary_file(tmp_path: Path, error: type[BaseException]) -> None:
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


@pytest.mark.parametrize("known", [None, "/elsewhere"])
def test_a_full_disk_names_the_file(tmp_path: Path, known: str | None) -> None:
    """An error while writing to an open file does not name the file."""
    with pytest.raises(OSError, match="No space left") as error, atomic_file(tmp_path / "x.txt"):
        raise OSError(errno.ENOSPC, "No space left", known)
    assert error.value.filename == (known or str(tmp_path / "x.txt"))
    assert list(tmp_path.iterdir()) == []


def test_text_is_written_as_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "x.txt", "é\u2028\r\nλ\n")
    assert (tmp_path / "x.txt").read_bytes() == "é\u2028\r\nλ\n".encode()


def test_a_file_has_default_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "own", "text")
    (tmp_path / "plain").touch()
    assert (tmp_path / "own").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("leads_to", ["a file", "nothing"])
def test_a_link_is_followed(tmp_path: Path, leads_to: str) -> None:
    target, link = tmp_path / "folder" / "x.txt", tmp_path / "link"
    if leads_to == "a file":
        write_text(target, "old")
    link.symlink_to("folder/x.txt")
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["x.txt"]


def test_a_pipe_is_written_to_directly(tmp_path: Path) -> None:
    """As is a device, which only root could test."""
    os.mkfifo(tmp_path / "pipe")
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "pipe", "text")
    reader.join()
    assert received == ["text"]
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
    write_text(Path(os.devnull), "text")
    assert Path(os.devnull).is_char_device()


def test_an_output_must_not_be_an_input(tmp_path: Path) -> None:
    write_text(tmp_path / "folder" / "input", "text")
    (tmp_path / "link").symlink_to("folder/input")
    os.link(tmp_path / "folder" / "input", tmp_path / "hard")
    for name in ("folder/input", "link", "hard", "folder/../hard"):
        for given in (tmp_path / "folder" / "input", tmp_path / "folder"):
            with pytest.raises(ConfigError, match=r"is the input .*: name another file"):
                check_output(tmp_path / name, [given])
    with (tmp_path / "hard").open() as file, pytest.raises(ConfigError, match="is the input standard input"):
        check_output(tmp_path / "link", [file.fileno()])
    write_text(tmp_path / "other", "text")
    for name in ("other", "new", "new/folder", "folder/other", os.devnull):
        check_output(tmp_path / name, [tmp_path / "folder", tmp_path / "missing", Path(os.devnull)])


def test_a_folder_and_a_link_to_itself_are_invalid_outputs(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name, message in (("loop", "cannot be written"), (".", "is a folder")):
        with pytest.raises(ConfigError, match=message):
            check_output(tmp_path / name)


def folder_with(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "x.txt").write_text(text)
    return path


@pytest.mark.parametrize("exchanging", [True, False])
@pytest.mark.parametrize("before", ["an old one", "nothing"])
def test_a_folder_replaces_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanging: bool, before: str
) -> None:
    if not exchanging:
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: object())
    if before == "an old one":
        folder_with(tmp_path / "folder", "old")
    replace_folder(tmp_path / "folder", folder_with(tmp_path / ".new", "new"))
    assert (tmp_path / "folder" / "x.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="folders change places at one moment on Linux only")
def test_a_folder_exists_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the old folder is removed: only the exchange has happened, and the name existed throughout."""
    old, new = folder_with(tmp_path / "folder", "old"), folder_with(tmp_path / ".new", "new")
    monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr(Path, "rename", None)
    replace_folder(old, new)
    assert [(path / "x.txt").read_text() for path in (old, new)] == ["new", "old"]


@pytest.mark.parametrize(
    ("text", "content"), [("", None), ("[1, a]", [1, "a"]), ("a: &x [1]\nb: [*x, *x]", {"a": [1], "b": [[1], [1]]})]
)
def test_yaml_is_read(tmp_path: Path, text: str, content: object) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert read_yaml(tmp_path / "x.yaml") == content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "expected the node content"),
        ("2024-13-45", "month must be in 1..12"),
        ("!!timestamp x", "NoneType"),
        ("!!int ''", "index out of range"),
        ("9" * 5000, "4300 digits"),
        ("[" * 2000, "recursion"),
        ("!!python/name:os.system", "could not determine a constructor"),
        ("&a [*a]", "more than 100,000 values"),
        ("&a {b: *a}", "more than 100,000 values"),
        ("- &a0 [x]\n" + "".join(f"- &a{n + 1} [*a{n}, *a{n}]\n" for n in range(30)), "more than 100,000 values"),
        ("\0", "special characters are not allowed"),
    ],
)
def test_hostile_yaml_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_yaml(tmp_path / "x.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "4300 digits"),
        ("{", "Expecting"),
        ('{"id": NaN}', "it holds NaN, which is no number of JSON"),
        ("[-Infinity]", "it holds -Infinity"),
        ("[1e400]", "it holds 1e400, a number beyond all bounds"),
        (r'{"id": "\ud800"}', "unpaired surrogate"),
        (r'{"\udc00 x": [1]}', "unpaired surrogate"),
    ],
)
def test_hostile_json_is_refused(text: str, message: str) -> None:
    assert parse_json('{"a": [1]}') == {"a": [1]}
    assert parse_json(r'["\ud83d\ude00", 1e300, "\\ud800"]') == ["\U0001f600", 1e300, "\\ud800"]
    assert parse_json("\ufeff[1]") == [1]
    assert math.isnan(parse_json("NaN", allow_nan=True))
    with pytest.raises(ValueError, match=message):
        parse_json(text)
