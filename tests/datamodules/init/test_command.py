"""`mmib init`: what it reports about data, and the configuration it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmib.cli import main
from mmib.datamodules.labels import label_set
from mmib.datamodules.released import MNRE, TWITTER
from mmib.labels import LabelSet

Look = Callable[..., Any]
Write = Callable[[str, str], Path]


def settings(file: Path) -> dict[str, Any]:
    """The data module's arguments in a configuration."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    return dict(content["data"]["init_args"])


# Reports


def test_counts_match_the_posts(look: Look, folder: Path, invented: Any) -> None:
    result = look(folder, "--task", "mner")
    assert result.status == 0
    rows = {
        cells[0]: cells[1:]
        for cells in ([c.strip() for c in line.strip("│").split("│")] for line in result.output.splitlines())
        if len(cells) == 5
    }
    assert {"train", "val", "test"} <= rows.keys()
    assert sum(int(rows[split][0]) for split in ("train", "val", "test")) == 60
    found = [rows[split][3].split(" of ") for split in ("train", "val", "test")]
    pictured = [post["image"] for post in invented.posts(60) if "image" in post]
    assert sum(int(named) for _, named in found) == len(pictured) == 20
    assert sum(int(there) for there, _ in found) == 18
    assert f"not in {folder / 'images'}: " in result.output
    assert result.output.count("--images") == 1
    assert "held out of the training posts: 20% for val and 20% for test; val.jsonl and test.jsonl" in result.output


