"""The Twitter sets as a data module: every word keeps its position and its label, by name rather than id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmib.datamodules.labels import label_set
from mmib.datamodules.released import RELEASED
from mmib.datamodules.twitter import TwitterDataModule
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder
from mmib.schema import NO_LABEL, NO_WORD, ConfigError, DataError
from mmib.tagging import bio_tags
from mmib.tasks.mner import EntityExample, MNERBatch

REAL = Path(__file__).parents[3] / "shared" / "data"
TAGS = bio_tags(label_set("twitter").names)
TAG_IDS = {tag: number for number, tag in enumerate(TAGS)}

Load = Callable[..., TwitterDataModule]


class TwitterFolder:
    """Writes posts, images and crops in the layout of Twitter-2017."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "twitter2017").mkdir(parents=True)

    def write(self, content: str, split: str = "train") -> Path:
        path = self.root / "twitter2017" / f"{split}.txt"
        path.write_text(content, encoding="utf-8")
        return path

    def picture(self, *parts: str) -> Path:
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), "red").save(path)
        return path


def posts_of(*posts: tuple[str, str]) -> str:
    """Convert posts such as `("1", "ada/B-PER met/O")` to the text of a file."""
    return "".join(
        f"IMGID:{identity}\n" + "".join(f"{word.replace('/', chr(9))}\n" for word in words.split(" ")) + "\n"
        for identity, words in posts
    )


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


def read(module: TwitterDataModule, split: str = "train") -> Sequence[EntityExample]:
    module.examples[split] = module.read_split(split)
    return module.examples[split]


def gold_names(module: TwitterDataModule, split: str = "train") -> list[list[str]]:
    """Names of the gold tags of a split according to the head's label set."""
    tags = module.task.outputs(module.labels)
    examples = read(module, split)
    batch = module.collate([(example, None) for example in examples])
    return [[tags[tag] for tag in row if tag != NO_LABEL] for row in batch.gold.tolist()]


# Labels


POSTS = posts_of(
    ("1", "ada/B-PER lee/I-PER met/O bob/B-PER in/O rome/B-LOC"),
    ("2", "at/O acme/B-ORG in/O new/B-LOC york/I-LOC"),
    ("3", "the/O oscars/I-MISC and/O ada/B-PER"),
)


def test_gold_labels_keep_their_names_when_types_are_reordered(twitter: TwitterFolder, load: Load) -> None:
    """Version 0.1 kept ids in its cache: 98 B-PER of one order were read as 98 B-LOC of the other, silently."""
    twitter.write(POSTS)
    first = load(labels=["PER", "LOC", "ORG", "MISC"])
    names = gold_names(first)
    assert names == [
        ["B-PER", "I-PER", "O", "B-PER", "O", "B-LOC"],
        ["O", "B-ORG", "O", "B-LOC", "I-LOC"],
        ["O", "I-MISC", "O", "B-PER"],
    ]
    swapped = load(labels=["LOC", "PER", "ORG", "MISC"])
    assert swapped.cache_dir == first.cache_dir
    assert gold_names(swapped) == names
    assert Counter(tag for row in gold_names(swapped) for tag in row)["B-PER"] == 3
    # Only the ids differ, including those trained on.
    ids = [example.tags for example in swapped.examples["train"]]
    assert ids[0] == [3, 4, 0, 3, 0, 1]
    assert first.examples["train"][0].tags == [1, 2, 0, 1, 0, 3]
    assert gold_names(load(labels=["PER", "LOC", "ORG", "MISC"])) == names, "and back again"
    assert len(list((first.cache_dir / "posts").glob("*.npz"))) == 2


def test_a_label_missing_from_the_configuration_is_refused_even_if_posts_are_cached(
    twitter: TwitterFolder, load: Load
) -> None:
    path = twitter.write(POSTS)
    read(load())
    with pytest.raises(DataError) as error:
        read(load(labels=["PER", "LOC", "ORG"]))
    text = str(error.value)
    assert text.startswith(f"{path}:18: the label 'MISC' is not one of the 3 of data.labels (PER, LOC, ORG): add it")
    assert "\n" not in text


