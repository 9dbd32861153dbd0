"""`mmib fetch-data` with small data sets on a local server that can truncate, refuse and send wrong data."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import random
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmib.cli import main
from mmib.datamodules.fetch import command, download, manifest
from mmib.datamodules.fetch.manifest import data_set

POSTS = "IMGID:{0}_1\nAnna\tB-PER\n{0}\tO\n\nIMGID:{0}_2\n{0}\tO\nParis\tB-LOC\n\n"
ROW = {
    "token": ["Anna", "in", "Paris"],
    "h": {"name": "Anna", "pos": [0, 1]},
    "t": {"name": "Paris", "pos": [2, 3]},
    "relation": "/per/loc/place_of_residence",
}
# Received data is kept in whole chunks of half a megabyte.
MEGABYTE = 1 << 20
LOGIN = b"\n<!DOCTYPE html><html><title>Sign in</title></html>"


@dataclass
class Server:
    """Files by path, with request counts."""

    files: dict[str, bytes] = field(default_factory=dict)
    status: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    cuts: dict[str, int] = field(default_factory=dict)  # bytes after which the connection is closed, once
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""

    def asked(self, path: str) -> list[str | None]:
        """The ranges of all requests for a path."""
        return [ranges for asked, ranges in self.requests if asked == path]


class Handler(BaseHTTPRequestHandler):
    known: Server

    def do_GET(self) -> None:
        path, ranges = self.path.lstrip("/"), self.headers.get("Range")
        self.known.requests.append((path, ranges))
        code, headers = self.known.status.get(path, (200 if path in self.known.files else 404, {}))
        content = self.known.files.get(path, b"") if code == 200 else b""
        total, start = len(content), 0
        if ranges and code == 200:
            start = int(ranges.removeprefix("bytes=").rstrip("-"))
            code, headers = 206, {"Content-Range": f"bytes {start}-{total - 1}/{total}"}
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(total - start)}.items():
            self.send_header(name, value)
        self.end_headers()
        end = total if ranges else self.known.cuts.pop(path, total)
        self.wfile.write(content[start:end])
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Keep standard error clean."""


def jpeg(colour: str) -> bytes:
    content = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(content, "JPEG", comment=colour)
    return content.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def linking_zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        link = zipfile.ZipInfo("train_1.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return content.getvalue()


def tarred(files: dict[str, bytes], link: str = "", compression: str = "w:gz") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=compression) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        if link:
            entry = tarfile.TarInfo("train_1.jpg")
            entry.type, entry.linkname = tarfile.SYMTYPE, link
            archive.addfile(entry)
    return content.getvalue()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves the files of a manifest with the real one's structure; the addresses are the real file names."""
    known = Server()
    handler = type("KnownHandler", (Handler,), {"known": known})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    known.address = f"http://127.0.0.1:{http.server_port}"
    facts = json.loads(manifest.MANIFEST.read_text())
    for name, entry in facts["sets"].items():
        for text in entry["texts"]:
            split = Path(text["file"]).stem
            image = f"{split}.jpg"
            content = POSTS.format(split) if name != "mnre" else f"{ {**ROW, 'img_id': image} }\n"
            known.files[f"texts/{text['file']}"] = content.encode()
            text |= {
                "address": f"{known.address}/texts/{text['file']}",
                "sha256": hashlib.sha256(content.encode()).hexdigest(),
                "size": len(content.encode()),
            }
        for captions in entry["captions"]:
            caption = ": a dog: asleep\n" if captions["format"] == "colon" else ""
            known.files[captions["file"]] = (
                f"train_1.jpg{caption}".encode()
                if caption
                else f"{ {'img_id': 'train.jpg', 'text': chr(10) + captions['model']} }\n".encode()
            )
            captions["address"] = f"{known.address}/{captions['file']}"
        entry["images"]["address"] = f"{known.address}/{entry['images']['file']}"
    splits = ("train", "valid", "test")
    known.files["twitter_images"] = zipped(
        {
            **{
                f"IJCAI2019/twitter2017_images/{split}_{n}.jpg": jpeg(f"17{split}{n}")
                for split in splits
                for n in (1, 2)
            },
            **{
                f"IJCAI2019/twitter2015_images/{split}_{n}.jpg": jpeg(f"15{split}{n}")
                for split in splits
                for n in (1, 2)
            },
            "IJCAI2019/other.bin": random.Random(0).randbytes(2 << 20),
        }
    )
    known.files["mnre_images"] = tarred(
        {f"images/img_org/{split}/{split}.jpg": jpeg(split) for split in ("train", "val", "test")}
    )
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    monkeypatch.setattr(manifest, "MANIFEST", tmp_path / "manifest.json")
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.delenv(command.MIRROR_VARIABLE, raising=False)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield known
    http.shutdown()
    thread.join()
    http.server_close()