def test_lines_are_wrapped(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(folder.parent)
    assert main(["init", folder.name, "--task", "mner"]) == 0
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80
    assert "\n    " in output


def test_labels_are_counted_per_split(look: Look, write: Write, invented: Any) -> None:
    posts = invented.posts(30)
    for name, part in (("train", posts[:20]), ("dev", posts[20:])):
        write(f"{name}.jsonl", invented.lines(part))
    result = look(write("note", "").parent, "--task", "mre")
    for split, part in (("train", posts[:20]), ("val", posts[20:])):
        types = [post["relations"][0]["type"] for post in part]
        counts = ", ".join(f"{name} {types.count(name)}" for name in ("breaks", "makes", "sells"))
        assert f"{split} labels: {counts}" in result.output
    assert "no relation is named 'none' or similar, so all count" in result.output
    assert "there is nothing to test with" in result.output


def test_unreadable_posts_are_counted(look: Look, write: Write, invented: Any) -> None:
    broken = '{"text": "Acme", "entities": [{"start": 0, "end": 99, "type": "TEAM"}]}\n'
    file = write("train.jsonl", invented.lines(invented.posts(20)) + broken + "{\n")
    write("val.jsonl", invented.lines(invented.posts(20)))
    result = look(file.parent, "--task", "mner")
    assert result.status == 0
    assert f"train: 2 posts cannot be read: correct them before you train. The first: {file}:21: " in result.output


def test_posts_without_a_label_are_refused_with_the_error_of_those_that_cannot_be_read(
    look: Look, write: Write, invented: Any
) -> None:
    posts = [post | {"entities": [], "relations": []} for post in invented.posts(30)]
    file = write("train.jsonl", '{"text": "Acme", "entities": [[0, 4, "TEAM"]]}\n' + invented.lines(posts))
    result = look(file, "--task", "mner")
    assert result.status == 2
    assert (
        f"holds nothing that is labelled: there is nothing to learn; the first error in it is: {file}:1"
        in result.errors
    )


def test_a_malformed_line_of_a_shared_file_is_reported_once(look: Look, write: Write, invented: Any) -> None:
    file = write("posts.jsonl", invented.lines(invented.posts(30)) + "{\n")
    result = look(file, "--task", "mner")
    assert result.output.count("cannot be read") == 1
    assert "train, val, test: 1 post cannot be read: correct them" in result.output


def test_data_with_none_of_its_images_is_reported_as_text_only(look: Look, write: Write, invented: Any) -> None:
    file = write("elsewhere/posts.jsonl", invented.lines(invented.posts(30)))
    assert (
        f"no image was found in {file.parent}, so this would train on text alone: name their folder"
        in look(file, "--task", "mner").output
    )


def test_a_rare_label_similar_to_a_frequent_one_is_reported_as_a_possible_typo(look: Look, write: Write) -> None:
    post = '{{"text": "Acme", "entities": [{{"start": 0, "end": 4, "type": "{}"}}]}}\n'
    names = [*["TEAM"] * 20, *["VENUE"] * 20, "TAEM", "Venue", "SPORT"]
    file = write("train.jsonl", "".join(post.format(name) for name in names))
    write("val.jsonl", post.format("TEAM"))
    result = look(file.parent).output
    assert f"'TAEM' (1, first at {file}:41) is nearly 'TEAM' (21): correct it if it is a typo" in result
    assert f"'Venue' (1, first at {file}:42) is nearly 'VENUE' (20)" in result
    assert "'SPORT'" not in result


def test_image_paths_outside_the_folder_cannot_be_read(look: Look, write: Write) -> None:
    post = {"text": "Acme", "image": "../a.jpg", "entities": [{"start": 0, "end": 4, "type": "TEAM"}]}
    file = write(
        "train.jsonl", json.dumps(post) + '\n{"text": "b", "entities": [{"start": 0, "end": 1, "type": "X"}]}\n'
    )
    write("val.jsonl", file.read_text(encoding="utf-8"))
    result = look(file.parent).output
    assert "train: 1 post cannot be read" in result
    assert "val: 1 post cannot be read" in result


def test_changes_by_the_reader_are_reported(look: Look, write: Write) -> None:
    text = "".join(
        f"{word}{number} {tag}\n" for number in range(40) for word, tag in (("\u4e2d", "B-LOC"), ("a", "E-LOC"))
    )
    file = write("train.conll", text.replace("E-LOC\n", "E-LOC\n\n") + "the O\n")
    write("val.conll", text + "the O\n")
    result = look(file.parent)
    assert "converted from BIOES to BIO" in result.output
    assert "train labels: LOC 40" in result.output


# The configuration


def test_the_configuration_contains_the_recognised_settings(look: Look, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    result = look(folder, "--task", "mre", "-o", file, "--negative", "nothing", "--images", folder / "images")
    assert result.output.splitlines()[-1] == f"{file} is written; train with: mmib fit --config {file}"
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert content["include"] == ["base.yaml", "model/mre.yaml", "model/offline.yaml"]
    assert content["name"] == "mine"
    chosen = settings(file)
    assert label_set(chosen["labels"]) == LabelSet(("nothing", "breaks", "makes", "sells"), "nothing")
    assert chosen["root"] == str(folder)
    assert chosen["image_folder"] == str(folder / "images")
    assert chosen["max_length"] == 128  # all posts are shorter
    # 2 of 20 images are missing, at most 2 of a split.
    assert 0.05 <= chosen["max_missing_images"] <= 1.0


def test_unrelated_pairs_are_counted_as_rows(look: Look, folder: Path) -> None:
    """Each post has two entities and one relation: the opposite order is a row of the negative class."""
    without, made = (look(folder, "--task", "mre", *more).output for more in ([], ["--negative", "nothing"]))
    count = int(without.split("train │")[1].split("│")[0])
    assert f"train labels: nothing {count}" in made
    assert int(made.split("train │")[1].split("│")[0]) == 2 * count


@pytest.mark.parametrize(("missing", "tolerated"), [(range(0), 0.05), (range(3), 0.15), (range(20), 1.0)])
def test_max_missing_images_is_set_to_the_actual_share(
    look: Look, write: Write, tmp_path: Path, missing: range, tolerated: float
) -> None:
    posts = [
        {"text": f"w{n}", "image": f"{n}.png", "entities": [{"start": 0, "end": 1, "type": "X"}]} for n in range(20)
    ]
    for split in ("train", "val"):
        write(f"data/{split}.jsonl", "".join(json.dumps(post) + "\n" for post in posts))
    for number in range(20):
        if number not in missing:
            write(f"data/images/{number}.png", "")
    look(tmp_path / "data", "-o", tmp_path / "a.yaml")
    assert settings(tmp_path / "a.yaml")["max_missing_images"] == tolerated


NAMES = [
    "None",
    "null",
    "no",
    "1",
    "1e3",
    "a: b",
    "# x",
    "a  # b",
    "it's",
    'say "x"',
    "Straße",
    "\u4e2d\u6587",
    "-",
    "[a]",
    "*",
    "?",
    "C-3",
]


def test_any_label_round_trips(look: Look, write: Write, tmp_path: Path) -> None:
    posts = [{"text": f"w{n}", "entities": [{"start": 0, "end": 1, "type": name}]} for n, name in enumerate(NAMES)]
    for split in ("train", "val"):
        write(f"data/{split}.jsonl", "".join(json.dumps(post) + "\n" for post in posts))
    assert look(tmp_path / "data", "-o", tmp_path / "a.yaml").status == 0
    assert label_set(settings(tmp_path / "a.yaml")["labels"]) == LabelSet(tuple(sorted(NAMES)))


@pytest.mark.parametrize(
    ("relations", "options", "negative"),
    [
        (["makes", "None"], [], "None"),
        (["makes", "no_relation"], [], "no_relation"),
        (["makes", "NA"], [], "NA"),
        (["makes", "Other"], [], "Other"),
        (["makes", "sells"], [], None),
        (["makes", "void"], ["--negative", "void"], "void"),
        (["makes", "None", "Other"], ["--negative", "Other"], "Other"),
    ],
)
def test_the_negative_class_of_rows_is_recognised(
    look: Look,
    write: Write,
    invented: Any,
    tmp_path: Path,
    relations: list[str],
    options: list[str],
    negative: str | None,
) -> None:
    for split in ("train", "val"):
        write(f"data/txt/ours_{split}.txt", invented.mnre(*relations))
    assert look(tmp_path / "data", "-o", tmp_path / "a.yaml", *options).status == 0
    found = label_set(settings(tmp_path / "a.yaml")["labels"])
    assert found.negative == negative
    assert set(found.names) == set(relations)


def test_released_label_sets_are_recognised_by_name(look: Look, write: Write, invented: Any, tmp_path: Path) -> None:
    """They include argument types, which cannot be inferred from data."""
    for split in ("train", "val"):
        write(f"a/txt/ours_{split}.txt", invented.mnre("None", "/per/per/peer"))
    for split in ("train", "valid"):
        write(f"b/twitter2015/{split}.txt", "IMGID:1\nAcme\tB-ORG\nof\tO\nBern\tB-OTHER\n")
    for name, labels in (("a", MNRE), ("b", TWITTER)):
        look(tmp_path / name, "-o", tmp_path / f"{name}.yaml")
        assert label_set(settings(tmp_path / f"{name}.yaml")["labels"]) == labels


def test_the_order_of_a_list_of_relations_is_kept(look: Look, write: Write, invented: Any, tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(f"data/txt/ours_{split}.txt", invented.mnre("sells", "makes", "None"))
    write("data/ours_rel2id.json", json.dumps({"sells": 0, "None": 1, "makes": 2, "breaks": 3}))
    result = look(tmp_path / "data", "-o", tmp_path / "a.yaml")
    found = label_set(settings(tmp_path / "a.yaml")["labels"])
    assert found == LabelSet(("sells", "None", "makes", "breaks"), "None")
    assert "no training post has breaks: it cannot be learnt" in result.output
    write("data/ours_rel2id.json", json.dumps({"sells": 0, "None": 1}))
    assert "lacks makes, which is in the posts" in look(tmp_path / "data").errors


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "mner", "--negative", "x"], "--negative x names a relation"),
        ([], "choose with --task"),
        (["--task", "joint"], "invalid choice: 'joint'"),
        (["--task", "mner", "--scheme", "IO"], "invalid choice: 'IO'"),
    ],
)
def test_conflicting_options_are_refused(look: Look, folder: Path, options: list[str], message: str) -> None:
    output = look(folder, *options)
    assert output.status == 2
    assert message in output.errors
    assert output.errors.count("\n") == 1


