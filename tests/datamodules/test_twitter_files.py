"""The reader of the Twitter sets: every word with its tag, and one clear error for every kind of bad post."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from mmib.datamodules.files import Malformed
from mmib.datamodules.released import RELEASED, TWITTER
from mmib.datamodules.twitter_files import TwitterReader
from mmib.schema import UNKNOWN_BOX, WHOLE_IMAGE, ConfigError, DataError
from mmib.tagging import BEGIN, entities, split_tag

REAL = Path(__file__).parents[3] / "shared" / "data"


class TwitterFolder:
    """Writes posts and crops in the layout of Twitter-2017."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.reader = TwitterReader(root, 2017)
        self.reader.text_file("train").parent.mkdir(parents=True)

    def write(self, content: str, ending: str = "\n") -> None:
        self.reader.text_file("train").write_bytes(content.replace("\n", ending).encode())

    def touch(self, *parts: str) -> Path:
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    def read(self) -> list[Any]:
        return list(self.reader.posts("train"))

    def pictures(self, max_crops: int = 4) -> list[list[str]]:
        """Names of each post's images."""
        images = [post.image for post in self.read()]
        return [
            [picture.file.name for picture in located] for located in self.reader.pictures("train", images, max_crops)
        ]


def posts_of(*posts: tuple[str, str]) -> str:
    """Convert posts such as `("1", "ada/B-PER met/O")` to the text of a file."""
    return "".join(
        f"IMGID:{identity}\n" + "".join(f"{word.replace('/', chr(9))}\n" for word in words.split(" ")) + "\n"
        for identity, words in posts
    )


@pytest.fixture
def twitter(tmp_path: Path) -> TwitterFolder:
    return TwitterFolder(tmp_path / "twitter")


# Posts


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("final", ["\n\n", "\n", ""])
def test_posts_keep_words_and_tags_with_any_line_ends(
    twitter: TwitterFolder, start: str, ending: str, final: str
) -> None:
    text = posts_of(("17_06_1", "ada/B-PER lee/I-PER in/O"), ("O_2", "#x/O")).rstrip("\n") + final
    twitter.write(start + text, ending)
    first, second = twitter.read()
    assert (first.image, first.words, first.tags) == ("17_06_1.jpg", ["ada", "lee", "in"], ["B-PER", "I-PER", "O"])
    assert (second.image, second.words, second.tags) == ("O_2.jpg", ["#x"], ["O"])
    assert second.place == f"{twitter.reader.text_file('train')}:6"


def test_other_is_read_as_misc(twitter: TwitterFolder) -> None:
    twitter.write(posts_of(("1", "a/B-OTHER b/I-OTHER c/B-MISC OTHER/O d/B-OTHER-X")))
    (post,) = twitter.read()
    assert post.tags == ["B-MISC", "I-MISC", "B-MISC", "O", "B-OTHER-X"]
    assert post.words[3] == "OTHER"


def test_types_may_have_any_names_including_hyphens(twitter: TwitterFolder) -> None:
    twitter.write(posts_of(("1", "a/B-PRODUCT-car b/I-PRODUCT-car c/B-队 d/I-group")))
    (post,) = twitter.read()
    assert post.tags == ["B-PRODUCT-car", "I-PRODUCT-car", "B-队", "I-group"]
    assert [entity.type for entity in entities(post.tags)] == ["PRODUCT-car", "队", "group"]


@pytest.mark.parametrize(
    "word", ["\ufe0f", "\u200b", "\u200d", "\u00ad", "\u00a0", "\u0092", "\ufffd", "\x85", "\u2028"]
)
def test_a_word_that_looks_empty_keeps_its_position_and_tag(twitter: TwitterFolder, word: str) -> None:
    """Defect 22: it was missing from gold."""
    twitter.write(posts_of(("1", f"ada/O {word}/B-PER bob/I-PER")))
    (post,) = twitter.read()
    assert (post.words, post.tags) == (["ada", word, "bob"], ["O", "B-PER", "I-PER"])


def test_a_word_that_looks_like_an_image_line_is_a_word(twitter: TwitterFolder) -> None:
    twitter.write("IMGID:1\nIMGID:2\tO\n")
    (post,) = twitter.read()
    assert post.words == ["IMGID:2"]


