"""What posts, images and features become in a batch, and what is said about images that are missing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import base as base_module
from datamodules import cache as cache_module
from datamodules.mnre import MNREDataModule
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder
from mmib.schema import NO_IMAGE, ConfigError, DataError, MREBatch

Load = Callable[..., MNREDataModule]

COLOURS = ("red", "lime", "blue", "gold", "navy")


def batches(module: MNREDataModule, split: str = "train") -> list[MREBatch]:
    module.setup("test" if split == "test" else "fit")
    return list(getattr(module, f"{split}_dataloader")())


def by_row(module: MNREDataModule) -> tuple[MREBatch, list[int]]:
    """One batch of all training rows, and for each row its place in the batch."""
    (batch,) = batches(module)
    return batch, batch.rows.argsort().tolist()


@pytest.fixture
def five(mnre: Any) -> Any:
    """Five training rows with five images, the first with two crops, and one validation row."""
    for number, colour in enumerate(COLOURS):
        mnre.row(img_id=f"{colour}.png", token=["w"] * (number + 3))
        mnre.image(f"{colour}.png", colour)
    mnre.crop("one.png", "white")
    mnre.crop("two.png", "black")
    mnre.crops({0: ["one.png", "two.png"]})
    mnre.row("val")
    return mnre


# Batches


def test_a_batch_is_padded_to_its_own_longest_row(five: Any, load: Load) -> None:
    five.row(token=["w"] * 60)
    widths = {tuple(batch.rows.tolist()): batch.input_ids.shape[1] for batch in batches(load(batch_size=3))}
    module = load()
    module.setup("fit")
    lengths = [len(example.input_ids) for example in module.examples["train"]]
    assert sorted(len(rows) for rows in widths) == [3, 3]
    assert all(width == max(lengths[row] for row in rows) for rows, width in widths.items())
    assert min(widths.values()) < 20


def test_padding_is_masked_and_the_rest_is_the_row(five: Any, load: Load) -> None:
    module = load()
    batch, places = by_row(module)
    for row, place in enumerate(places):
        example = module.examples["train"][row]
        assert batch.input_ids[place][batch.text_mask[place]].tolist() == example.input_ids
        assert set(batch.input_ids[place][~batch.text_mask[place]].tolist()) <= {module.tokenizer.pad_id}
        marker = batch.input_ids[place, batch.positions[place]].tolist()
        assert marker == [module.tokenizer.marker_ids[name] for name in ("<mmib:head>", "<mmib:tail>")]
    assert batch.text_mask.dtype == batch.region_mask.dtype == torch.bool


@pytest.mark.parametrize("frozen", [True, False])
def test_a_whole_batch_without_images_is_a_normal_case(
    mnre: Any, load: Load, make_image_encoder: Callable[..., ImageEncoder], frozen: bool
) -> None:
    mnre.row()
    mnre.row()
    mnre.row("val")
    (batch,) = batches(load(image_encoder=make_image_encoder(frozen=frozen)))
    assert batch.pixels is None
    assert batch.features is not None
    assert batch.features.shape == (2, 1, 96)
    assert not batch.features.any()
    assert not batch.region_mask.any()
    assert batch.image_ids.tolist() == [NO_IMAGE, NO_IMAGE]


def test_defect_24_absent_images_and_crops_are_masked_not_black_pictures(five: Any, load: Load) -> None:
    """STYLE.md 2.1, defect 24: missing crops were zero images, attended to and charged KL."""
    (five.root / "img_org" / "train" / "blue.png").unlink()
    batch, places = by_row(load())
    assert batch.region_mask[places].sum(dim=1).tolist() == [3, 1, 0, 1, 1]
    assert batch.features is not None
    assert not batch.features[~batch.region_mask].any()
    assert batch.features[batch.region_mask].any(dim=1).all()
    assert not batch.boxes[~batch.region_mask].any()


def test_an_image_without_crops_and_crops_without_their_image_are_both_used(five: Any, load: Load) -> None:
    (five.root / "img_org" / "train" / "red.png").unlink()
    module = load()
    batch, places = by_row(module)
    assert [picture.file.name for picture in module.examples["train"][0].pictures] == ["one.png", "two.png"]
    assert [picture.file.name for picture in module.examples["train"][1].pictures] == ["lime.png"]
    assert batch.region_mask[places].sum(dim=1).tolist() == [2, 1, 1, 1, 1]
    assert (batch.image_ids >= 0).all()


def test_rows_of_one_image_share_its_id(five: Any, load: Load) -> None:
    five.row(img_id="gold.png")
    five.row(img_id="missing.png")
    batch, places = by_row(load())
    ids = batch.image_ids[places].tolist()
    assert ids[3] == ids[5]
    assert len(set(ids[:5])) == 5
    assert ids[6] == NO_IMAGE


def test_a_grid_gives_every_cell_of_the_whole_image_a_box(
    five: Any, load: Load, make_image_encoder: Callable[..., ImageEncoder]
) -> None:
    batch, places = by_row(load(image_encoder=make_image_encoder(regions="grid")))
    assert batch.region_mask.sum(dim=1).tolist() == [25] * 5
    cells = batch.boxes[places[0]].reshape(5, 5, 4)
    torch.testing.assert_close(cells[1, 3], torch.tensor([0.6, 0.2, 0.8, 0.4]))


# Cached features and pixels


def encoded(batch: MREBatch, encoder: ImageEncoder) -> torch.Tensor:
    """(P, V) features of a batch's pictures, through its pixels."""
    assert batch.features is None
    assert batch.pixels is not None
    with torch.inference_mode():
        return encoder.eval()(batch.pixels).flatten(0, 1)