def test_a_negative_class_must_be_one_of_the_relations(look: Look, write: Write, invented: Any, tmp_path: Path) -> None:
    write("data/txt/ours_train.txt", invented.mnre("makes", "None", "Other"))
    assert "--negative 'x' is not one of the relations" in look(tmp_path / "data", "--negative", "x").errors
    assert "None, Other could all stand for no relation" in look(tmp_path / "data").errors


def test_data_without_labels_is_refused(look: Look, write: Write) -> None:
    file = write("posts.jsonl", "".join(f'{{"text": "a{n}", "entities": []}}\n' for n in range(50)))
    assert "holds nothing that is labelled" in look(file).errors


def test_an_existing_file_is_not_overwritten(look: Look, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: old\n", encoding="utf-8")
    result = look(folder, "--task", "mner", "-o", file)
    assert result.status == 2
    assert f"{file} is there already" in result.errors
    assert file.read_text(encoding="utf-8") == "name: old\n"
    assert look(folder, "--task", "mner", "-o", file, "--force").status == 0
    assert yaml.safe_load(file.read_text(encoding="utf-8"))["name"] == "mine"
    assert "is a folder" in look(folder, "-o", tmp_path).errors


def test_inspecting_writes_nothing(look: Look, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    look(folder, "--task", "mner")
    assert sorted(folder.rglob("*")) == before


def test_help_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["init", "--help"])
    listed = capsys.readouterr().out
    for option in ("--task", "--negative", "--images", "--separator", "--word-column", "--tag-column", "--scheme"):
        assert option in listed