BAD_POSTS = [
    ("IMGID:1\nada\n", r"train\.txt:2: expected a word, one tab and its tag, got 'ada'"),
    ("IMGID:1\nada O\n", r"train\.txt:2: expected a word, one tab"),
    ("IMGID:1\nada\tO\tO\n", r"train\.txt:2: expected a word, one tab"),
    ("IMGID:1\n\tO\n", r"train\.txt:2: expected a word, one tab"),
    ("IMGID:1\nada\t\n", r"train\.txt:2: the tag '' is neither O nor B- or I-"),
    ("IMGID:1\nada\tPER\n", r"train\.txt:2: the tag 'PER' is neither"),
    ("IMGID:1\nada\tB-\n", r"train\.txt:2: the tag 'B-' is neither"),
    ("IMGID:1\nada\tS-PER\n", r"train\.txt:2: the tag 'S-PER' is neither"),
    ("IMGID:1\nada\tO-PER\n", r"train\.txt:2: the tag 'O-PER' is neither"),
    ("IMGID:1\nada\tb-PER\n", r"train\.txt:2: the tag 'b-PER' is neither"),
    ("\nada\tO\n", r"train\.txt:2: a word before the first IMGID: line"),
    ("IMGID:1\n\nIMGID:2\nada\tO\n", r"train\.txt:1: the post of the image 1.jpg has no words"),
    ("IMGID:2\nada\tO\n\nIMGID:1\n", r"train\.txt:4: the post of the image 1.jpg has no words"),
    ("IMGID:\nada\tO\n", r"train\.txt:1: IMGID without a name"),
    ("IMGID:1\nada\tO\n\nIMGID:../../secret\nada\tO\n", r"train\.txt:4: the file name"),
    ("", r"train\.txt holds no posts"),
    ("\n \n", r"train\.txt holds no posts"),
    ("{'token': ['ada'], 'relation': 'None'}\n", r"train\.txt:1: expected a word, one tab"),
]


@pytest.mark.parametrize(("content", "message"), BAD_POSTS)
def test_a_malformed_file_is_refused_with_file_and_line(twitter: TwitterFolder, content: str, message: str) -> None:
    twitter.write(content)
    with pytest.raises(DataError, match=message):
        twitter.read()


def test_posts_after_a_malformed_one_can_be_read(twitter: TwitterFolder) -> None:
    twitter.write(posts_of(("1", "a/O"), ("2", "b/X c/O d/Y"), ("3", "e/O")))
    first, second, third = twitter.reader.scan("train")
    assert isinstance(second, Malformed)
    assert second.line == 4
    assert "train.txt:5: the tag 'X'" in str(second.error)
    assert [post.words for post in (first, third) if not isinstance(post, Malformed)] == [["a"], ["e"]]


def test_another_encoding_error_names_the_byte_offset(twitter: TwitterFolder) -> None:
    twitter.reader.text_file("train").write_bytes("IMGID:1\ncafé\tO\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.txt:2 is not UTF-8: byte 11 of the file cannot be read"):
        twitter.read()


def test_a_missing_file_error_describes_the_layout(twitter: TwitterFolder) -> None:
    with pytest.raises(DataError, match=r"train\.txt does not exist; expected below the root, for the year 2017"):
        twitter.read()


def test_a_validation_file_with_another_name_is_to_be_renamed(twitter: TwitterFolder) -> None:
    twitter.touch("twitter2017", "dev.txt")
    with pytest.raises(
        DataError, match=r"valid\.txt does not exist; rename dev\.txt beside it to valid\.txt; expected"
    ):
        twitter.reader.check("val")
    with pytest.raises(DataError, match=r"valid\.txt does not exist; rename dev\.txt beside it"):
        list(twitter.reader.posts("val"))
    with pytest.raises(DataError, match=r"test\.txt does not exist; expected"):
        twitter.reader.check("test")


def test_only_the_two_released_years_are_accepted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no Twitter-2016"):
        TwitterReader(tmp_path, 2016)


