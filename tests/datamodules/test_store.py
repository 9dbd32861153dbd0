"""Posts are read and tokenised once: what is stored, when it is rebuilt, and its memory footprint."""

from __future__ import annotations

import importlib
import os
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmib.datamodules import base as base_module
from mmib.datamodules.located import LocatedImages, LocatedPictures
from mmib.datamodules.mnre import MNREDataModule
from mmib.datamodules.mnre_files import MNREReader
from mmib.datamodules.store import TextStore, code_of
from mmib.datamodules.twitter_files import TwitterReader
from mmib.encoders.text import TextEncoder, WordTokenizer
from mmib.schema import NO_IMAGE, DataError, task_named
from mmib.tasks.mre import RelationExample

Load = Callable[..., MNREDataModule]


def read(module: MNREDataModule, split: str = "train") -> Sequence[RelationExample]:
    return module.read_split(split)


@pytest.fixture
def rows(mnre: Any) -> Any:
    """Rows of various lengths, some of which share an image."""
    for number in range(7):
        words = ["ada", "met", "bob", "c'é\u2028\n", *["w"] * number]
        mnre.row(token=words, img_id=f"{number % 3}.png", head=(1, 3), tail=(2, 3))
    mnre.image("1.png")
    return mnre


@pytest.fixture
def tokenised(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of tokenised posts per call."""
    counts: list[int] = []
    pieces = WordTokenizer.pieces

    def count(self: WordTokenizer, posts: list[list[str]]) -> list[list[list[int]]]:
        counts.append(len(posts))
        return pieces(self, posts)

    monkeypatch.setattr(WordTokenizer, "pieces", count)
    return counts


def stores(module: MNREDataModule) -> list[Path]:
    return sorted((module.cache_dir / "posts").glob("*.npz"))


def test_posts_are_tokenised_once_and_round_trip(rows: Any, load: Load, tokenised: list[int]) -> None:
    first = list(read(load()))
    assert tokenised == [7]
    assert list(read(load())) == first
    assert tokenised == [7]
    assert first[6].words == ["ada", "met", "bob", "c'é\u2028\n", *["w"] * 6]
    assert (first[0].head, first[0].tail) == ((1, 3), (2, 3))
    assert [example.image_id for example in first] == [NO_IMAGE, 0, NO_IMAGE, NO_IMAGE, 0, NO_IMAGE, NO_IMAGE]


def test_images_are_searched_again_each_time(rows: Any, load: Load, tokenised: list[int]) -> None:
    assert not read(load())[0].pictures
    rows.image("0.png", "blue")
    assert [bool(example.pictures) for example in read(load())] == [True, True, False, True, True, False, True]
    assert len(tokenised) == 1


def test_posts_are_tokenised_in_small_chunks(
    rows: Any, load: Load, tokenised: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(read(load()))
    monkeypatch.setattr(base_module, "POSTS_TOKENISED", 3)
    tokenised.clear()
    assert list(read(load(cache_dir=str(rows.root / "other")))) == whole
    assert tokenised == [3, 3, 1]


def test_other_texts_lengths_tokenizers_label_sets_or_code_have_separate_stores(
    rows: Any, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [len(stores(module)) for module in [load()] for _ in [read(module)]]
    for options in ({"max_length": 10}, {"max_length": 10}):
        module = load(**options)
        read(module)
        found.append(len(stores(module)))
    rows.row()
    module = load()
    assert len(read(module)) == 8
    found.append(len(stores(module)))
    names = module.labels.names
    for labels in (list(names), {"names": list(names), "negative": "None"}, [*names[1:], names[0]], [*names, "more"]):
        module = load(labels=labels)
        read(module)
        found.append(len(stores(module)))
    monkeypatch.setattr(base_module, "code_of", lambda *kinds: "changed")
    read(module)
    found.append(len(stores(module)))
    monkeypatch.setattr(WordTokenizer, "fingerprint", lambda self: "another")
    read(module)
    found.append(len(stores(module)))
    assert found == [1, 2, 2, 3, *[4, 5, 6, 7], 8, 9]


def test_a_tokenizer_is_identified_by_its_behaviour(
    text_encoder: TextEncoder, encoder_files: Any, tmp_path: Path
) -> None:
    same = TextEncoder(encoder_files.text, pretrained=False).tokenizer
    assert same.fingerprint() == text_encoder.tokenizer.fingerprint()
    for file in Path(encoder_files.text).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text(encoding="utf-8").replace('"meets"', '"meetz"'), encoding="utf-8")
    assert TextEncoder(str(tmp_path)).tokenizer.fingerprint() != same.fingerprint()


def test_the_code_of_a_reader_and_a_task_includes_their_modules() -> None:
    class Custom(MNREReader):
        pass

    mre, mner = type(task_named("mre")), type(task_named("mner"))
    kinds = [(reader, task) for reader in (MNREReader, TwitterReader, Custom) for task in (mre, mner)]
    assert len({code_of(*pair) for pair in kinds}) == 6
    assert code_of(Custom, mre) == code_of(Custom, mre)


MODULES = {
    "custom_reader": "from mmib.datamodules.mnre_files import MNREReader\nclass Custom(MNREReader):\n    pass\n",
    "custom_base": "from mmib.tasks.mre import RelationExtraction\nclass Base(RelationExtraction):\n    pass\n",
    "custom_task": "from custom_base import Base\nclass Custom(Base):\n    pass\n",
}


@pytest.mark.parametrize("edited", MODULES)
def test_a_change_in_a_module_or_base_class_of_a_reader_or_task_changes_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    reader, task = (importlib.import_module(name).Custom for name in ("custom_reader", "custom_task"))
    before = code_of(reader, task)
    (tmp_path / f"{edited}.py").write_text(MODULES[edited] + "# changed\n")
    assert code_of(reader, task) != before


@pytest.mark.parametrize("module", ["mmib.datamodules.words", "mmib.encoders.text", "mmib.tagging", "mmib.tasks.base"])
def test_a_change_in_a_module_that_makes_examples_changes_the_code(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """Including modules that a task imports its tags from, and base classes."""
    changed = Path(importlib.import_module(module).__file__ or "").resolve()
    kinds = MNREReader, type(task_named("mre"))
    before = code_of(*kinds)
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read_bytes(path) + b"#" * (path.resolve() == changed))
    assert code_of(*kinds) != before


@pytest.mark.parametrize("ending", [".jsonl", ".npz"])
@pytest.mark.parametrize("damage", ["cut", "overwritten", "emptied", "gone"])
def test_a_damaged_store_is_rebuilt(
    rows: Any, load: Load, tokenised: list[int], caplog: pytest.LogCaptureFixture, ending: str, damage: str
) -> None:
    module = load()
    whole = list(read(module))
    (index,) = stores(module)
    file = index.with_suffix(ending)
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(
            {"cut": content[:-5], "overwritten": content[:40] + b"#" + content[41:], "emptied": b""}[damage]
        )
    again = list(read(load()))
    assert again == whole
    if ending == ".jsonl" or damage != "overwritten":
        assert tokenised == [7, 7]
    assert ("made again" in caplog.text) == (tokenised == [7, 7] and (ending, damage) != (".npz", "gone"))


def test_refused_rows_leave_no_store(rows: Any, load: Load) -> None:
    rows.line("{")
    module = load()
    with pytest.raises(DataError, match=r"ours_train\.txt:8: not a Python literal"):
        read(module)
    assert not stores(module)
    rows.text("train").write_text("".join(rows.text("train").read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="max_length 7 is too short for 7 rows:"):
        read(load(max_length=7))
    assert not stores(module)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_error_names_a_remedy(rows: Any, load: Load, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(DataError, match=r"cannot be written: .*--data.cache_dir"):
        read(load(images="none"))


def test_a_file_instead_of_the_folder_error_names_a_remedy(rows: Any, load: Load, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written: .*--data.cache_dir"):
        read(load(images="none", cache_dir=str(tmp_path / "file")))


def test_examples_are_a_sequence(rows: Any, load: Load) -> None:
    examples = read(load())
    assert len(examples) == 7
    assert examples[-1] == examples[6]
    assert examples[2:5] == [examples[2], examples[3], examples[4]]
    assert [example.row for example in examples] == list(range(7))
    with pytest.raises(IndexError):
        examples[7]


def test_located_images_are_a_sequence() -> None:
    images = LocatedImages(LocatedPictures([(NO_IMAGE, ()), (4, ())]), np.array([1, 0, 1], dtype=np.int32))
    assert list(images) == [(4, ()), (NO_IMAGE, ()), (4, ())]
    assert list(images[1:]) == [(NO_IMAGE, ()), (4, ())]


@pytest.mark.parametrize("name", ["rows", "my.data-mner-train-ab"])
def test_a_missing_store_is_written_with_its_note(tmp_path: Path, name: str) -> None:
    example = RelationExample(
        row=0,
        words=["a"],
        input_ids=[1, 2],
        word_ids=[0, -1],
        mentions=[0, 0],
        head=(0, 1),
        tail=(0, 1),
        head_index=0,
        tail_index=1,
        label=3,
    )
    store = TextStore.opened(tmp_path / "new" / name, [("a.jpg", example)], lambda: "one row, é")
    assert (store.note, store.pieces.tolist(), list(store.images())) == ("one row, é", [2], ["a.jpg"])
    again = TextStore.opened(tmp_path / "new" / name, iter(()), lambda: "not asked")
    assert (again.note, again[0]) == ("one row, é", store[0])
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [
        f"{name}.{e}" for e in ("jsonl", "lock", "npz")
    ]


def held(module: MNREDataModule) -> int:
    """Bytes of memory that a split takes after being read and iterated over."""
    read(module)
    tracemalloc.start()
    examples = read(module)
    for example in examples:
        assert example.input_ids
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size


def test_a_post_takes_only_a_few_bytes_of_memory(mnre: Any, load: Load) -> None:
    sizes = []
    for posts in (50, 450):
        mnre.text("train").unlink(missing_ok=True)
        for number in range(posts):
            mnre.row(token=["ada", "met", "bob", *["w"] * 20], img_id=f"{number % 5}.jpg")
        sizes.append(held(load()))
    assert (sizes[1] - sizes[0]) / 400 < 40
