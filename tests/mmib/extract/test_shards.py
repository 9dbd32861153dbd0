"""Shards: together they equal a single extraction, and nothing else is merged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmib.cli import main
from mmib.export.folder import write_export
from mmib.export.model import TrainedModel
from mmib.extract.shards import Shard, is_complete, note_shard, settings_file
from mmib.extract.workers import by_workers
from mmib.schema import ConfigError, RunError

Refused = Callable[..., str]
ROWS = 40  # more than a batch


@pytest.mark.parametrize(("total", "of"), [(0, 1), (1, 3), (64, 2), (65, 2), (1000, 7), (31, 64)])
def test_shards_contain_each_row_once_in_order_and_split_no_batch(total: int, of: int) -> None:
    parts = [Shard(number, of).rows(total, 32) for number in range(1, of + 1)]
    assert [row for part in parts for row in part] == list(range(1, total + 1))
    assert all((part.start - 1) % 32 == 0 for part in parts if part)


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "-1/2", "1/2/3", ""])
def test_an_invalid_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write the number of the shard, from 1, and how many: 3/64"):
        Shard.parse(text)


@pytest.fixture
def extract(make_trained: Callable[..., TrainedModel], tmp_path: Path) -> Callable[..., int]:
    write_export([make_trained("mner"), make_trained("mre")], tmp_path / "model")

    def run(*arguments: str) -> int:
        return main(["extract", "--model", str(tmp_path / "model"), *arguments])

    return run


def write_posts(path: Path, text: str) -> str:
    path.write_text("".join(json.dumps({"text": f"{text} {'the ' * (row % 9)}"}) + "\n" for row in range(ROWS)))
    return str(path)


def test_shards_and_workers_give_the_same_bytes_as_one_extraction(
    extract: Callable[..., int], tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    posts, other = write_posts(tmp_path / "posts.jsonl", "anna meets bob"), write_posts(tmp_path / "other.jsonl", "bob")
    whole = tmp_path / "whole.jsonl"
    assert extract(posts, "-o", str(whole)) == 0
    shards = [tmp_path / f"{number}.jsonl" for number in (1, 2)]
    for number, shard in enumerate(shards, start=1):
        assert extract(posts, "-o", str(shard), "--shard", f"{number}/2") == 0
    assert b"".join(shard.read_bytes() for shard in shards) == whole.read_bytes()
    merged = tmp_path / "merged.jsonl"
    assert main(["merge-shards", *map(str, reversed(shards)), "-o", str(merged)]) == 0
    assert merged.read_bytes() == whole.read_bytes()

    before = shards[0].stat().st_mtime_ns
    assert extract(posts, "-o", str(shards[0]), "--shard", "1/2") == 0  # exists already
    assert shards[0].stat().st_mtime_ns == before

    begun = tmp_path / ".workers.jsonl.3-of-3"
    assert extract(posts, "-o", str(begun), "--shard", "3/3") == 0  # as if written with another number of workers
    assert extract(posts, "-o", str(tmp_path / "workers.jsonl"), "--workers", "2") == 0
    assert (tmp_path / "workers.jsonl").read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".*"))[2:]  # except for the notes of the two shards

    foreign = tmp_path / "foreign.jsonl"
    assert extract(other, "-o", str(foreign), "--shard", "2/2") == 0
    capsys.readouterr()
    again = ("-o", str(tmp_path / "again.jsonl"))
    assert "are shards of different extractions" in refused("merge-shards", str(shards[0]), str(foreign), *again)
    assert "shard 2 of 2 is missing" in refused("merge-shards", str(shards[0]), *again)
    assert "shard 1 of 2 was given more than once" in refused("merge-shards", *[str(shards[0])] * 2, *again)
    assert "is no complete shard" in refused("merge-shards", str(whole), str(shards[1]), *again)
    shards[1].write_text("")
    assert "was changed since it was extracted" in refused("merge-shards", *map(str, shards), *again)
    assert not (tmp_path / "again.jsonl").exists()


@contextmanager
def threads(workers: int, _: Callable[[], None]) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(workers) as pool:
        yield pool


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_any_number_of_workers_can_resume_shards_and_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mmib.extract.workers.worker_pool", threads)
    output, extracted = tmp_path / "out.jsonl", []

    def extract(arguments: list[str], shard: Shard, to: Path) -> None:
        if is_complete(to, shard, {}):
            return
        settings_file(to).write_text("begun")
        if shard.number in map(int, arguments):
            raise RunError("the disk is full")
        extracted.append(str(shard))
        to.write_text(f"{shard}\n")
        note_shard(to, shard, {})

    with pytest.raises(RunError, match="the disk is full"):
        by_workers(extract, ["2"], 3, output)
    (tmp_path / ".out.jsonl.1-of-8").write_text("of another start\n")
    (tmp_path / "link").symlink_to(output)
    by_workers(extract, [], workers, tmp_path / "link")
    assert sorted(extracted) == ["1/3", "2/3", "3/3"]
    assert output.read_text() == "1/3\n2/3\n3/3\n"
    assert ("was begun by 3 processes" in capsys.readouterr().err) == (workers > 3)
    assert {path.name for path in tmp_path.iterdir()} == {"out.jsonl", "link"}


def test_an_output_is_resumed_with_its_original_number_of_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    posts, output = write_posts(tmp_path / "posts.jsonl", "bob"), tmp_path / "out.jsonl"
    (tmp_path / ".out.jsonl.part").write_text("{}\n")
    command = ("extract", "--model", "nowhere", posts, "-o", str(output))
    assert ".out.jsonl.part was begun without --workers" in refused(*command, "--workers", "2")
    (tmp_path / ".out.jsonl.part").rename(tmp_path / ".out.jsonl.1-of-2")
    monkeypatch.setattr("mmib.extract.by_workers", lambda *arguments: arguments[-1].write_text("{}\n"))
    assert main([*command]) == 0
    assert output.read_text() == "{}\n"
