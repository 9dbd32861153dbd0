"""Files are whole or not there; YAML and JSON are read, or refused in one line."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from mmib.base import files
from mmib.base.files import atomic_file, parse_json, read_yaml, replace_folder, write_text


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


@pytest.mark.parametrize("known", [None, "/elsewhere"])
def test_a_full_disk_names_the_file(tmp_path: Path, known: str | None) -> None:
    """Writing into an open file the system says that there is no room, and not where."""
    with pytest.raises(OSError, match="No space left") as error, atomic_file(tmp_path / "x.txt"):
        raise OSError(errno.ENOSPC, "No space left", known)
    assert error.value.filename == (known or str(tmp_path / "x.txt"))
    assert list(tmp_path.iterdir()) == []


def test_text_is_written_as_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "x.txt", "é\u2028\r\nλ\n")
    assert (tmp_path / "x.txt").read_bytes() == "é\u2028\r\nλ\n".encode()


def test_a_file_has_the_permissions_that_any_new_file_has(tmp_path: Path) -> None:
    write_text(tmp_path / "own", "text")
    (tmp_path / "plain").touch()
    assert (tmp_path / "own").stat().st_mode == (tmp_path / "plain").stat().st_mode


def folder_with(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "x.txt").write_text(text)
    return path


@pytest.mark.parametrize("exchanging", [True, False])
@pytest.mark.parametrize("before", ["an old one", "nothing"])
def test_a_folder_takes_the_place_of_another(
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
def test_a_folder_is_there_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the old one is removed: nothing but the exchange has happened, and no name was free meanwhile."""
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
    ("text", "message"), [("[" * 100_000, "nested too deeply"), ("9" * 5000, "4300 digits"), ("{", "Expecting")]
)
def test_hostile_json_is_refused(text: str, message: str) -> None:
    assert parse_json('{"a": [1]}') == {"a": [1]}
    with pytest.raises(ValueError, match=message):
        parse_json(text)