@pytest.mark.parametrize(("test_split", "file"), [("test", "test.txt"), ("val", "valid.txt")])
def test_cross_domain_data_uses_the_test_split_of_the_other_set(tmp_path: Path, test_split: str, file: str) -> None:
    for folder, words in (("twitter2015", "ada/B-PER"), ("twitter2017", "bo/B-ORG")):
        (tmp_path / folder).mkdir()
        for name in ("train.txt", "valid.txt", "test.txt"):
            text = posts_of((name.removesuffix(".txt"), words))
            (tmp_path / folder / name).write_text(text, encoding="utf-8")
        (tmp_path / f"{folder}_images").mkdir()
        (tmp_path / f"{folder}_images" / f"{file.removesuffix('.txt')}.jpg").touch()
    reader = TwitterReader(tmp_path, 2015, 2017, test_split)
    found = {split: [(post.image, post.words) for post in reader.posts(split)] for split in ("train", "val", "test")}
    other = f"{file.removesuffix('.txt')}.jpg"
    assert found == {
        "train": [("train.jpg", ["ada"])],
        "val": [("valid.jpg", ["ada"])],
        "test": [(other, ["bo"])],
    }
    assert reader.corpus == "twitter2015-to-twitter2017" + ("" if test_split == "test" else "-val")
    ((picture,),) = reader.pictures("test", [other], 0)
    assert picture.file == tmp_path / "twitter2017_images" / other
    assert reader.crop_files("test").folder == tmp_path / "twitter2017_aux_images" / test_split


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((2017, 2016), "no Twitter-2016"),
        ((2017, 2015, "dev"), "test_split 'dev' is unknown: choose from train, val, test"),
        ((2017, None, "val"), "give a test_year that is another one"),
        ((2017, 2017, "train"), "give a test_year that is another one"),
    ],
)
def test_an_invalid_test_split_is_refused(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TwitterReader(tmp_path, *options)


# Images


def test_images_are_found_with_and_without_their_extension(twitter: TwitterFolder) -> None:
    twitter.write(posts_of(*((identity, "a/O") for identity in ("1", "2.jpg", "3", "4.png", "5", "6.5"))))
    for name in ("1.jpg", "2.jpg", "3.jpeg", "4.png", "6.5.jpg"):
        twitter.touch("twitter2017_images", name)
    assert [post.image for post in twitter.read()][:4] == ["1.jpg", "2.jpg", "3.jpg", "4.png"]
    assert twitter.pictures() == [["1.jpg"], ["2.jpg"], ["3.jpeg"], ["4.png"], [], ["6.5.jpg"]]


def test_crops_listed_in_a_dictionary_are_in_order_with_boxes(twitter: TwitterFolder) -> None:
    twitter.write(posts_of(("1", "a/O")))
    twitter.touch("twitter2017_images", "1.jpg")
    torch.save({"1.jpg": ["z.jpg", "b.jpg", "c.jpg"]}, twitter.root / "twitter2017" / "twitter2017_train_dict.pth")
    boxes = twitter.touch("twitter2017_aux_images", "train", "boxes.json")
    boxes.write_text(json.dumps({"b.jpg": [0, 0.5, 1, 1]}))
    # The other layout exists too, but is ignored if there is a dictionary.
    twitter.touch("twitter2017_crop_images", "1", "crop_person_1.jpg")
    assert twitter.pictures(max_crops=2) == [["1.jpg", "z.jpg", "b.jpg"]]
    (found,) = twitter.reader.pictures("train", ["1.jpg"], 2)
    assert [picture.box for picture in found] == [WHOLE_IMAGE, UNKNOWN_BOX, (0, 0.5, 1, 1)]
    assert found[1].file.parent == boxes.parent / "crops"


def test_crops_named_after_types_are_found_without_a_dictionary(twitter: TwitterFolder) -> None:
    twitter.write(posts_of(("1", "a/O"), ("2", "b/O"), ("3.jpg", "c/O")))
    twitter.touch("twitter2017_images", "1.jpg")
    for entity in ("miscellaneous", "location", "other"):
        twitter.touch("twitter2017_crop_images", "1", f"crop_{entity}_1.jpg")
    twitter.touch("twitter2017_crop_images", "1", "crop_person_2.jpg")
    twitter.touch("twitter2017_crop_images", "3", "crop_person_3.jpg")
    twitter.touch("twitter2017_crop_images", "boxes.json").write_text('{"1/crop_location_1.jpg": [0, 0, 1, 0.5]}')
    expected = [["1.jpg", "crop_location_1.jpg", "crop_miscellaneous_1.jpg"], [], ["crop_person_3.jpg"]]
    assert twitter.pictures() == expected
    (found,) = twitter.reader.pictures("train", ["1.jpg"], 1)
    assert [picture.box for picture in found] == [WHOLE_IMAGE, (0, 0, 1, 0.5)]


# The real files


@pytest.mark.skipif(not (REAL / "twitter2015").is_dir(), reason=f"the real Twitter sets are not at {REAL}")
@pytest.mark.parametrize("year", [2015, 2017])
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_real_posts_match_the_release(year: int, split: str) -> None:
    posts: list[Any] = list(TwitterReader(REAL, year).posts(split))
    types = Counter(entity.type for post in posts for entity in entities(post.tags))
    strict = sum(split_tag(tag)[0] == BEGIN for post in posts for tag in post.tags)
    found = {"posts": len(posts), "entities": types.total(), "entities_strict": strict}
    assert found == RELEASED[f"twitter{year}"][split]
    assert types.keys() == set(TWITTER.names)
