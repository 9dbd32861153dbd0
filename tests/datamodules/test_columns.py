"""Posts in columns: separators, comments, images, tag schemes, and the resulting batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmib.datamodules.columns import ColumnsDataModule
from mmib.datamodules.columns_files import ColumnsReader, split_line
from mmib.datamodules.files import Malformed
from mmib.datamodules.posts import TaggedPost
from mmib.datamodules.schemes import Scheme
from mmib.datamodules.split_files import HoldOut
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder
from mmib.records import Entity
from mmib.schema import ConfigError, DataError
from mmib.tagging import entities


def reader(path: Path, content: str, **options: Any) -> ColumnsReader:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="")
    return ColumnsReader(path, **{"hold_out": HoldOut(0.0), **options})


def read(tmp_path: Path, content: str, **options: Any) -> list[TaggedPost]:
    reading = reader(tmp_path / "posts.txt", content, **options)
    return [post for post in reading.posts("train") if isinstance(post, TaggedPost)]


def shown(posts: list[TaggedPost]) -> list[str]:
    """Words with their tags, one string per post."""
    return [" ".join(f"{word}/{tag}" for word, tag in zip(post.words, post.tags, strict=True)) for post in posts]


POSTS = "Foo B-TEAM\nUnited I-TEAM\nwon O\n\nAda B-PERSON\nleft O\n"
READ = ["Foo/B-TEAM United/I-TEAM won/O", "Ada/B-PERSON left/O"]


def test_settings_of_a_subclass_are_included_in_the_options(tmp_path: Path) -> None:
    class Cased(ColumnsReader):
        lower = False

    reading = Cased(tmp_path, separator="|", hold_out=HoldOut(0.0))
    before = reading.options()
    reading.lower = True
    assert reading.options() == {**before, "lower": True}
    assert before == {"separator": "|", "word_column": 0, "tag_column": -1, "scheme": None}


# Lines and columns


@pytest.mark.parametrize("separator", ["\t", " ", "   ", " \t "])
@pytest.mark.parametrize(("start", "end"), [("", "\n"), ("\ufeff", "\r\n"), ("\n\n", "\n"), ("", " \n")])
def test_separators_and_line_ends_are_recognised(tmp_path: Path, separator: str, start: str, end: str) -> None:
    assert shown(read(tmp_path, start + POSTS.replace(" ", separator).replace("\n", end))) == READ


@pytest.mark.parametrize("separator", ["|", "||", ",", ";"])
def test_other_separators_are_named(tmp_path: Path, separator: str) -> None:
    assert shown(read(tmp_path, POSTS.replace(" ", separator), separator=separator)) == READ


def test_additional_columns_may_be_anywhere(tmp_path: Path) -> None:
    content = "1\tFoo\tNNP\tB-TEAM\tx\n2\tUnited\tNNP\tI-TEAM\tx\n"
    expected = ["Foo/B-TEAM United/I-TEAM"]
    assert shown(read(tmp_path, content, word_column=1, tag_column=3)) == expected
    assert shown(read(tmp_path, content, word_column=-4, tag_column=-2)) == expected
    assert shown(read(tmp_path, "B-TEAM Foo\nI-TEAM United\n", word_column=1, tag_column=0)) == expected
    conll = "-DOCSTART- -X- -X- O\n\nFoo NNP B-NP B-TEAM\nUnited NNP I-NP I-TEAM\n\n-DOCSTART- -X- -X- O\n"
    assert shown(read(tmp_path, conll)) == expected


def test_columns_beyond_those_of_most_lines_are_ignored_and_counted(tmp_path: Path) -> None:
    reading = reader(tmp_path / "posts.txt", "Foo\tB-TEAM\t\nUnited\tI-TEAM\tx\ty\nwon\tO\nagain\tO\n")
    assert shown(list(reading.posts("train"))) == ["Foo/B-TEAM United/I-TEAM won/O again/O"]
    assert reading.note("train") == (
        f"lines with further columns, which are ignored: 1 (first: {tmp_path / 'posts.txt'}:1)"
    )


@pytest.mark.parametrize("separator", ["\t", " "])
@pytest.mark.parametrize("word", ["\u00a0", "\u3000", "\ufe0f", "\u2028", "\u0085"])
def test_words_that_look_empty_are_kept(tmp_path: Path, separator: str, word: str) -> None:
    (post,) = read(tmp_path, f"Foo{separator}B-TEAM\n{word}{separator}O\nBar{separator}B-TEAM\n")
    assert post.words == ["Foo", word, "Bar"]


@given(st.lists(st.text(st.characters(exclude_characters="\t \n"), min_size=1), min_size=2), st.sampled_from("\t "))
def test_joined_columns_can_be_read_again(columns: list[str], separator: str) -> None:
    assert split_line(separator.join(columns), None) == split_line("\t".join(columns), "\t") == columns


# Comments and images


def test_comments_before_posts_and_hash_signs_as_words(tmp_path: Path) -> None:
    content = "# newdoc\n# text = Foo won\nFoo O\n\n# O\n#Paris B-TEAM\n\n# sent 12\n\n#a O\n# B-TEAM\n"
    assert shown(read(tmp_path, content)) == ["Foo/O", "#/O #Paris/B-TEAM", "#a/O #/B-TEAM"]


def test_images_are_named_as_in_the_twitter_files_or_in_a_comment(tmp_path: Path) -> None:
    content = (
        "IMGID:17_06\nFoo\tO\nIMGID:18.png\n\nBar\tO\n\n# image: a/b c.jpg\n# id = 3\nBaz\tO\n\nQux\tO\n\n"
        "#  image = d.jpg\nIMGID:\tO\n"
    )
    posts = read(tmp_path, content)
    assert [post.image for post in posts] == ["17_06", "18.png", "a/b c.jpg", "", "d.jpg"]
    assert [post.words for post in posts] == [["Foo"], ["Bar"], ["Baz"], ["Qux"], ["IMGID:"]]
    assert [int(post.place.rpartition(":")[2]) for post in posts] == [1, 3, 7, 11, 13]


def test_images_are_found_with_any_extension(tmp_path: Path) -> None:
    root = tmp_path / "set"
    reading = reader(root / "train.txt", "IMGID:17_06\nFoo\tO\n")
    (root / "images").mkdir()
    (root / "images" / "17_06.JPEG").touch()
    reading = ColumnsReader(root)
    ((picture,),) = reading.pictures("train", [post.image for post in reading.posts("train")], 4)
    assert picture.file == root / "images" / "17_06.JPEG"


# Schemes


@pytest.mark.parametrize(
    ("tags", "note"),
    [
        ("B-X I-X I-X B-X O B-a-b", ""),
        ("I-X I-X I-X B-X O I-a-b", "tags converted from IOB1 to BIO: 2"),
        ("B-X I-X E-X S-X O S-a-b", "tags converted from BIOES to BIO: 3"),
        ("B-X I-X L-X U-X O U-a-b", "tags converted from BIOES to BIO: 3"),
        ("B-X M-X E-X S-X O S-a-b", "tags converted from BMES to BIO: 4"),
        ("B-X M-X E-X W-X O W-a-b", "tags converted from BMES to BIO: 4"),
    ],
)
def test_every_scheme_is_recognised_and_conversions_are_counted(tmp_path: Path, tags: str, note: str) -> None:
    reading = reader(tmp_path / "posts.txt", "".join(f"w {tag}\n" for tag in tags.split()))
    (post,) = reading.posts("train")
    assert isinstance(post, TaggedPost)
    assert entities(post.tags) == [Entity("X", 0, 3), Entity("X", 3, 4), Entity("a-b", 5, 6)]
    assert reading.note("train") == (note and f"{note} (first: {tmp_path / 'posts.txt'}:1)")


def test_the_scheme_is_recognised_from_the_whole_file(tmp_path: Path) -> None:
    """The first post alone would be BIO."""
    assert shown(read(tmp_path, "a B-X\nb I-X\n\nc S-X\nd S-X\n")) == ["a/B-X b/I-X", "c/B-X d/B-X"]


def test_types_without_prefix_are_entities(tmp_path: Path) -> None:
    content = "Foo creative-work\nBar creative-work\nby O\nAda person\nBob person\n"
    assert shown(read(tmp_path, content)) == ["Foo/B-creative-work Bar/I-creative-work by/O Ada/B-person Bob/I-person"]


def test_a_scheme_can_be_given(tmp_path: Path) -> None:
    """Automatic recognition would read the type as the end of an entity `commerce`."""
    content = "shop E-commerce\nAda O\n"
    assert shown(read(tmp_path, content, scheme=Scheme.BARE)) == ["shop/B-E-commerce Ada/O"]


def test_stray_tags_of_bio_are_kept(tmp_path: Path) -> None:
    assert shown(read(tmp_path, "a O\nb I-X\nc B-X\nd O\ne B-X\n")) == ["a/O b/I-X c/B-X d/O e/B-X"]


def test_chinese_text_with_one_character_per_line(tmp_path: Path) -> None:
    content = "我 O\n在 O\n南 B-ORG\n京 M-ORG\n大 M-ORG\n学 E-ORG\n\n京 S-LOC\n\u3000 O\n"
    posts = read(tmp_path, content)
    assert [entities(post.tags) for post in posts] == [[Entity("ORG", 2, 6)], [Entity("LOC", 0, 1)]]
    assert "".join(posts[0].words) == "我在南京大学"


def test_types_with_hyphens_and_fifty_of_them(tmp_path: Path) -> None:
    names = ["creative-work", *(f"other-{number}/sub-type" for number in range(49))]
    content = "".join(f"Foo\tB-{name}\nBar\tI-{name}\n\n" for name in names)
    assert [entities(post.tags) for post in read(tmp_path, content)] == [[Entity(name, 0, 2)] for name in names]


# Refusals


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (
            "a O\nb\nc O\n",
            2,
            "expected a word in column 0 and its tag in column 1, with blanks between columns, got 'b'",
        ),
        ("a\tO\n\tO\nb\tO\n", 2, r"with '\\t' between columns, got '\\tO'"),
        ("a\tO\nb c O\nb\tO\n", 2, r"with '\\t' between columns, got 'b c O'"),
        ("a O\nNew York B-X\nb B-X\n", 2, "the tag 'York' is not a BIO tag: write O, B-TYPE, I-TYPE, or name another"),
        ("a B-X\nb I-X\nc X\n", 3, "the tag 'X' is not a BIO tag"),
        ("a B-X\nb I-\nc O\n", 2, "the tag 'I-' is not a BIO tag"),
        ("a B-X\nb M-X\nc M-X\nd I-X\n", 4, "the tag 'I-X' is not a BMES tag"),
        ("a B-X\nb O\n# more\n", 3, "the tag 'more' is not a BIO tag"),
        ("IMGID:1\nIMGID:2\na O\nb O\n", 1, "no words follow the image 1: add them, or remove the line"),
        ("a O\nb O\n\nIMGID:2\n\n", 4, "no words follow the image 2"),
        ("IMGID: \na O\nb O\n", 1, "the name of the image is missing: add it, or remove the line"),
    ],
)
def test_a_malformed_post_is_refused_with_file_and_line(tmp_path: Path, content: str, line: int, message: str) -> None:
    with pytest.raises(DataError, match=rf"^{tmp_path / 'posts.txt'}:{line}: .*{message}") as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_reading_continues_after_a_malformed_post(tmp_path: Path) -> None:
    reading = reader(tmp_path / "posts.txt", "a B-X\n\nIMGID:1\nb O\nc\nd\ne O\n\nf O\ng ?\n\nh O\n")
    found = list(reading.scan("train"))
    assert [entry.line if isinstance(entry, Malformed) else entry.words for entry in found] == [["a"], 3, 9, ["h"]]
    errors = [str(entry.error).rpartition("posts.txt:")[2] for entry in found if isinstance(entry, Malformed)]
    assert [error.partition(":")[0] for error in errors] == ["5", "10"]


@pytest.mark.parametrize("content", ["", "\n\n", "# only\n# comments\n", "-DOCSTART- O\n"])
def test_a_file_without_posts_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"posts\.txt holds no posts: put those of the split train in there"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("a|O\nb|O\n", {}),
        ("a O\n", {"tag_column": 2}),
        ("a O\n", {"word_column": -3}),
        ("a O\n", {"word_column": 1}),
        ("a O\n", {"separator": "\t"}),
    ],
)
def test_missing_columns_are_refused(tmp_path: Path, content: str, options: dict[str, Any]) -> None:
    message = r"posts\.txt has lines of \d columns? with .* between them, which do not have both word_column .*: name"
    with pytest.raises(DataError, match=message):
        read(tmp_path, content, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"separator": ""}, "separator is empty"), ({"tag_column": 0}, "word_column and tag_column are both 0")],
)
def test_invalid_settings_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ColumnsReader(tmp_path, **options)


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes("Café O\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.txt:1 is not UTF-8: byte 3 of the file cannot be read; convert it"):
        list(ColumnsReader(tmp_path).posts("train"))


WELL_FORMED = st.sampled_from(
    ["a O", "c B-X", "d  I-X more", "", " \t", "# image: y\na O", "IMGID:z\n\nb O", "-DOCSTART- O"]
)
ANY = (
    WELL_FORMED
    | st.sampled_from(["#", "IMGID:z", "e", "f\tO"])
    | st.text(st.characters(codec="utf-8", exclude_characters="\n"))
)
LINES = (st.lists(WELL_FORMED, max_size=12) | st.lists(ANY, max_size=12)).map(
    lambda lines: "\n".join(lines).split("\n")
)


@given(lines=LINES)
def test_no_line_of_any_file_is_lost(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    """Each line is a word of a post, belongs to a malformed post, or cannot be part of a post."""
    path = tmp_path_factory.getbasetemp() / "posts.txt"
    try:
        found = list(reader(path, "".join(line + "\n" for line in lines)).scan("train"))
    except DataError:  # about the whole file: no posts, or too few columns
        return
    starts = [entry.line if isinstance(entry, Malformed) else int(entry.place.rpartition(":")[2]) for entry in found]
    assert starts == sorted(set(starts))
    words = sum(len(entry.words) for entry in found if not isinstance(entry, Malformed))
    if not any(isinstance(entry, Malformed) for entry in found):
        assert words == sum(
            bool(line.strip(" \t\r")) and not line.startswith(("# ", "-DOCSTART-", "IMGID:")) for line in lines
        )


# Splits and the data module


def test_posts_of_a_single_file_are_held_out(tmp_path: Path) -> None:
    content = "".join(f"Foo\tB-TEAM\n{number}\tO\n\n" for number in range(60))
    reading = reader(tmp_path / "posts.conll", content, hold_out=HoldOut(0.2, 0.2))
    words = {split: {post.words[1] for post in reading.posts(split)} for split in ("train", "val", "test")}
    assert all(words.values())
    assert sum(map(len, words.values())) == len(set.union(*words.values())) == 60


def test_settings_that_determine_which_posts_are_read_are_in_the_options(tmp_path: Path) -> None:
    variants: list[dict[str, Any]] = [
        {"hold_out": HoldOut(0.2)},
        {"separator": "\t"},
        {"word_column": 1},
        {"tag_column": 1},
        {"scheme": Scheme.BIOES},
        {},
    ]
    assert len({json.dumps(ColumnsReader(tmp_path, **options).options()) for options in variants}) == len(variants)


@pytest.fixture
def load(text_encoder: TextEncoder, image_encoder: ImageEncoder, tmp_path: Path) -> Callable[..., ColumnsDataModule]:
    def make(root: Path, labels: list[str], **options: Any) -> ColumnsDataModule:
        settings = {"text_encoder": text_encoder, "image_encoder": image_encoder, "cache_dir": str(tmp_path / "cache")}
        module = ColumnsDataModule(str(root), labels, max_missing_images=1.0, **{**settings, **options})
        module.setup("fit")
        return module

    return make


def test_posts_become_batches(
    tmp_path: Path, load: Callable[..., ColumnsDataModule], caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "dev"):
        reader(tmp_path / "wnut" / f"{split}.tsv", "IMGID:1\nFoo\tB-creative-work\nBar\tE-creative-work\nwon\tO\n")
    with caplog.at_level("INFO"):
        module = load(tmp_path / "wnut", ["person", "creative-work"])
    (batch,) = module.val_dataloader()
    assert module.corpus == "wnut"
    assert batch.gold.tolist() == [[3, 4, 0]]  # after O, B-person and I-person
    assert "tags converted from BIOES to BIO: 1" in caplog.text


def test_a_type_missing_from_the_configuration_is_named_with_its_line(
    tmp_path: Path, load: Callable[..., ColumnsDataModule]
) -> None:
    reader(tmp_path / "train.txt", "a\tO\n\nFoo\tB-TEAM\n")
    with pytest.raises(DataError, match=r"train\.txt:3: the label 'TEAM' is not one of the 1 of data\.labels"):
        load(tmp_path, ["PERSON"], holdout=0.0)