@pytest.mark.parametrize("regions", ["crops", "grid"])
@pytest.mark.parametrize("options", [{"frozen": False}, {"augment": True}], ids=["unfrozen", "augmented"])
def test_pixels_and_cached_features_tell_the_same(
    five: Any,
    load: Load,
    make_image_encoder: Callable[..., ImageEncoder],
    regions: str,
    options: dict[str, bool],
) -> None:
    for number, colour in enumerate(COLOURS[:4]):
        five.row("val", token=["w"] * (9 - number), img_id=f"{colour}.png")
        five.image(f"{colour}.png", colour, "val")
    five.crops({1: ["one.png"]}, "val")
    five.crop("one.png", "white", "val")
    cached_encoder = make_image_encoder(regions=regions)
    pixel_encoder = make_image_encoder(regions=regions, frozen=options.get("frozen", True))
    (cached,) = batches(load(image_encoder=cached_encoder), "val")
    (pixels,) = batches(load(image_encoder=pixel_encoder, augment=options.get("augment", False)), "val")
    assert cached.pixels is None
    assert cached.features is not None
    assert torch.equal(cached.rows, pixels.rows)
    assert torch.equal(cached.region_mask, pixels.region_mask)
    assert torch.equal(cached.boxes, pixels.boxes)
    expected = encoded(pixels, pixel_encoder)
    torch.testing.assert_close(cached.features[cached.region_mask], expected, rtol=2e-3, atol=2e-3)


def test_augmentation_changes_training_pictures_only(five: Any, load: Load) -> None:
    five.image("a.jpg", split="val")
    module = load(augment=True)
    assert module.cache is None
    first, second = batches(module)[0], batches(module)[0]
    order_first, order_second = first.rows.argsort(), second.rows.argsort()
    assert torch.equal(first.input_ids[order_first], second.input_ids[order_second])
    assert first.pixels is not None
    assert not torch.equal(first.pixels, second.pixels)
    evaluated = [batches(module, "val")[0].pixels for _ in range(2)]
    assert torch.equal(evaluated[0], evaluated[1])