def fetch(root: Path, *options: str, name: str = "twitter2017") -> int:
    return main(["fetch-data", name, "--to", str(root), "--accept-terms", *options])


def kept(root: Path) -> list[str]:
    """Names of the remaining files, without hidden files and the manifest."""
    files = (path.relative_to(root) for path in root.rglob("*") if path.is_file() and path.name[0] != ".")
    return sorted(str(path) for path in files if path.name != "manifest.json")


def test_the_manifest_lists_commits_checksums_and_destinations() -> None:
    for name in manifest.READERS:
        found = data_set(name)
        reader = found.reader(Path("root"))
        assert {Path("root") / text.path for text in found.texts} == {
            reader.text_file(split) for split in command.SPLITS
        }
        for text in found.texts:
            assert len(bytes.fromhex(text.sha256 or "")) == 32
        for file in (*found.texts, *found.captions):
            assert len(bytes.fromhex(file.address.split("/")[5])) == 20, "not of a commit"


@pytest.mark.smoke
def test_a_set_is_fetched_into_its_layout_and_checked(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    assert fetch(root) == 0
    printed = capsys.readouterr()
    assert "the copyrights of Twitter" in printed.err
    assert "fine (exit status 0)" in printed.out
    assert kept(root) == [
        *(f"twitter2017/{split}.txt" for split in ("test", "train", "valid")),
        *(f"twitter2017_images/{split}_{n}.jpg" for split in ("test", "train", "valid") for n in (1, 2)),
    ]
    # The archive has the folders of both sets: only that of this set is extracted.
    assert b"17train1" in (root / "twitter2017_images" / "train_1.jpg").read_bytes()
    assert (root / "twitter2017" / "train.txt").stat().st_mode & 0o777 == 0o666 & ~command._umask()
    server.requests.clear()
    assert fetch(root) == 0
    assert not server.requests, "what is complete is not downloaded again"


def test_mnre_is_fetched_from_a_tar_archive_with_captions(server: Server, tmp_path: Path) -> None:
    assert fetch(tmp_path / "mnre", "--captions", name="mnre") in (0, 1)
    assert kept(tmp_path / "mnre") == [
        "captions/mnre.jsonl",
        *(f"img_org/{split}/{split}.jpg" for split in ("test", "train", "val")),
        *(f"txt/ours_{split}.txt" for split in ("test", "train", "val")),
    ]
    rows = [json.loads(line) for line in (tmp_path / "mnre" / "captions" / "mnre.jsonl").read_text().splitlines()]
    models = ("blip", "instructblip", "llava-next")
    assert rows == [{"image": "train.jpg", "captions": {model: model for model in models}}]


def test_text_and_captions_can_be_fetched_alone(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Captions are checked against the posts; a second set in the same folder is accepted."""
    assert fetch(tmp_path, "--text-only", name="twitter2015") in (0, 1)
    assert fetch(tmp_path, "--text-only", "--captions") == 0
    assert "side texts" in capsys.readouterr().out
    assert not server.asked("twitter_images")
    assert json.loads((tmp_path / "captions" / "twitter2017.jsonl").read_text()) == {
        "image": "train_1.jpg",
        "captions": {"blip2": "a dog: asleep"},
    }


def test_no_request_is_made_before_the_terms_are_accepted(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch-data", "twitter2017", "--to", str(tmp_path / "data")]) == 2
    assert "add --accept-terms" in capsys.readouterr().err
    assert not server.requests
    assert not (tmp_path / "data").exists()


def test_an_interrupted_download_is_resumed(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.cuts["twitter_images"] = MEGABYTE + 1000
    assert fetch(tmp_path) == 2
    assert "Run the command again, which resumes" in capsys.readouterr().err
    assert not (tmp_path / "twitter2017_images").exists()
    assert fetch(tmp_path) == 0
    assert server.asked("twitter_images")[-1] == f"bytes={MEGABYTE}-"
    assert len(server.asked("texts/twitter2017/train.txt")) == 1


def test_a_brief_interruption_is_resumed_within_the_call(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RETRIES", 1)
    server.cuts["twitter_images"] = MEGABYTE + 1000
    assert fetch(tmp_path) == 0
    assert server.asked("twitter_images") == [None, f"bytes={MEGABYTE}-"]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ((404, {}), "the file is not there (status 404)"),
        ((429, {"Retry-After": "120"}), "too many requests (status 429); try again in 120 seconds"),
        ((503, {}), "status 503"),
    ],
)
def test_http_errors_are_reported(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], status: Any, message: str
) -> None:
    server.status["texts/twitter2017/train.txt"] = status
    assert fetch(tmp_path) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "name another address with --mirror" in printed
    assert not kept(tmp_path)


def test_a_text_that_differs_from_the_release_is_discarded(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = server.files["texts/twitter2017/train.txt"]
    server.files["texts/twitter2017/train.txt"] = right + b"\n"
    assert fetch(tmp_path) == 2
    assert "another file than the released one, by its SHA-256" in capsys.readouterr().err
    assert not kept(tmp_path)
    server.files["texts/twitter2017/train.txt"] = right
    assert fetch(tmp_path) == 0


@pytest.mark.parametrize("path", ["twitter_images", "texts/twitter2017/train.txt"])
def test_a_web_page_instead_of_a_file_is_refused(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    right, server.files[path] = server.files[path], LOGIN
    assert fetch(tmp_path) == 2
    assert "a web page came in place of the file" in capsys.readouterr().err
    server.files[path] = right
    assert fetch(tmp_path) == 0, "the page was not kept"


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (zipped({"../train_1.jpg": b"x"}), "leads out of it, '../train_1.jpg'"),
        (zipped({"/train_1.jpg": b"x"}), "leads out of it, '/train_1.jpg'"),
        (zipped({"a\\..\\..\\train_1.jpg": b"x"}), "leads out of it"),
        (tarred({"ok/../../train_1.jpg": b"x"}), "leads out of it"),
        (linking_zip(), "holds a link or a device, 'train_1.jpg'"),
        (tarred({}, link="/etc/passwd"), "holds a link or a device, 'train_1.jpg'"),
        (tarred({"train_1.jpg": bytes(18 << 20)}), "holds more than images do"),
        (zipped({"train_1.jpg": b"x"})[:-30] + bytes(30), "neither a zip nor a tar archive"),
        (zipped({"train_1.jpg": b"01234567"}).replace(b"01234567", b"01234568"), "is damaged: Bad CRC-32"),
        (zipped({"elsewhere.jpg": b"x"}), "holds none of the images that the posts name"),
        (b"Rar!", "neither a zip nor a tar archive"),
    ],
)
def test_a_hostile_or_useless_archive_leaves_no_files(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], archive: bytes, message: str
) -> None:
    server.files["twitter_images"] = archive
    root = tmp_path / "below" / "data"
    assert fetch(root) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "--text-only" in printed
    assert kept(root) == [f"twitter2017/{split}.txt" for split in ("test", "train", "valid")]
    assert not list(tmp_path.glob("**/train_1.jpg"))


def test_mirrors_are_tried_first_and_the_authors_address_last(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["copy/twitter2017/train.txt"] = server.files["texts/twitter2017/train.txt"]
    server.files["copy/twitter2017/valid.txt"] = b"others"
    assert fetch(tmp_path / "option", "--text-only", "--mirror", f"{server.address}/copy/") == 0
    assert not server.asked("texts/twitter2017/train.txt")
    assert server.asked("copy/twitter2017/valid.txt")
    assert server.asked("texts/twitter2017/valid.txt")
    monkeypatch.setenv(command.MIRROR_VARIABLE, f"{server.address}/nowhere {server.address}/copy")
    server.files.pop("texts/twitter2017/test.txt")
    assert fetch(tmp_path / "variable", "--text-only") == 2
    assert capsys.readouterr().err.count("the file is not there (status 404)") == 3, "each address and its reason"


def test_a_full_disk_while_downloading_or_unpacking_is_reported(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("gdown.download", full)
        assert fetch(tmp_path) == 2
    assert "train.txt'; files saved earlier are kept: free disk space" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", full)
        assert fetch(tmp_path) == 2
    assert "train_1.jpg'; files saved earlier are kept: free disk space" in capsys.readouterr().err
    assert not (tmp_path / "twitter2017_images").exists()
    assert fetch(tmp_path) == 0
    assert len(server.asked("twitter_images")) == 1, "the archive that could not be unpacked is kept"


def test_an_unreachable_address_is_reported(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.files.clear()
    assert fetch(tmp_path, "--mirror", "http://127.0.0.1:9") == 2
    assert "http://127.0.0.1:9/twitter2017/train.txt: no connection" in capsys.readouterr().err


def test_a_locally_changed_text_is_not_overwritten(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "twitter2017").mkdir()
    (tmp_path / "twitter2017" / "train.txt").write_text("mine")
    assert fetch(tmp_path) == 2
    assert "differs from the released file: move it away" in capsys.readouterr().err
    assert (tmp_path / "twitter2017" / "train.txt").read_text() == "mine"


def test_unreadable_captions_are_refused(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.files["captions/BLIP_val.txt"] = b"{'img_id': 'a.jpg'}\n"
    assert fetch(tmp_path, "--text-only", "--captions", name="mnre") == 2
    assert "BLIP_val.txt:1: expected the keys 'img_id' and 'text'" in capsys.readouterr().err


def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download, "PACKAGES", ("gdown", "pooch_that_is_not_there"))
    assert fetch(tmp_path) == 2
    assert "install it with `pip install 'mmib[data]'`" in capsys.readouterr().err
