"""The reader of MNRE: the real files, and one clear error for every kind of bad row."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from mmib.datamodules.files import Malformed
from mmib.datamodules.mnre_files import MNREReader, check_relation_ids
from mmib.datamodules.posts import RelationPost
from mmib.datamodules.released import MNRE, RELEASED
from mmib.labels import LabelSet
from mmib.schema import UNKNOWN_BOX, WHOLE_IMAGE, DataError

REAL = Path(__file__).parents[3] / "shared" / "data" / "mnre"


def read(mnre: Any, split: str = "train") -> list[Any]:
    return list(MNREReader(mnre.root).posts(split))


# Rows


def test_a_row_keeps_its_words_spans_and_relation(mnre: Any) -> None:
    mnre.row(token=["ada", "met", "bob", "x"], head=(2, 4), tail=(0, 1), relation="/per/org/member_of")
    assert read(mnre) == [
        RelationPost(
            words=["ada", "met", "bob", "x"],
            image="a.jpg",
            place=f"{mnre.text('train')}:1",
            head=(2, 4),
            tail=(0, 1),
            relation="/per/org/member_of",
            names=("ada", "bob"),
        )
    ]


def test_rows_may_be_any_python_literals(mnre: Any) -> None:
    mnre.line(
        "{'token': ['it\\'s', \"d'or\", '\\u00e9', 'a\\\\d', '\U0001f600'], 'h': {'pos': (0, 1)}, "
        "'t': {'pos': [4, 5]}, 'img_id': 'a.jpg', 'relation': 'None', 'extra': None}"
    )
    (row,) = read(mnre)
    assert row.words == ["it's", "d'or", "é", "a\\d", "\U0001f600"]
    assert row.names == (None, None)


def test_rows_from_json_have_their_emoji(mnre: Any) -> None:
    """`json.dumps` escapes an emoji as a pair of surrogates."""
    emoji = "\U0001f600"
    row = mnre.row(token=["ada", emoji, "bob"], h={"name": emoji, "pos": [1, 2]}, img_id=f"{emoji}.jpg", relation=emoji)
    mnre.line(json.dumps(row))
    written, escaped = read(mnre)
    assert (escaped.words, escaped.image, escaped.relation, escaped.names) == (
        ["ada", emoji, "bob"],
        f"{emoji}.jpg",
        emoji,
        (emoji, "bob"),
    )
    assert escaped == dataclasses.replace(written, place=escaped.place)


@pytest.mark.parametrize("relation", ["no_relation", "per:works-for", "属于", " x"])
def test_relations_may_have_any_names(mnre: Any, relation: str) -> None:
    mnre.row(relation=relation)
    assert [row.relation for row in read(mnre)] == [relation]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_a_line_feed_ends_a_row(mnre: Any, separator: str) -> None:
    mnre.line(repr(mnre.row()).replace("met", f"m{separator}t"))
    mnre.row()
    assert [row.words[1] for row in read(mnre)] == ["met", f"m{separator}t", "met"]


def test_windows_line_ends_blank_lines_and_byte_order_marks_are_ignored(mnre: Any) -> None:
    row = mnre.row()
    mnre.text("train").write_bytes(f"\ufeff\r\n{row}\r\n\r\n{row}".encode())
    assert [row.place for row in read(mnre)] == [f"{mnre.text('train')}:2", f"{mnre.text('train')}:4"]
    mnre.text("train").write_bytes(f"\ufeff{row}\r\n\ufeff{row}\r\n".encode())  # two concatenated files
    assert [row.words for row in read(mnre)] == [["ada", "met", "bob"]] * 2


def nothing_but(**changes: Any) -> str:
    row = {"token": ["a", "b"], "h": {"pos": [0, 1]}, "t": {"pos": [1, 2]}, "img_id": "a.jpg", "relation": "None"}
    return repr({key: value for key, value in {**row, **changes}.items() if value != "absent"})


BAD_ROWS = {
    "no literal": ("{'token': [", "not a Python literal"),
    "code": ("__import__('os').system('touch hacked')", "not a Python literal"),
    "an unhashable key": ("{[1]: 2}", "not a Python literal"),
    "too deep": ("(" * 3000, "not a Python literal"),
    "a null byte": ("{'a': '\0'}", "not a Python literal"),
    "JSON": ('{"token": ["a"], "h": null}', "not a Python literal"),
    "a list": ("['a']", "expected a dict, got list"),
    "no words": (nothing_but(token="absent"), "the key 'token' is missing; the row has"),
    "no head": (nothing_but(h="absent"), "the key 'h' is missing"),
    "no tail": (nothing_but(t="absent"), "the key 't' is missing"),
    "no image": (nothing_but(img_id="absent"), "the key 'img_id' is missing"),
    "no relation": (nothing_but(relation="absent"), "the key 'relation' is missing"),
    "an empty sentence": (nothing_but(token=[]), "the sentence is empty"),
    "a sentence as text": (nothing_but(token="a b"), "'token' must be a list of words"),
    "a number among the words": (nothing_but(token=["a", 2]), "'token' must be a list of words"),
    "half a character": (nothing_but(token=["a", "\ud83d"]), "unpaired surrogate"),
    "half a character in the image": (nothing_but(img_id="\ud83d.jpg"), "unpaired surrogate"),
    "half a character in the relation": (nothing_but(relation="\ud83d"), "unpaired surrogate"),
    "an image that is no name": (nothing_but(img_id=3), "'img_id' must be a file name, got 3"),
    "a relation that is no name": (nothing_but(relation=["None"]), r"'relation' must be the name .*, got \['None'\]"),
    "no relation at all": (nothing_but(relation=None), "'relation' must be the name of a relation, got None"),
    "a blank relation": (nothing_but(relation=" "), "'relation' must be the name of a relation, got ' '"),
    "an empty span": (nothing_but(h={"pos": [1, 1]}), r"the span \[1, 1\) of 'h' is empty"),
    "a reversed span": (nothing_but(t={"pos": [2, 0]}), r"the span \[2, 0\) of 't' is reversed"),
    "a span behind the end": (nothing_but(h={"pos": [1, 3]}), r"the span \[1, 3\) of 'h' lies outside .* of 2 words"),
    "a span before the start": (nothing_but(h={"pos": [-1, 1]}), r"the span \[-1, 1\) of 'h' lies outside"),
    "a truth value in a span": (nothing_but(h={"pos": [False, True]}), "'h' must hold 'pos'"),
    "a fraction in a span": (nothing_but(h={"pos": [0.0, 1.0]}), "'h' must hold 'pos'"),
    "text in a span": (nothing_but(h={"pos": "01"}), "'h' must hold 'pos'"),
    "three ends": (nothing_but(h={"pos": [0, 1, 2]}), "'h' must hold 'pos'"),
    "an entity without a span": (nothing_but(t={"name": "b"}), "'t' must hold 'pos'"),
    "an entity that is no dict": (nothing_but(t="b"), "'t' must hold 'pos'"),
}


@pytest.mark.parametrize(("line", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_malformed_row_names_file_and_line_and_the_others_can_be_read(
    mnre: Any, line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mnre.row()
    mnre.line("")
    mnre.line(line)
    mnre.row()
    with pytest.raises(DataError, match=rf"ours_train\.txt:3: .*{message}"):
        read(mnre)
    scanned = list(MNREReader(mnre.root).scan("train"))
    assert [row.line if isinstance(row, Malformed) else 0 for row in scanned] == [0, 3, 0]
    assert not (tmp_path / "hacked").exists()


def test_a_file_that_is_not_utf8_names_the_byte_offset(mnre: Any) -> None:
    mnre.row()
    size = mnre.text("train").stat().st_size
    with mnre.text("train").open("ab") as file:
        file.write("{'token': ['café']}".encode("latin-1"))
    with pytest.raises(DataError, match=rf"ours_train\.txt:\d+ is not UTF-8: byte {size + 15} "):
        read(mnre)


@pytest.mark.parametrize("content", ["", "\n \n\n", "\ufeff"])
def test_a_file_without_rows_is_an_error(mnre: Any, content: str) -> None:
    mnre.text("train").write_text(content)
    with pytest.raises(DataError, match=r"ours_train\.txt holds no rows"):
        read(mnre)


@pytest.mark.parametrize("wrong", ["no folder", "a misnamed file", "a file for a folder", "a folder for a file"])
def test_a_missing_or_misnamed_file_error_describes_the_layout(mnre: Any, wrong: str) -> None:
    root = mnre.root
    if wrong == "no folder":
        root = mnre.root / "nowhere"
    elif wrong == "a misnamed file":
        (mnre.root / "txt" / "our_train.txt").write_text(nothing_but())
    elif wrong == "a file for a folder":
        root = mnre.crops({})
    else:
        mnre.text("train").mkdir()
    for read_split in (MNREReader(root).check, lambda split: list(MNREReader(root).posts(split))):
        with pytest.raises(DataError) as error:
            read_split("train")
        text = str(error.value)
        assert str(mnre.root) in text
        if wrong == "a folder for a file":
            assert "ours_train.txt cannot be read" in text
        else:
            assert "does not exist" in text
            for path in ("txt/ours_train.txt", "img_org/val/<img_id>", "mre_dev_dict.pth", "img_vg/<split>/crops/"):
                assert path in text


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", ".", "x\0.jpg"])
def test_an_image_name_outside_its_folder_is_refused(mnre: Any, name: str) -> None:
    mnre.row()
    mnre.row(img_id=name)
    with pytest.raises(DataError, match=r"ours_train\.txt:2: the file name .* is not inside .*img_org/train"):
        read(mnre)


# Relation ids


def test_the_relation_ids_of_the_label_set_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "ours_rel2id.json"
    check_relation_ids(path, MNRE)
    path.write_text(json.dumps({name: number for number, name in reversed(list(enumerate(MNRE.names)))}))
    check_relation_ids(path, MNRE)
    path.write_text('{"b": 1, "no": 0}')
    check_relation_ids(path, LabelSet(("no", "b"), "no"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"None": 0, "a": 1}',
            "names other labels than data.labels: 2 labels, None, a against 3 labels, .* b only in",
        ),
        ('{"None": 0, "b": 1, "a": 2}', "names other labels than data.labels: .* in another order"),
        ('{"None": 0, "a": 1, "b": 2, "c": 3}', "names other labels than data.labels: .* c only in the first"),
        ('{"None": 0, "a": 1, "b": 3}', "the 3 labels do not have the ids 0 to 2"),
        ("{}", "the label set is empty"),
        ("3", "3 is no label set"),
        ("{'None': 0}", "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
    ],
)
def test_different_relation_ids_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "ours_rel2id.json"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"ours_rel2id\.json.*{message}"):
        check_relation_ids(path, LabelSet(("None", "a", "b"), "None"))


# Images


def pictures(mnre: Any, max_crops: int = 4, split: str = "train") -> list[list[str]]:
    """Names of each row's images."""
    reader = MNREReader(mnre.root)
    images = (post.image for post in reader.posts(split))
    return [[picture.file.name for picture in found] for found in reader.pictures(split, images, max_crops)]


