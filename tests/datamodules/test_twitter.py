"""The Twitter reader: every word keeps its place and its label, and one clear error for every kind of bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from seqeval.metrics.sequence_labeling import get_entities

from mmib.datamodules.examples import UNKNOWN_BOX, WHOLE_IMAGE, EntityExample
from mmib.datamodules.twitter import TwitterDataModule
from mmib.datamodules.twitter_files import LAYOUT, Census, TaggedPost, read_posts, repair
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder
from mmib.schema import NO_TAG, NO_WORD, TAG_IDS, TAGS, ConfigError, DataError, MNERBatch

REAL = Path(__file__).parents[3] / "shared" / "data"

Load = Callable[..., TwitterDataModule]


class TwitterFolder:
    """Writes posts, images and crops in the layout of Twitter-2017."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "twitter2017").mkdir(parents=True)

    def text(self, split: str = "train") -> Path:
        return self.root / "twitter2017" / f"{split}.txt"

    def write(self, content: str, split: str = "train", ending: str = "\n") -> Path:
        self.text(split).write_bytes(content.replace("\n", ending).encode())
        return self.text(split)

    def picture(self, *parts: str) -> Path:
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), "red").save(path)
        return path


def posts_of(*posts: tuple[str, str]) -> str:
    """`("1", "ada/B-PER met/O")` to the text of a file."""
    return "".join(
        f"IMGID:{identity}\n" + "".join(f"{word.replace('/', chr(9))}\n" for word in words.split(" ")) + "\n"
        for identity, words in posts
    )


ONE = posts_of(("1", "ada/B-PER met/O bob/B-PER"))


@pytest.fixture
def twitter(tmp_path: Path) -> TwitterFolder:
    return TwitterFolder(tmp_path / "twitter")


@pytest.fixture
def load(twitter: TwitterFolder, text_encoder: TextEncoder, image_encoder: ImageEncoder, tmp_path: Path) -> Load:
    def make(**options: Any) -> TwitterDataModule:
        settings: dict[str, Any] = {
            "root": str(twitter.root),
            "text_encoder": text_encoder,
            "image_encoder": image_encoder,
            "max_length": 64,
            "cache_dir": str(tmp_path / "cache"),
            "max_missing_images": 1.0,
            **options,
        }
        return TwitterDataModule(**settings)

    return make


def read(module: TwitterDataModule, split: str = "train") -> list[EntityExample]:
    module.examples[split] = module.read_split(split)
    return module.examples[split]


# Posts


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("final", ["\n\n", "\n", ""])
def test_posts_keep_words_and_tags_whatever_the_line_ends(twitter: TwitterFolder, ending: str, final: str) -> None:
    text = posts_of(("17_06_1", "ada/B-PER lee/I-PER in/O"), ("O_2", "#x/O")).rstrip("\n") + final
    first, second = read_posts(twitter.write(text, ending=ending), LAYOUT)
    assert (first.identity, first.words, first.tags) == ("17_06_1", ["ada", "lee", "in"], ["B-PER", "I-PER", "O"])
    assert (second.identity, second.words, second.tags) == ("O_2", ["#x"], ["O"])
    assert second.place.endswith("train.txt:6")


def test_other_reads_as_misc(twitter: TwitterFolder) -> None:
    (post,) = read_posts(twitter.write(posts_of(("1", "a/B-OTHER b/I-OTHER c/B-MISC OTHER/O"))), LAYOUT)
    assert post.tags == ["B-MISC", "I-MISC", "B-MISC", "O"]
    assert post.words[3] == "OTHER"


@pytest.mark.parametrize(
    "word", ["\ufe0f", "\u200b", "\u200d", "\u00ad", "\u00a0", "\u0092", "\ufffd", "\x85", "\u2028"]
)
def test_a_word_that_looks_like_nothing_keeps_its_place_and_label(
    twitter: TwitterFolder, load: Load, word: str
) -> None:
    """Defect 22: it vanished from gold."""
    twitter.write(posts_of(("1", f"ada/O {word}/B-PER bob/I-PER")))
    (example,) = read(load())
    assert [TAGS[tag] for tag in example.gold] == ["O", "B-PER", "I-PER"]
    assert len(set(example.word_positions)) == 3
    assert max(example.word_positions) < len(example.input_ids) - 1  # [SEP] stands behind the last word


