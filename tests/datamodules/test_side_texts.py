"""Side texts as an image source: the file, the encoder, the cached regions, and bad input."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmib.backbone import MultimodalIB
from mmib.datamodules.cache import TextFeatureCache
from mmib.datamodules.jsonl import JSONLinesDataModule
from mmib.datamodules.side_texts import SideTexts
from mmib.encoders.image import ImageEncoder
from mmib.encoders.pixels_and_texts import PixelsAndTextsEncoder
from mmib.encoders.regions import RegionEncoder
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


def features_of(encoder: SideTextEncoder, texts: list[str]) -> torch.Tensor:
    """(R, V) features of all regions of the texts."""
    return torch.cat([torch.zeros(0, encoder.dim), *(encoder.text_features(texts) if texts else [])])


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

    def make(
        encoder: RegionEncoder | None = None, text_encoder: TextEncoder | None = None, **options: Any
    ) -> JSONLinesDataModule:
        settings = {"side_text": str(captions), "image_source": "text", "max_missing_images": 1.0, **options}
        module = JSONLinesDataModule(
            root=str(folder),
            task="mner",
            labels=["PER"],
            text_encoder=text_encoder or TextEncoder(encoder_files.text),
            image_encoder=encoder or SideTextEncoder(encoder_files.text),
            cache_dir=str(tmp_path / "cache"),
            **settings,
        )
        module.setup("fit")
        return module

    return make


def test_each_word_piece_of_a_caption_is_a_region_with_its_state_of_the_frozen_encoder(
    load: Callable[..., JSONLinesDataModule],
) -> None:
    module = load()
    encoder = module.image_encoder
    assert isinstance(encoder, SideTextEncoder)
    batch = next(iter(module.val_dataloader()))
    examples = module.examples["val"]
    for place, row in enumerate(batch.rows.tolist()):
        texts = {0: ["the a b", "b a"], 1: ["the a"], 2: ["the a"]}.get(row, [])
        expected = features_of(encoder, texts)
        found = batch.side_texts.features[place][batch.region_mask[place]]
        torch.testing.assert_close(found.float(), expected, atol=1e-2, rtol=1e-2)
        assert (batch.image_ids[place] == NO_IMAGE) == (not texts)
    # Equal texts count as the same image, and a missing or empty text as a missing image.
    assert examples[1].image_id == examples[2].image_id != examples[0].image_id
    assert str(module.image_reports["val"]).startswith("3 of 5 images, 3 of 6 rows")


def test_pooled_texts_are_the_mean_of_their_pieces_and_are_encoded_once(
    load: Callable[..., JSONLinesDataModule], encoder_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SideTextEncoder(encoder_files.text, regions_per_text="mean")
    module = load(encoder)
    assert len(module.examples["val"][0].pictures) == 2
    pieces = SideTextEncoder(encoder_files.text).text_features(["the a b"])[0]
    cache = module.text_regions
    assert isinstance(cache, TextFeatureCache)
    index = module.examples["val"][0].pictures[0].cache_index
    np.testing.assert_allclose(cache.mapped.at(index), pieces.mean(0, keepdim=True), atol=1e-2)

    def encode_again(self: SideTextEncoder, texts: Any) -> Any:
        pytest.fail("texts in the cache were encoded again")

    monkeypatch.setattr(SideTextEncoder, "text_features", encode_again)
    load(SideTextEncoder(encoder_files.text, regions_per_text="mean"))


@pytest.mark.parametrize("regions_per_text", ["pieces", "mean"])
@pytest.mark.parametrize("trainable_layers", [None, 0])
def test_the_models_text_encoder_reads_texts_from_the_cache_only_if_it_is_frozen(
    load: Callable[..., JSONLinesDataModule], encoder_files: Any, trainable_layers: int | None, regions_per_text: Any
) -> None:
    text_encoder = TextEncoder(encoder_files.text, trainable_layers=trainable_layers)
    encoder = SideTextEncoder(shared=True, regions_per_text=regions_per_text)
    MultimodalIB(text_encoder, encoder).eval()
    module = load(encoder, text_encoder)
    batch = next(iter(module.val_dataloader()))
    # Another process collates the same batch.
    collator = pickle.loads(pickle.dumps(module._collator()))
    again = collator.batch([(module.examples["val"][row], None) for row in batch.rows.tolist()])
    texts = batch.side_texts
    assert texts is not None
    assert again.side_texts is not None
    assert (texts.features is None) == (again.side_texts.features is None) == (trainable_layers is None)
    assert torch.equal(texts.mask, batch.region_mask)
    with torch.no_grad():
        (found,), (found_again,) = encoder.encode(batch), encoder.encode(again)
    torch.testing.assert_close(found, found_again)
    for place, row in enumerate(batch.rows.tolist()):
        texts_of_row = {0: ["the a b", "b a"], 1: ["the a"], 2: ["the a"]}.get(row, [])
        expected = features_of(encoder, texts_of_row)
        torch.testing.assert_close(found[place][batch.region_mask[place]], expected, atol=1e-2, rtol=1e-2)
        assert not found[place][~batch.region_mask[place]].any()


@pytest.mark.parametrize(("pixels_frozen", "shared"), [(True, False), (False, True)])
def test_pixels_and_texts_can_be_combined_and_either_may_be_missing(
    load: Callable[..., JSONLinesDataModule],
    make_image_encoder: Callable[..., ImageEncoder],
    encoder_files: Any,
    tmp_path: Path,
    pixels_frozen: bool,
    shared: bool,
) -> None:
    (tmp_path / "posts").mkdir(exist_ok=True)
    for number, colour in ((1, "red"), (5, "blue")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / "posts" / f"{number}.jpg")
    text_encoder = TextEncoder(encoder_files.text)
    texts = SideTextEncoder(shared=True) if shared else SideTextEncoder(encoder_files.text)
    encoder = PixelsAndTextsEncoder(make_image_encoder(frozen=pixels_frozen, regions="grid"), texts)
    backbone = MultimodalIB(text_encoder, encoder).eval()
    module = load(encoder, text_encoder, image_source="both")
    batch = next(iter(module.val_dataloader()))
    assert (batch.pixels is None) == pixels_frozen
    with torch.no_grad():
        images, captions = encoder.encode(batch)
        output = backbone(batch)
    cells = len(encoder.pixels.region_boxes())
    for place, row in enumerate(batch.rows.tolist()):
        captioned = {0: ["the a b", "b a"], 1: ["the a"], 2: ["the a"]}.get(row, [])
        features = features_of(texts, captioned)
        shown = cells if row in (0, 4) else 0
        assert int(batch.region_mask[place].sum()) == shown + len(features)
        assert batch.pixel_mask[place].tolist() == [at < shown for at in range(batch.region_mask.shape[1])]
        torch.testing.assert_close(captions[place][shown : shown + len(features)], features, atol=1e-2, rtol=1e-2)
        assert (images[place].abs().sum(dim=1) > 0).tolist() == batch.pixel_mask[place].tolist()
        assert (batch.image_ids[place] == NO_IMAGE) == (not shown and not captioned)
        assert len(module.describe("val", row)["boxes"]) == shown + len(features)
    assert output.states.isfinite().all()
    assert str(module.image_reports["val"]).startswith("4 of 5 images, 4 of 6 rows (2 with pixels, 3 with side texts)")
    assert module._sizes(module.examples["val"])[:, 1].tolist() == [
        int(batch.region_mask[batch.rows.tolist().index(row)].sum()) for row in range(6)
    ]


@pytest.mark.parametrize(("images", "expected"), [("none", [0] * 6), ("shuffled", None)])
@pytest.mark.parametrize("shared", [False, True])
def test_images_may_be_disabled_and_shuffled(
    load: Callable[..., JSONLinesDataModule],
    encoder_files: Any,
    images: str,
    expected: list[int] | None,
    shared: bool,
) -> None:
    text_encoder = TextEncoder(encoder_files.text)
    encoder = SideTextEncoder(shared=True) if shared else None
    if encoder is not None:
        encoder.share(text_encoder)
    counts = [len(example.pictures) for example in load(encoder, text_encoder, images=images).examples["val"]]
    originals = [len(example.pictures) for example in load(encoder, text_encoder).examples["val"]]
    if expected is None:
        assert counts != originals
        assert [count > 0 for count in counts] == [count > 0 for count in originals]
    else:
        assert counts == expected


def test_an_image_in_several_lines_keeps_its_distinct_texts(tmp_path: Path) -> None:
    rows = [*CAPTIONS, {"image": "1.jpg", "text": "a  c"}, {"image": "1.jpg", "text": "b a"}]
    texts = SideTexts(write(tmp_path / "twice.jsonl", rows))
    assert texts.of("1") == texts.of("1.jpg") == ("the a b", "b a", "a c")
    assert texts.of("2.jpg") == ("the a",)
    assert texts.of("9.jpg") == ()
    assert (texts.repeated, texts.empty) == (1, 2)
    assert "1 image without a text, 1 image named more than once" in texts.note()
    assert SideTexts(tmp_path / "twice.jsonl", ["b"]).of("1.jpg") == ("b a", "a c")


def test_an_image_listed_again_after_an_empty_text_does_not_count_as_ambiguous(tmp_path: Path) -> None:
    texts = SideTexts(write(tmp_path / "empty.jsonl", [{"image": "1.jpg", "text": text} for text in (" ", "a", "a")]))
    assert texts.of("1.jpg") == ("a",)
    assert (texts.repeated, texts.empty) == (0, 1)


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
def test_a_malformed_file_is_refused_in_one_sentence(
    load: Callable[..., JSONLinesDataModule], captions: Path, rows: list[Any], models: list[str] | None, expected: str
) -> None:
    write(captions, rows)
    with pytest.raises(DataError, match=expected):
        load(side_text_models=models)


def test_contradictory_settings_are_refused(
    load: Callable[..., JSONLinesDataModule], make_image_encoder: Callable[..., ImageEncoder]
) -> None:
    with pytest.raises(ConfigError, match=r"no file holds the texts: name it with --data\.side_text"):
        load(side_text=None)
    with pytest.raises(ConfigError, match=r"ImageEncoder, is for pixels: add --config model/side_text\.yaml"):
        load(make_image_encoder())
    with pytest.raises(ConfigError, match=r"SideTextEncoder, is for text: set data\.image_source to the latter"):
        load(image_source="pixels")
    with pytest.raises(ConfigError, match=r"is for text: add --config model/pixels_and_texts\.yaml"):
        load(image_source="both")
    with pytest.raises(ConfigError, match="side_text is given and image_source is pixels"):
        load(make_image_encoder(), image_source="pixels")
    with pytest.raises(DataError, match=r"has no text for 2 of 5 images .* Add their texts"):
        load(max_missing_images=0.1)