def test_crops_follow_the_whole_image_in_the_listed_order_with_their_boxes(mnre: Any) -> None:
    mnre.row()
    mnre.row(img_id="b.jpg")
    for name in ("a.jpg", "b.jpg"):
        mnre.image(name)
    mnre.crops({0: ["z.jpg", "c.jpg", "y.jpg"]})
    (mnre.root / "img_vg" / "train").mkdir(parents=True)
    (mnre.root / "img_vg" / "train" / "boxes.json").write_text(json.dumps({"c.jpg": [0, 0.25, 0.5, 1]}))
    assert pictures(mnre, max_crops=2) == [["a.jpg", "z.jpg", "c.jpg"], ["b.jpg"]]
    assert pictures(mnre, max_crops=0) == [["a.jpg"], ["b.jpg"]]
    first, _ = MNREReader(mnre.root).pictures("train", ["a.jpg", "b.jpg"], 2)
    assert [picture.box for picture in first] == [WHOLE_IMAGE, UNKNOWN_BOX, (0, 0.25, 0.5, 1)]
    assert first[1].file.parent == mnre.root / "img_vg" / "train" / "crops"


def test_a_row_may_have_crops_without_a_whole_image(mnre: Any) -> None:
    mnre.row(img_id="")
    mnre.row(img_id="gone.jpg")
    mnre.crops({1: ["c.jpg"]})
    assert pictures(mnre) == [[], ["c.jpg"]]