def test_a_word_that_looks_like_an_image_line_is_a_word(twitter: TwitterFolder) -> None:
    (post,) = read_posts(twitter.write("IMGID:1\nIMGID:2\tO\n"), LAYOUT)
    assert post.words == ["IMGID:2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("IMGID:1\nada\n", r"train\.txt:2: expected a word, one tab and its tag, got 'ada'"),
        ("IMGID:1\nada O\n", r"train\.txt:2: expected a word, one tab"),
        ("IMGID:1\nada\tO\tO\n", r"train\.txt:2: expected a word, one tab"),
        ("IMGID:1\n\tO\n", r"train\.txt:2: expected a word, one tab"),
        ("IMGID:1\nada\tB-PERSON\n", r"train\.txt:2: the label 'B-PERSON' is none of O, B-PER"),
        ("IMGID:1\nada\t\n", r"train\.txt:2: the label '' is none of"),
        ("IMGID:1\nada\tX\n", r"train\.txt:2: the label 'X'"),
        ("\nada\tO\n", r"train\.txt:2: a word before the first IMGID: line"),
        ("IMGID:1\n\nIMGID:2\nada\tO\n", r"train\.txt:1: IMGID:1 has no words"),
        ("IMGID:2\nada\tO\n\nIMGID:1\n", r"train\.txt:4: IMGID:1 has no words"),
        ("IMGID:\nada\tO\n", r"train\.txt:1: IMGID without a name"),
        ("", r"train\.txt holds no posts"),
        ("\n \n", r"train\.txt holds no posts"),
        ("{'token': ['ada'], 'relation': 'None'}\n", r"train\.txt:1: expected a word, one tab"),
    ],
)
def test_a_malformed_file_is_refused_with_file_and_line(twitter: TwitterFolder, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(read_posts(twitter.write(content), LAYOUT))


def test_another_encoding_is_named_with_its_byte(twitter: TwitterFolder) -> None:
    twitter.text().write_bytes("IMGID:1\ncafé\tO\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.txt is not UTF-8: byte 11 cannot be read"):
        list(read_posts(twitter.text(), LAYOUT))


def test_a_missing_file_tells_the_layout(load: Load) -> None:
    with pytest.raises(DataError, match=r"train\.txt does not exist; expected below the root, for the year 2017"):
        load().setup("fit")


def test_an_identity_that_leads_out_of_the_folder_is_refused(twitter: TwitterFolder, load: Load) -> None:
    twitter.write(ONE + posts_of(("../../secret", "a/O")))
    with pytest.raises(DataError, match=r"train\.txt:6: the file name"):
        read(load())


def test_there_are_two_years(load: Load) -> None:
    with pytest.raises(ConfigError, match="no Twitter-2016"):
        load(year=2016)


# Tags


@pytest.mark.parametrize(
    ("tags", "repaired"),
    [
        ("I-PER I-PER", "B-PER I-PER"),
        ("O I-LOC", "O B-LOC"),
        ("B-PER I-LOC I-LOC", "B-PER B-LOC I-LOC"),
        ("B-PER B-PER I-PER O", "B-PER B-PER I-PER O"),
    ],
)
def test_a_stray_inner_tag_opens_an_entity(tags: str, repaired: str) -> None:
    assert " ".join(repair(tags.split())) == repaired


@given(st.lists(st.sampled_from(TAGS), max_size=12))
def test_repaired_tags_hold_the_entities_of_seqevals_default_reading(tags: list[str]) -> None:
    repaired = repair(tags)
    assert get_entities(repaired) == get_entities(tags)
    assert sum(tag.startswith("B-") for tag in repaired) == len(get_entities(tags))
    assert repair(repaired) == repaired


def test_every_piece_knows_its_mention(twitter: TwitterFolder, load: Load) -> None:
    twitter.write(posts_of(("1", "ada/B-PER lee/I-PER met/O bob/B-PER zoe/B-LOC"), ("2", "hi/O")))
    module = load()
    examples = read(module)
    for example in examples:
        ends = [*example.word_positions[1:], len(example.input_ids) - 1]
        words = [set(example.mentions[start:end]) for start, end in zip(example.word_positions, ends, strict=True)]
        assert words == ([{1}, {1}, {0}, {2}, {3}] if example.row == 0 else [{0}])
        assert (example.mentions[0], example.mentions[-1]) == (0, 0)
    batch = module.collate([(example, None) for example in examples])
    assert batch.mentions.shape == batch.input_ids.shape
    assert not batch.mentions[1].any()


@pytest.mark.parametrize("length", [64, 7])
def test_every_piece_knows_its_word(twitter: TwitterFolder, load: Load, length: int) -> None:
    words = ["xyz", "the", "\u200b", "ab"]
    twitter.write(posts_of(("1", " ".join(f"{word}/O" for word in words)), ("2", "the/O")))
    module = load(max_length=length)
    examples = read(module)
    pieces = module.tokenizer.pieces([words])[0]
    seen = len(words) if length == 64 else 3  # [CLS], 3 + 1 + 1 pieces, [SEP]
    expected = [number for number, own in enumerate(pieces[:seen]) for _ in own]
    assert examples[0].words == words
    assert examples[0].word_ids == [NO_WORD, *expected, NO_WORD]
    batch = module.collate([(example, None) for example in examples])
    assert batch.word_ids[0].tolist() == examples[0].word_ids
    assert batch.word_ids[1].tolist() == [NO_WORD, 0] + [NO_WORD] * (batch.word_ids.shape[1] - 2)


def test_training_sees_repaired_tags_and_scoring_the_files_own(twitter: TwitterFolder, load: Load) -> None:
    twitter.write(posts_of(("1", "ada/I-PER lee/I-PER")))
    module = load()
    (example,) = read(module)
    batch = module.collate([(example, None)])
    assert [TAGS[tag] for tag in batch.tags[0]] == ["B-PER", "I-PER"]
    assert [TAGS[tag] for tag in batch.gold[0]] == ["I-PER", "I-PER"]
    fingerprint = module.fingerprint("train")
    assert (fingerprint["rows"], fingerprint["entities"], fingerprint["entities_strict"]) == (1, 1, 0)


def test_strays_and_repeated_identities_are_counted() -> None:
    posts = [
        TaggedPost("1", ["a", "b", "c"], ["I-PER", "O", "I-LOC"], "x:1"),
        TaggedPost("1", ["a"], ["B-PER"], "x:2"),
    ]
    text = "2 posts, 3 entities (1 in strict IOB2: 2 stray I- tags in 1 posts), 1 repeated IMGIDs"
    census = Census()
    for post in posts:
        census.add(post, repair(post.tags))
    assert str(census) == text


# Batches


def test_positions_are_first_pieces_and_padding_is_marked(twitter: TwitterFolder, load: Load) -> None:
    twitter.write(posts_of(("1", "anna/B-PER meets/O xyz/B-ORG"), ("2", "the/O")))
    module = load()
    examples = read(module)
    batch = module.collate([(example, None) for example in examples])
    assert isinstance(batch, MNERBatch)
    first_pieces = [words[0] for words in module.tokenizer.pieces([["anna", "meets", "xyz"]])[0]]
    assert batch.input_ids[0, batch.positions[0]].tolist() == first_pieces
    assert batch.word_mask.tolist() == [[True, True, True], [True, False, False]]
    assert batch.gold[1].tolist() == [TAG_IDS["O"], NO_TAG, NO_TAG]
    assert batch.tags[1].tolist() == [TAG_IDS["O"]] * 3
    assert int(batch.text_mask[0].sum()) == len(examples[0].input_ids)


@pytest.mark.parametrize("length", [3, 4, 5, 8])
def test_words_beyond_the_longest_input_keep_their_gold_and_are_counted(
    twitter: TwitterFolder, load: Load, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    """Defect 22: they vanished from gold, which inflates recall."""
    twitter.write(posts_of(("1", "anna/B-PER the/O bob/B-PER paris/B-LOC")))
    module = load(max_length=length)
    (example,) = read(module)
    seen = min(4, length - 2)  # [CLS] and [SEP]; one piece a word
    assert len(example.input_ids) <= length
    assert len(example.word_positions) == seen
    counted = f"1 posts, 3 entities, {4 - seen} words of 1 posts lie beyond max_length and count as missed"
    assert (counted in caplog.text) == (seen < 4)
    batch = module.collate([(example, None)])
    assert batch.gold.tolist() == [[TAG_IDS[tag] for tag in ("B-PER", "O", "B-PER", "B-LOC")]]
    assert int(batch.word_mask.sum()) == seen
    assert batch.positions.shape == batch.gold.shape


def test_no_word_is_seen_behind_one_that_does_not_fit(twitter: TwitterFolder, load: Load) -> None:
    twitter.write(posts_of(("1", "the/O qwertzuiop/B-PER the/B-LOC")))
    (example,) = read(load(max_length=5))
    assert example.word_positions == [1]
    assert len(example.input_ids) == 3


# Images


def test_images_are_found_by_identity(twitter: TwitterFolder, load: Load) -> None:
    twitter.write(posts_of(("1", "a/O"), ("2", "b/O"), ("1", "c/O")))
    twitter.picture("twitter2017_images", "1.jpg")
    module = load()
    first, second, third = read(module)
    assert first.image_id == third.image_id != second.image_id == -1
    assert str(module.image_reports["train"]) == "1 of 2 images, 2 of 3 rows"


def test_crops_listed_in_a_dictionary_come_in_order_with_boxes(twitter: TwitterFolder, load: Load) -> None:
    twitter.write(posts_of(("1", "a/O")))
    twitter.picture("twitter2017_images", "1.jpg")
    folder = ("twitter2017_aux_images", "train", "crops")
    for name in ("z.jpg", "b.jpg", "c.jpg"):
        twitter.picture(*folder, name)
    torch.save({"1.jpg": ["z.jpg", "b.jpg", "c.jpg"]}, twitter.root / "twitter2017" / "twitter2017_train_dict.pth")
    boxes = twitter.root.joinpath(*folder).parent / "boxes.json"
    boxes.write_text(json.dumps({"b.jpg": [0, 0.5, 1, 1]}))
    # The other layout is there too, and does not count beside a dictionary.
    twitter.picture("twitter2017_crop_images", "1", "crop_person_1.jpg")
    (example,) = read(load(max_crops=2))
    assert [picture.file.name for picture in example.pictures] == ["1.jpg", "z.jpg", "b.jpg"]
    assert [picture.box for picture in example.pictures] == [WHOLE_IMAGE, UNKNOWN_BOX, (0, 0.5, 1, 1)]


def test_crops_named_after_types_are_found_without_a_dictionary(twitter: TwitterFolder, load: Load) -> None:
    twitter.write(posts_of(("1", "a/O"), ("2", "b/O")))
    twitter.picture("twitter2017_images", "1.jpg")
    for kind in ("miscellaneous", "location", "other"):
        twitter.picture("twitter2017_crop_images", "1", f"crop_{kind}_1.jpg")
    first, second = read(load(max_crops=3))
    assert [picture.file.name for picture in first.pictures] == [
        "1.jpg",
        "crop_location_1.jpg",
        "crop_miscellaneous_1.jpg",
    ]
    assert second.pictures == ()


def test_an_unreadable_crop_is_named_and_left_out(twitter: TwitterFolder, load: Load) -> None:
    """Defect 25: the crops of entity recognition were read without any protection, and other images replaced."""
    twitter.write(posts_of(("1", "a/O"), ("2", "b/O")))
    twitter.picture("twitter2017_images", "1.jpg")
    for kind in ("person", "location"):
        twitter.picture("twitter2017_crop_images", "1", f"crop_{kind}_1.jpg")
    twitter.picture("twitter2017_images", "2.jpg").write_bytes(b"\xff\xd8 no image")
    (twitter.root / "twitter2017_crop_images" / "1" / "crop_person_1.jpg").write_bytes(b"")
    module = load()
    first, second = read(module)
    assert [picture.file.name for picture in first.pictures] == ["1.jpg", "crop_location_1.jpg"]
    assert (second.image_id, second.pictures) == (-1, ())
    assert set(module.image_reports["train"].unreadable) == {"2.jpg", "crop_person_1.jpg"}


# The real files

COUNTS = {
    (2015, "train"): (4000, 6352, 6166),
    (2015, "val"): (1000, 1594, 1541),
    (2017, "train"): (3373, 6049, 6049),
    (2017, "val"): (723, 1324, 1324),
}


@pytest.mark.skipif(not (REAL / "twitter2015").is_dir(), reason=f"the real Twitter sets are not at {REAL}")
@pytest.mark.parametrize(("year", "split"), COUNTS)
@pytest.mark.parametrize("max_length", [64, 12])
def test_no_gold_entity_of_the_real_files_is_lost(load: Load, year: int, split: str, max_length: int) -> None:
    module = load(root=str(REAL), year=year, max_length=max_length)
    read(module, split)
    found = module.fingerprint(split)
    assert (found["rows"], found["entities"], found["entities_strict"]) == COUNTS[year, split]
    examples = module.examples[split][:500]
    batch = module.collate([(example, None) for example in examples])
    assert [[tag for tag in row if tag != NO_TAG] for row in batch.gold.tolist()] == [e.gold for e in examples]