def test_a_label_set_may_contain_unused_labels(twitter: TwitterFolder, load: Load) -> None:
    twitter.write(POSTS)
    module = load(labels=["creative-work", "MISC", "PER", "ORG", "LOC"])
    assert gold_names(module) == gold_names(load())
    assert len(module.task.outputs(module.labels)) == 11


def test_types_may_have_any_names(twitter: TwitterFolder, load: Load) -> None:
    twitter.write(posts_of(("1", "a/B-creative-work b/I-creative-work c/B-队 d/I-creative-work")))
    module = load(labels=["队", "creative-work"])
    assert gold_names(module) == [["B-creative-work", "I-creative-work", "B-队", "I-creative-work"]]
    batch = module.collate([(example, None) for example in module.examples["train"]])
    assert batch.tags.tolist() == [[3, 4, 1, 3]], "the stray is repaired for training"
    assert batch.gold.tolist() == [[3, 4, 1, 4]]


def test_only_the_two_released_years_are_accepted(load: Load) -> None:
    with pytest.raises(ConfigError, match="no Twitter-2016"):
        load(year=2016)


def test_a_missing_file_error_describes_the_layout(load: Load) -> None:
    with pytest.raises(DataError, match=r"train\.txt does not exist; expected below the root, for the year 2017"):
        load().setup("fit")


# Words


@pytest.mark.parametrize(
    "word", ["\ufe0f", "\u200b", "\u200d", "\u00ad", "\u00a0", "\u0092", "\ufffd", "\x85", "\u2028"]
)
def test_a_word_that_looks_empty_keeps_its_position_and_label(twitter: TwitterFolder, load: Load, word: str) -> None:
    """Defect 22: it was missing from gold."""
    twitter.write(posts_of(("1", f"ada/O {word}/B-PER bob/I-PER")))
    (example,) = read(load())
    assert [TAGS[tag] for tag in example.gold] == ["O", "B-PER", "I-PER"]
    assert len(set(example.word_positions)) == 3
    assert max(example.word_positions) < len(example.input_ids) - 1  # [SEP] follows the last word


def test_every_piece_has_the_index_of_its_mention(twitter: TwitterFolder, load: Load) -> None:
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
def test_every_piece_has_the_index_of_its_word(twitter: TwitterFolder, load: Load, length: int) -> None:
    words = ["xyz", "the", "\u200b", "ab"]
    twitter.write(posts_of(("1", " ".join(f"{word}/O" for word in words)), ("2", "the/O")))
    module = load(max_length=length)
    examples = read(module)
    pieces = module.tokenizer.pieces([words])[0]
    seen = len(words) if length == 64 else 3  # [CLS], 3 + 1 + 1 pieces, [SEP]
    expected = [number for number, word_pieces in enumerate(pieces[:seen]) for _ in word_pieces]
    assert examples[0].words == words
    assert examples[0].word_ids == [NO_WORD, *expected, NO_WORD]
    batch = module.collate([(example, None) for example in examples])
    assert batch.word_ids[0].tolist() == examples[0].word_ids
    assert batch.word_ids[1].tolist() == [NO_WORD, 0] + [NO_WORD] * (batch.word_ids.shape[1] - 2)


def test_training_uses_repaired_tags_and_scoring_the_original_ones(twitter: TwitterFolder, load: Load) -> None:
    twitter.write(posts_of(("1", "ada/I-PER lee/I-PER")))
    module = load()
    (example,) = read(module)
    batch = module.collate([(example, None)])
    assert [TAGS[tag] for tag in batch.tags[0]] == ["B-PER", "I-PER"]
    assert [TAGS[tag] for tag in batch.gold[0]] == ["I-PER", "I-PER"]
    fingerprint = module.fingerprint("train")
    assert (fingerprint["rows"], fingerprint["entities"], fingerprint["entities_strict"]) == (1, 1, 0)


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
    assert torch.equal(batch.position_mask, batch.word_mask)
    assert batch.gold[1].tolist() == [TAG_IDS["O"], NO_LABEL, NO_LABEL]
    assert batch.tags[1].tolist() == [TAG_IDS["O"]] * 3
    assert int(batch.text_mask[0].sum()) == len(examples[0].input_ids)


