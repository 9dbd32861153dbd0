"""The corpus on disk: MNRE's layout, the same bytes each time, and all of it or nothing."""

from __future__ import annotations

import ast
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from datamodules.demo import SPLITS, DemoSettings, expected_best_f1, read_ceilings, read_levels, write_demo_corpus
from datamodules.demo import corpus as corpus_module
from mmib.schema import RELATION_IDS, DataError

TINY = DemoSettings(size="tiny", missing=0.1)
CROP_FILES = {"train": "mre_train_dict.pth", "val": "mre_dev_dict.pth", "test": "mre_test_dict.pth"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "corpus"
    assert write_demo_corpus(path, TINY) is True
    return path


def text_rows(root: Path, split: str) -> list[dict[str, Any]]:
    lines = (root / "txt" / f"ours_{split}.txt").read_text(encoding="utf-8").splitlines()
    return [ast.literal_eval(line) for line in lines]


def records(root: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "demo" / name).read_text(encoding="utf-8").splitlines()]


def crop_lists(root: Path, split: str) -> dict[int, list[str]]:
    return dict(torch.load(root / "txt" / CROP_FILES[split], weights_only=True))


def all_bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_second_build_has_the_same_bytes(root: Path, tmp_path: Path) -> None:
    write_demo_corpus(tmp_path / "again", TINY)
    first, second = all_bytes(root), all_bytes(tmp_path / "again")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_workers_draw_the_same_images(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_CHUNK", 8)
    monkeypatch.setattr(corpus_module.os, "cpu_count", lambda: 2)
    write_demo_corpus(tmp_path / "parallel", TINY)
    assert all_bytes(tmp_path / "parallel") == all_bytes(root)


@pytest.mark.parametrize("split", SPLITS)
def test_rows_read_back_as_mnre(root: Path, split: str) -> None:
    for row in text_rows(root, split):
        assert list(row) == ["token", "h", "t", "img_id", "relation"]
        assert row["relation"] in RELATION_IDS
        for mention in (row["h"], row["t"]):
            start, end = mention["pos"]
            assert " ".join(row["token"][start:end]) == mention["name"] != ""
    assert json.loads((root / "ours_rel2id.json").read_text()) == RELATION_IDS


@pytest.mark.parametrize("split", SPLITS)
def test_images_and_crops_are_there_unless_missing(root: Path, split: str) -> None:
    rows, crops = text_rows(root, split), crop_lists(root, split)
    boxes = json.loads((root / "img_vg" / split / "boxes.json").read_text())
    there = {path.name for path in (root / "img_org" / split).iterdir()}
    cut = {path.name for path in (root / "img_vg" / split / "crops").iterdir()}
    assert cut == set(boxes) == {name for names in crops.values() for name in names}
    for number, row in enumerate(rows):
        assert (row["img_id"] in there) == (number in crops)
        assert len(crops.get(number, ["-"])) >= 1
    Image.open(root / "img_org" / split / sorted(there)[0]).verify()


@pytest.mark.parametrize("split", SPLITS)
def test_records_agree_with_the_rows(root: Path, split: str) -> None:
    rows, row_records, posts = (
        text_rows(root, split),
        records(root, f"rows_{split}.jsonl"),
        records(root, f"{split}.jsonl"),
    )
    assert [record["row"] for record in row_records] == list(range(len(rows)))
    assert [record["relation"] for record in row_records] == [row["relation"] for row in rows]
    assert [number for post in posts for number in post["rows"]] == list(range(len(rows)))
    there = {path.name for path in (root / "img_org" / split).iterdir()}
    assert {post["image"] for post in posts if post["image"]} == there
    for post in posts:
        for number, (head, tail, relation) in zip(post["rows"], post["relations"], strict=True):
            assert rows[number]["token"] == post["tokens"]
            assert rows[number]["h"]["pos"] == post["entities"][head][:2]
            assert rows[number]["t"]["pos"] == post["entities"][tail][:2]
            assert rows[number]["relation"] == relation


def test_an_image_that_rows_share_is_there_once(root: Path) -> None:
    rows, posts = text_rows(root, "train"), records(root, "train.jsonl")
    assert len({row["img_id"] for row in rows}) == len(posts) < len(rows)


def test_no_image_stands_in_two_splits(root: Path) -> None:
    images = [{row["img_id"] for row in text_rows(root, split)} for split in SPLITS]
    assert len(set.union(*images)) == sum(map(len, images))


def test_ceilings_follow_from_the_stored_posteriors(root: Path) -> None:
    ceilings, rows = read_ceilings(root, "test"), records(root, "rows_test.jsonl")
    assert ceilings is not None
    for view in ("text", "multimodal"):
        assert ceilings[view] == pytest.approx(expected_best_f1([row[f"posterior_{view}"] for row in rows]))
        for level, part in ceilings["levels"].items():
            members = [row for row in rows if row["level"] == level]
            assert part["rows"] == len(members)
            expected = expected_best_f1([row[f"posterior_{view}"] for row in members])
            assert part["ceiling"][view] == pytest.approx(expected)
        assert ceilings["text"] < ceilings["multimodal"] <= 1.0


def test_levels_have_one_entry_a_row(root: Path, tmp_path: Path) -> None:
    assert read_levels(root, "val") == [row["level"] for row in records(root, "rows_val.jsonl")]
    assert read_levels(tmp_path, "val") is None
    assert read_ceilings(tmp_path, "val") is None


def test_the_same_corpus_is_not_built_twice(root: Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert write_demo_corpus(root, TINY) is False
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == stamps


def test_another_corpus_is_not_overwritten(root: Path) -> None:
    with pytest.raises(DataError, match=r"another demo corpus.*remove it or name another folder"):
        write_demo_corpus(root, DemoSettings(size="tiny", seed=5))


def test_a_folder_with_something_else_is_refused_and_left(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="no demo corpus"):
        write_demo_corpus(tmp_path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(DataError, match="is a file"):
        write_demo_corpus(tmp_path / "thesis.txt", TINY)


def test_a_broken_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("{")
    with pytest.raises(DataError, match=r"demo\.json: not JSON"):
        read_levels(tmp_path, "test")


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert write_demo_corpus(tmp_path, TINY) is True
    assert read_levels(tmp_path, "train")


@pytest.mark.parametrize("error", [RuntimeError("disk on fire"), KeyboardInterrupt()])
def test_an_interrupted_build_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(corpus_module, "_write_truth", fail)
    with pytest.raises(type(error)):
        write_demo_corpus(tmp_path / "corpus", TINY)
    assert list(tmp_path.iterdir()) == []


def test_two_builds_at_once_do_not_collide(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        built = pool.starmap(write_demo_corpus, [(root, TINY)] * 2)
    assert any(built)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
    assert write_demo_corpus(root, TINY) is False


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, datamodules.demo; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False).returncode
        == 0
    )