def test_with_a_warm_cache_no_image_is_decoded_and_no_encoder_runs(
    five: Any, load: Load, make_image_encoder: Callable[..., ImageEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    load().setup("fit")

    def refuse(*_: Any) -> None:
        raise AssertionError("an image was decoded or encoded")

    monkeypatch.setattr(base_module, "read_image", refuse)
    monkeypatch.setattr(cache_module, "read_image", refuse)
    encoder = make_image_encoder()
    monkeypatch.setattr(type(encoder), "forward", refuse)
    batch, _ = by_row(load(image_encoder=encoder))
    assert batch.features is not None
    assert batch.features.any()


# Images that are missing, switched off, or exchanged


def test_missing_and_unreadable_images_are_counted_by_image_and_by_row(five: Any, load: Load) -> None:
    for name in ("gone.png", "gone.png", "lime.png"):
        five.row(img_id=name)
    (five.root / "img_org" / "train" / "gold.png").write_bytes(b"<html>404</html>")
    (five.root / "img_org" / "train" / "navy.png").write_bytes(b"")
    module = load()
    module.setup("fit")
    report = module.image_reports["train"]
    assert str(report).startswith("3 of 6 images, 4 of 8 rows, 2 unreadable: gold.png, navy.png")
    assert "cannot identify image file" in report.unreadable["gold.png"]
    assert str(module.image_reports["val"]) == "0 of 1 images, 0 of 1 rows"


@pytest.mark.parametrize("frozen", [True, False])
def test_defect_25_an_unreadable_image_is_named_and_never_replaced(
    five: Any, load: Load, make_image_encoder: Callable[..., ImageEncoder], frozen: bool
) -> None:
    """STYLE.md 2.1, defect 25: a bare except put another picture in its place, uncounted."""
    for folder in ("img_org/train/lime.png", "img_vg/train/crops/one.png"):
        path = five.root / folder
        path.write_bytes(path.read_bytes()[:60])
    module = load(image_encoder=make_image_encoder(frozen=frozen))
    batch, places = by_row(module)
    assert sorted(module.image_reports["train"].unreadable) == ["lime.png", "one.png"]
    assert batch.region_mask[places].sum(dim=1).tolist() == [2, 0, 1, 1, 1]
    assert batch.image_ids[places[1]] == NO_IMAGE


def test_too_many_missing_images_are_an_error_that_says_how_to_go_on(five: Any, load: Load) -> None:
    for number in range(7):
        five.row(img_id=f"gone{number}.png")
    with pytest.raises(DataError) as error:
        load(max_missing_images=0.05).setup("fit")
    text = str(error.value)
    for part in (
        *(str(five.root), "split train", "7 of 12 images are missing or unreadable", "58%", "allows 5%"),
        *("gone0.png", "gone4.png and 2 more", "--data.max_missing_images 1.0"),
    ):
        assert part in text
    assert "gone5.png" not in text


def test_the_limit_is_a_share_of_distinct_images(five: Any, load: Load) -> None:
    for _ in range(20):
        five.row(img_id="gone.png")
    five.image("a.jpg", split="val")
    load(max_missing_images=1 / 6).setup("fit")
    with pytest.raises(DataError, match="1 of 6 images"):
        load(max_missing_images=0.16).setup("fit")


def test_images_switched_off_are_neither_looked_for_nor_missed(
    five: Any, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(images="none", max_missing_images=0.0)
    monkeypatch.setattr(module, "cache", None)
    monkeypatch.setattr(base_module, "read_image", None)
    batch, _ = by_row(module)
    assert not batch.region_mask.any()
    assert (batch.image_ids == NO_IMAGE).all()
    assert str(module.image_reports["train"]) == "0 of 5 images, 0 of 5 rows"


def test_shuffled_images_are_those_of_another_post(five: Any, load: Load) -> None:
    for name in ("lime.png", "lime.png", "red.png", "gone.png"):
        five.row(img_id=name)
    modules = [load(images="shuffled"), load(images="shuffled")]
    for module in modules:
        module.setup("fit")
    rows = modules[0].examples["train"]
    given = [[picture.file.name for picture in example.pictures] for example in rows]
    own = ["red.png", "lime.png", "blue.png", "gold.png", "navy.png", "lime.png", "lime.png", "red.png"]
    donors = dict(zip(own, (names[0] for names in given[:8]), strict=True))
    assert all(name != donor for name, donor in donors.items())
    assert sorted(donors.values()) == sorted(donors)
    assert [names[0] for names in given[:8]] == [donors[name] for name in own]
    assert given[8] == []
    assert len({example.image_id for example in rows[:8]}) == 5
    assert given == [[picture.file.name for picture in example.pictures] for example in modules[1].examples["train"]]


def test_crops_go_to_another_post_together_with_their_image(five: Any, load: Load) -> None:
    module = load(images="shuffled")
    module.setup("fit")
    given = [[picture.file.name for picture in example.pictures] for example in module.examples["train"]]
    assert ["red.png", "one.png", "two.png"] in given[1:]


# Splits


def test_fitting_needs_no_test_file(five: Any, load: Load) -> None:
    module = load()
    module.setup("fit")
    assert set(module.examples) == {"train", "val"}
    assert not module.has_split("test")
    with pytest.raises(DataError, match=r"ours_test\.txt does not exist"):
        module.setup("test")


def test_defect_17_validation_never_serves_test_rows(five: Any, load: Load) -> None:
    """STYLE.md 2.1, defect 17: the released code selects its epoch on the test split."""
    for split, count in (("val", 3), ("test", 4)):
        for number in range(count):
            five.row(split, token=[split[0]] * (4 + number))
    module = load()
    served = {split: batches(module, split) for split in ("val", "test")}
    module.setup("predict")
    served["predict"] = list(module.predict_dataloader())
    (letters,) = module.tokenizer.pieces([["v", "t"]])
    for split, letter in (("val", letters[0][0]), ("test", letters[1][0]), ("predict", letters[1][0])):
        (batch,) = served[split]
        texts = [batch.input_ids[place] for place, row in enumerate(batch.rows) if split != "val" or row > 0]
        assert len(texts) == (3 if split == "val" else 4)
        assert all((text == letter).any() for text in texts)


def test_defect_21_a_row_keeps_its_own_pictures_in_every_epoch(five: Any, load: Load) -> None:
    """STYLE.md 2.1, defect 21: sampled posts met the crops of others."""
    module = load(batch_size=2)
    module.setup("fit")
    assert module.cache is not None
    loader = module.train_dataloader()
    for _ in range(2):
        for batch in loader:
            for place, row in enumerate(batch.rows.tolist()):
                pictures = module.examples["train"][row].pictures
                features = np.concatenate([module.cache.features(picture.file) for picture in pictures])
                own = batch.features[place][batch.region_mask[place]].numpy()
                np.testing.assert_array_equal(own, features.astype(np.float32))
                assert pictures[0].file.name == f"{COLOURS[row]}.png"


def test_a_split_that_is_there_is_read_once(five: Any, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load()
    module.setup("fit")
    monkeypatch.setattr(module, "read_split", None)
    module.setup("fit")
    module.setup("validate")


def test_the_fingerprint_is_that_of_the_file(five: Any, load: Load) -> None:
    module = load()
    module.setup("fit")
    digest = hashlib.sha256(five.text("train").read_bytes()).hexdigest()
    assert module.fingerprint("train") == {"rows": 5, "sha256": digest}


def test_the_maximum_length_is_one_that_the_encoder_takes(load: Load, text_encoder: TextEncoder) -> None:
    limit = text_encoder.tokenizer.max_length
    assert limit is not None
    with pytest.raises(ConfigError, match=f"max_length is {limit + 1}: the text encoder takes {limit}"):
        load(max_length=limit + 1)
    load(max_length=limit)


def test_the_wild_images_of_a_folder_become_features(mnre: Any, load: Load) -> None:
    """CMYK, palettes, greys, one pixel: whatever can be read is encoded."""
    modes = {"cmyk.jpg": "CMYK", "palette.png": "P", "grey.png": "L", "bits.png": "1", "alpha.png": "RGBA"}
    for name, mode in modes.items():
        mnre.row(img_id=name)
        Image.new("RGB", (1, 1), "red").convert(mode).save(mnre.image(name))
    mnre.row("val")
    module = load()
    batch, _ = by_row(module)
    assert batch.region_mask.all()
    assert str(module.image_reports["train"]) == "5 of 5 images, 5 of 5 rows"
