"""Side texts as an image source: the file, the encoder, the cached regions, and bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmib.datamodules.jsonl import JSONLinesDataModule
from mmib.datamodules.side_texts import SideTexts
from mmib.encoders.image import ImageEncoder
from mmib.encoders.side_text import SideTextEncoder
from mmib.encoders.text import TextEncoder
from mmib.schema import NO_IMAGE, ConfigError, DataError

CAPTIONS = [
    {"image": "1.jpg", "captions": {"a": "the a b", "b": "b a"}},
    {"image": "2.png", "text": "the   a"},
    {"image": "3.jpg", "captions": {"a": " ", "b": "the a"}},
    {"image": "4.jpg", "text": ""},
]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    return write(tmp_path / "captions.jsonl", CAPTIONS)


@pytest.fixture
def load(encoder_files: Any, captions: Path, tmp_path: Path) -> Callable[..., JSONLinesDataModule]:
    posts = [{"text": f"the a {number}", "image": f"{number}.jpg", "entities": []} for number in (1, 2, 3, 4, 5)]
    posts.append({"text": "the b", "entities": []})
    folder = tmp_path / "posts"
    folder.mkdir()
    for name in ("train", "val"):
        write(folder / f"{name}.jsonl", posts)

    def make(encoder: ImageEncoder | None = None, **options: Any) -> JSONLinesDataModule:
        settings = {"side_text": str(captions), "image_source": "text", "max_missing_images": 1.0, **options}
        module = JSONLinesDataModule(
            root=str(folder),
            task="mner",
            labels=["PER"],
            text_encoder=TextEncoder(encoder_files.text),
            image_encoder=encoder or SideTextEncoder(encoder_files.text),
            cache_dir=str(tmp_path / "cache"),
            **settings,
        )
        module.setup("fit")
        return module

    return make


def test_each_word_piece_of_a_caption_is_a_region_with_the_state_of_the_frozen_encoder(
    load: Callable[..., JSONLinesDataModule],
) -> None:
    module = load()
    encoder = module.image_encoder
    assert isinstance(encoder, SideTextEncoder)
    batch = next(iter(module.val_dataloader()))
    examples = module.examples["val"]
    for place, row in enumerate(batch.rows.tolist()):
        texts = {0: ["the a b", "b a"], 1: ["the a"], 2: ["the a"]}.get(row, [])
        expected = torch.cat(encoder.text_features(texts)) if texts else torch.zeros(0, encoder.dim)
        found = batch.features[place][batch.region_mask[place]]
        torch.testing.assert_close(found.float(), expected, atol=1e-2, rtol=1e-2)
        assert (batch.image_ids[place] == NO_IMAGE) == (not texts)
    # The same texts are the same image, and a missing or an empty text is a missing image.
    assert examples[1].image_id == examples[2].image_id != examples[0].image_id
    assert str(module.image_reports["val"]).startswith("3 of 5 images, 3 of 6 rows")


def test_a_text_is_the_mean_of_its_pieces_and_texts_are_encoded_once(
    load: Callable[..., JSONLinesDataModule], encoder_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SideTextEncoder(encoder_files.text, regions_per_text="mean")
    module = load(encoder)
    assert len(module.examples["val"][0].pictures) == 2
    pieces = SideTextEncoder(encoder_files.text).text_features(["the a b"])[0]
    cache = module.feature_cache
    assert cache is not None
    index = module.examples["val"][0].pictures[0].cache_index
    np.testing.assert_allclose(cache.mapped.at(index), pieces.mean(0, keepdim=True), atol=1e-2)

    def encode_again(self: SideTextEncoder, texts: Any) -> Any:
        pytest.fail("texts in the cache were encoded again")

    monkeypatch.setattr(SideTextEncoder, "text_features", encode_again)
    load(SideTextEncoder(encoder_files.text, regions_per_text="mean"))


@pytest.mark.parametrize(("images", "expected"), [("none", [0] * 6), ("shuffled", None)])
def test_images_may_be_switched_off_and_shuffled(
    load: Callable[..., JSONLinesDataModule], images: str, expected: list[int] | None
) -> None:
    counts = [len(example.pictures) for example in load(images=images).examples["val"]]
    own = [len(example.pictures) for example in load().examples["val"]]
    if expected is None:
        assert counts != own
        assert [count > 0 for count in counts] == [count > 0 for count in own]
    else:
        assert counts == expected


def test_an_image_of_several_lines_keeps_its_different_texts(tmp_path: Path) -> None:
    rows = [*CAPTIONS, {"image": "1.jpg", "text": "a  c"}, {"image": "1.jpg", "text": "b a"}]
    texts = SideTexts(write(tmp_path / "twice.jsonl", rows))
    assert texts.of("1") == texts.of("1.jpg") == ("the a b", "b a", "a c")
    assert texts.of("2.jpg") == ("the a",)
    assert texts.of("9.jpg") == ()
    assert (texts.repeated, texts.empty) == (1, 2)
    assert "1 images without a text, 1 images named more than once" in texts.note()
    assert SideTexts(tmp_path / "twice.jsonl", ["b"]).of("1.jpg") == ("b a", "a c")


@pytest.mark.parametrize(
    ("rows", "models", "expected"),
    [
        ([CAPTIONS[0], "{'image': 1}"], None, r"captions.jsonl:2: not JSON"),
        ([["1.jpg", "the"]], None, "captions.jsonl:1: .* names no image"),
        ([{"image": "1.jpg"}], None, "captions.jsonl:1: give an image either 'captions'"),
        ([{"image": "1.jpg", "text": 3}], None, "captions.jsonl:1: the text is 3, no string"),
        ([{"image": "1.jpg", "text": " "}], None, "holds no text of any image"),
        (CAPTIONS, ["c"], "has no captions of c: choose side_text_models from a, b"),
        ([{"image": "other.jpg", "text": "a"}], None, "has no text of any image of .*: it names other.jpg, the posts"),
    ],
)
def test_a_bad_file_is_refused_in_a_sentence(
    load: Callable[..., JSONLinesDataModule], captions: Path, rows: list[Any], models: list[str] | None, expected: str
) -> None:
    write(captions, rows)
    with pytest.raises(DataError, match=expected):
        load(side_text_models=models)


def test_settings_that_contradict_each_other_are_refused(
    load: Callable[..., JSONLinesDataModule], make_image_encoder: Callable[..., ImageEncoder]
) -> None:
    with pytest.raises(ConfigError, match=r"no file holds the texts: name it with --data\.side_text"):
        load(side_text=None)
    with pytest.raises(ConfigError, match=r"reads pixels: add --config model/side_text\.yaml"):
        load(make_image_encoder())
    with pytest.raises(ConfigError, match=r"reads no pixels: set data\.image_source to text"):
        load(image_source="pixels")
    with pytest.raises(ConfigError, match="side_text is given and image_source is pixels"):
        load(make_image_encoder(), image_source="pixels")
    with pytest.raises(DataError, match=r"has no text of 2 of 5 images .* Add their texts"):
        load(max_missing_images=0.1)