def test_images_are_found_with_another_extension_and_reported(mnre: Any, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.jpg", "b", "a.jpg", "c.jpg"):
        mnre.row(img_id=name)
    for name in ("a.png", "b.jpg", "c.jpg"):
        mnre.image(name)
    with caplog.at_level(logging.WARNING):
        assert pictures(mnre) == [["a.png"], ["b.jpg"], ["a.png"], ["c.jpg"]]
    assert caplog.messages == [f"train: 2 images were found in {mnre.root}/img_org/train under another ending"]


def test_a_crop_name_outside_its_folder_is_refused(mnre: Any) -> None:
    mnre.row()
    mnre.crops({0: ["../../../a.jpg"]})
    with pytest.raises(DataError, match=r"mre_train_dict\.pth, 0: the file name"):
        pictures(mnre)


# The real files


needs_real_files = pytest.mark.skipif(not (REAL / "txt").is_dir(), reason=f"the real MNRE is not at {REAL}")


@needs_real_files
@pytest.mark.parametrize(("split", "at_the_end", "nested"), [("train", 104, 59), ("val", 16, 3)])
def test_the_real_rows_match_the_release(split: str, at_the_end: int, nested: int) -> None:
    rows: list[Any] = list(MNREReader(REAL).posts(split))
    negative = sum(row.relation == MNRE.negative for row in rows)
    assert {"rows": len(rows), "negative": negative} == RELEASED["mnre"][split]
    assert {row.relation for row in rows} == set(MNRE.names)
    assert sum(len(row.words) in (row.head[1], row.tail[1]) for row in rows) == at_the_end
    both = [sorted((row.head, row.tail), key=lambda span: span[0] - span[1]) for row in rows]
    assert sum(outer[0] <= inner[0] and inner[1] <= outer[1] for outer, inner in both) == nested


@needs_real_files
def test_the_28_real_images_serve_45_rows_and_there_is_no_test_split() -> None:
    reader = MNREReader(REAL)
    found = list(reader.pictures("train", (post.image for post in reader.posts("train")), 3))
    assert (sum(map(bool, found)), len(set(filter(None, found)))) == (45, 28)
    assert [reader.has_split(split) for split in ("train", "val", "test")] == [True, True, False]
