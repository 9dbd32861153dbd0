"""Which data a folder or file contains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmib.datamodules.columns_files import ColumnsReader
from mmib.datamodules.init.recognise import Given, find_data
from mmib.datamodules.jsonl_files import JSONLinesReader
from mmib.datamodules.mnre_files import MNREReader
from mmib.datamodules.twitter_files import TwitterReader
from mmib.schema import ConfigError, DataError

Write = Callable[[str, str], Path]


@pytest.fixture
def entities(invented: Any) -> str:
    """20 posts without relations, as JSON lines."""
    return invented.lines([post | {"relations": []} for post in invented.posts(20)])


@pytest.fixture
def columns(invented: Any) -> str:
    """The same posts in columns."""
    return invented.columns(invented.posts(20))


def test_json_lines_in_one_file_are_recognised(tmp_path: Path, write: Write, entities: str) -> None:
    file = write("posts.jsonl", entities)
    for path in (file, tmp_path):
        found = find_data(path, Given())
        reader = found.reader(None)
        assert isinstance(reader, JSONLinesReader)
        assert found.task == "mner"
        assert found.settings == {"root": str(path), "task": "mner", "holdout": 0.2, "test_holdout": 0.2}
        posts = [post for split in ("train", "val", "test") for post in reader.posts(split)]
        assert len(posts) == 20
        assert {tag for post in posts for tag in post.tags} == {"O", "B-TEAM", "I-TEAM", "B-PRODUCT", "I-PRODUCT"}


def test_additional_keys_may_have_names_from_other_formats(invented: Any, write: Write) -> None:
    posts = [post | {"label": "sports", "labels": ["a"], "notes": "b"} for post in invented.posts(20)]
    assert find_data(write("posts.jsonl", invented.lines(posts)), Given(task="mner")).title == "posts as JSON lines"


def test_nothing_is_held_out_where_splits_have_files(tmp_path: Path, write: Write, entities: str) -> None:
    for name in ("train", "dev"):
        write(f"{name}.jsonl", entities)
    found = find_data(tmp_path, Given())
    assert "holdout" not in found.settings
    assert [len(list(found.reader(None).posts(split))) for split in ("train", "val")] == [20, 20]
    assert not found.reader(None).has_split("test")


@pytest.mark.parametrize("name", ["val.jsonl", "dev.jsonl"])
def test_a_training_file_is_read_as_by_the_data_module(tmp_path: Path, write: Write, invented: Any, name: str) -> None:
    counts = {"train.jsonl": 50, name: 20, "test.jsonl": 10}
    for seed, (file, count) in enumerate(counts.items()):
        write(file, invented.lines(invented.posts(count, seed)))
    found = find_data(tmp_path / "train.jsonl", Given(task="mner"))
    chosen = JSONLinesReader(Path(found.settings["root"]), "mner")  # with the data module's default shares
    for reader in (found.reader(None), chosen):
        assert [len(list(reader.posts(split))) for split in ("train", "val", "test")] == [50, 20, 10]


def test_validation_posts_are_held_out_if_only_a_test_file_exists(tmp_path: Path, invented: Any, write: Write) -> None:
    for name in ("train", "test"):
        write(f"{name}.jsonl", invented.lines(invented.posts(60)))
    found = find_data(tmp_path, Given(task="mre"))
    assert found.settings["holdout"] == 0.2
    assert found.settings["test_holdout"] == 0.0
    assert sum(len(list(found.reader(None).posts(split))) for split in ("train", "val")) == 60


def test_large_data_sets_hold_out_a_smaller_share(invented: Any, write: Write) -> None:
    lines = invented.lines(invented.posts(1_000))
    assert find_data(write("a.jsonl", lines), Given(task="mre")).settings["holdout"] == 0.1


def test_data_with_relations_requires_a_task(invented: Any, write: Write) -> None:
    file = write("posts.jsonl", invented.lines(invented.posts(20)))
    with pytest.raises(ConfigError, match=r"posts.jsonl holds entities and relations: choose with --task mner or"):
        find_data(file, Given())
    assert find_data(file, Given(task="mner")).task == "mner"
    assert find_data(file, Given(task="mre")).makes_negatives


def test_columns_with_a_readme_and_images_are_recognised(tmp_path: Path, write: Write, columns: str) -> None:
    write("train.txt", columns)
    write("valid.txt", columns)
    write("README.txt", "About this data.\nIt is not in columns.\n")
    found = find_data(tmp_path, Given())
    assert isinstance(found.reader(None), ColumnsReader)
    assert (found.settings["word_column"], found.settings["tag_column"]) == (0, -1)
    (remark,) = found.remarks
    assert remark == (
        "read as 2 columns with tabs or blanks between them, words in column 0, tags in column 1, the last: "
        "--separator, --word-column and --tag-column change it"
    )
    assert len(list(found.reader(None).posts("val"))) == 20


def test_a_readme_next_to_json_lines_is_ignored(tmp_path: Path, write: Write, entities: str) -> None:
    write("posts.jsonl", entities)
    write("README.txt", "About this data.\nIt is not in columns.\n")
    assert find_data(tmp_path, Given()).title == "posts as JSON lines"


def test_the_layouts_of_released_sets_are_recognised(tmp_path: Path, invented: Any, write: Write) -> None:
    write("a/txt/ours_train.txt", invented.mnre("makes"))
    write("b/twitter2015/train.txt", "IMGID:1\nAcme\tB-TEAM\n")
    for path in (tmp_path / "a", tmp_path / "a" / "txt"):
        assert isinstance(find_data(path, Given()).reader(None), MNREReader)
        assert find_data(path, Given()).settings == {"root": str(tmp_path / "a")}
    for path in (tmp_path / "b", tmp_path / "b" / "twitter2015"):
        assert isinstance(find_data(path, Given("mner")).reader(None), TwitterReader)
        assert find_data(path, Given()).settings == {"root": str(tmp_path / "b"), "year": 2015}


def test_several_sets_in_a_folder_are_ambiguous(tmp_path: Path, invented: Any, write: Write) -> None:
    write("txt/ours_train.txt", invented.mnre("makes"))
    write("twitter2015/train.txt", "IMGID:1\nAcme\tB-TEAM\n")
    with pytest.raises(
        ConfigError, match=r"MNRE's layout \(for mre\) and .*Twitter-2015 \(for mner\): choose with --t"
    ):
        find_data(tmp_path, Given())
    assert find_data(tmp_path, Given(task="mre")).task == "mre"
    write("twitter2017/train.txt", "IMGID:1\nAcme\tB-TEAM\n")
    with pytest.raises(ConfigError, match="name the folder or file of one"):
        find_data(tmp_path, Given(task="mner"))


def test_data_that_does_not_fit_the_task_is_refused(write: Write, columns: str) -> None:
    file = write("a.conll", columns)
    with pytest.raises(ConfigError, match=r"holds posts in columns \(for mner\), and nothing for --task mre"):
        find_data(file, Given(task="mre"))


TASKS = [{"id": 1, "data": {"text": "a"}, "annotations": []}]


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("export.json", json.dumps(TASKS), "an export of Label Studio: mmib convert"),
        (
            "posts.json",
            '[\n{"text": "a", "entities": []}\n]\n',
            "is one JSON list of posts: write each post as one object",
        ),
        ("export.jsonl", '{"id": 1, "text": "a", "label": []}\n', "an export of doccano: mmib convert"),
        ("rows.txt", "{'token': ['a'], 'img_id': 'a.jpg'}\n", "holds rows of MNRE: mmib check-data"),
        ("data.bin", "\0\1", "holds no data that mmib can train on. It reads MNRE's layout"),
        ("a.jsonl", '{"words": ["a"]}\n', "a.jsonl:1: give a post either 'text' or 'tokens'"),
        ("a.jsonl", '\n{"text": "a", "entities": [],}\n', "a.jsonl:2: not JSON"),
        ("a.jsonl", "[1, 2]\n", "docs/reference/formats.md"),
        ("a.jsonl", "", "a.jsonl is empty. It reads MNRE's layout"),
        ("a.txt", "", "a.txt has no column of tags"),
        ("a.txt", "{", "a.txt holds JSON, which is read from files that end in .jsonl"),
    ],
)
@pytest.mark.parametrize("as_folder", [True, False])
def test_other_data_is_refused_with_the_known_formats(
    tmp_path: Path, write: Write, name: str, text: str, hint: str, as_folder: bool
) -> None:
    file = write(name, text)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(DataError) as refused:
        find_data(tmp_path if as_folder else file, Given())
    assert hint in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "names", [("en_dev.jsonl", "en_train.jsonl"), ("captions.jsonl", "posts.jsonl"), ("val.conll",)]
)
def test_files_of_which_none_is_called_train_are_listed(
    tmp_path: Path, write: Write, entities: str, names: tuple[str, ...]
) -> None:
    for name in names:
        write(name, entities)
    with pytest.raises(DataError) as refused:
        find_data(tmp_path, Given())
    assert f"no file is called train, only {', '.join(names)}: name the file to train on" in str(refused.value)


@pytest.mark.parametrize("path", ["nowhere", "nowhere.jsonl"])
def test_a_missing_path_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match="does not exist"):
        find_data(tmp_path / path, Given())


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_bytes("Köln B-LOC\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        find_data(tmp_path, Given())


@pytest.mark.parametrize("given", [{"tag_column": 1}, {"separator": "\t", "tag_column": -1}, {"word_column": 2}])
def test_options_reach_the_reader_and_the_configuration(invented: Any, write: Write, given: dict[str, Any]) -> None:
    file = write("a.conll", invented.columns(invented.posts(20), "\t", ("O", "B-X")))
    found = find_data(file, Given(**given))
    reader = found.reader(None)
    assert isinstance(reader, ColumnsReader)
    for key, value in given.items():
        assert found.settings[key] == value == getattr(reader, key)