@pytest.mark.parametrize("length", [3, 4, 5, 8])
def test_words_beyond_the_maximum_length_keep_their_gold_tags_and_are_counted(
    twitter: TwitterFolder, load: Load, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    """Defect 22: they were missing from gold, which inflates recall."""
    twitter.write(posts_of(("1", "anna/B-PER the/O bob/B-PER paris/B-LOC")))
    module = load(max_length=length)
    (example,) = read(module)
    seen = min(4, length - 2)  # [CLS] and [SEP]; one piece per word
    assert len(example.input_ids) <= length
    assert len(example.word_positions) == seen
    words = "1 word" if seen == 3 else f"{4 - seen} words"
    text = f"1 post, 3 entities, {words} of 1 post beyond max_length, counted as missed"
    assert (text in caplog.text) == (seen < 4)
    batch = module.collate([(example, None)])
    assert batch.gold.tolist() == [[TAG_IDS[tag] for tag in ("B-PER", "O", "B-PER", "B-LOC")]]
    assert int(batch.word_mask.sum()) == seen
    assert batch.positions.shape == batch.gold.shape


def test_no_word_is_encoded_after_one_that_does_not_fit(twitter: TwitterFolder, load: Load) -> None:
    twitter.write(posts_of(("1", "the/O qwertzuiop/B-PER the/B-LOC")))
    (example,) = read(load(max_length=5))
    assert example.word_positions == [1]
    assert len(example.input_ids) == 3


# Images


def test_posts_of_one_image_share_its_id(twitter: TwitterFolder, load: Load) -> None:
    twitter.write(posts_of(("1", "a/O"), ("2", "b/O"), ("1", "c/O")))
    twitter.picture("twitter2017_images", "1.jpg")
    module = load()
    first, second, third = read(module)
    assert first.image_id == third.image_id != second.image_id == -1
    assert str(module.image_reports["train"]) == "1 of 2 images, 2 of 3 rows"


def test_an_unreadable_crop_is_named_and_dropped(twitter: TwitterFolder, load: Load) -> None:
    """Defect 25: crops of entity recognition were read without error handling, and other images were replaced."""
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


@pytest.mark.skipif(not (REAL / "twitter2015").is_dir(), reason=f"the real Twitter sets are not at {REAL}")
@pytest.mark.parametrize("year", [2015, 2017])
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("max_length", [64, 12])
def test_no_gold_entity_of_the_real_files_is_lost(load: Load, year: int, split: str, max_length: int) -> None:
    module = load(root=str(REAL), year=year, max_length=max_length)
    read(module, split)
    found = module.fingerprint(split)
    assert {"posts": found["rows"], **{name: found[name] for name in ("entities", "entities_strict")}} == (
        RELEASED[f"twitter{year}"][split]
    )
    examples = module.examples[split][:500]
    batch = module.collate([(example, None) for example in examples])
    assert [[tag for tag in row if tag != NO_LABEL] for row in batch.gold.tolist()] == [e.gold for e in examples]


@pytest.mark.skipif(not (REAL / "twitter2017").is_dir(), reason=f"the real Twitter-2017 is not at {REAL}")
def test_real_gold_labels_keep_their_names_when_types_are_reordered(load: Load) -> None:
    counts = []
    for types in (["PER", "LOC", "ORG", "MISC"], ["LOC", "PER", "ORG", "MISC"]):
        names = gold_names(load(root=str(REAL), labels=types), "val")
        counts.append(Counter(tag for row in names for tag in row))
    assert counts[0] == counts[1]
    assert counts[0]["B-PER"] != counts[0]["B-LOC"]
