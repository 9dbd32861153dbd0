"""What posts, images and features become in a batch, and how missing images are reported."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from mmib.datamodules import base as base_module
from mmib.datamodules import cache as cache_module
from mmib.datamodules import loading as loading_module
from mmib.datamodules.base import ImageReport, PostDataModule
from mmib.datamodules.files import Malformed, read_lines
from mmib.datamodules.mnre import MNREDataModule
from mmib.datamodules.posts import LabelledPost
from mmib.datamodules.readers import Reader
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder
from mmib.schema import (
    NO_IMAGE,
    NO_WORD,
    UNKNOWN_BOX,
    WHOLE_IMAGE,
    ConfigError,
    DataError,
    TaskError,
    Window,
    register_task,
)
from mmib.tasks.base import ClassBatch, PostClassification
from mmib.tasks.mre import MREBatch

from .conftest import COLOURS

Load = Callable[..., MNREDataModule]


def batches(module: MNREDataModule, split: str = "train") -> list[MREBatch]:
    module.setup("test" if split == "test" else "fit")
    return list(getattr(module, f"{split}_dataloader")())


def by_row(module: MNREDataModule) -> tuple[MREBatch, list[int]]:
    """One batch of all training rows, and the index of each row in the batch."""
    (batch,) = batches(module)
    return batch, batch.rows.argsort().tolist()


def trained_by(module: MNREDataModule, epoch: int = 0, ranks: int = 1, rank: int = 0, **options: Any) -> MNREDataModule:
    """A data module attached to a trainer at the given epoch and rank."""
    progress = SimpleNamespace(current=SimpleNamespace(processed=options.pop("processed", 0)))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    place = {"current_epoch": epoch, "world_size": ranks, "global_rank": rank, "accumulate_grad_batches": 1}
    place |= {"limit_train_batches": 1.0, "limit_val_batches": 1.0, "overfit_batches": 0.0, "max_epochs": 1}
    place |= {"limit_test_batches": 1.0, "limit_predict_batches": 1.0, "predicting": False}
    module.trainer = cast(Any, SimpleNamespace(**place | options, fit_loop=loop))
    return module


def pictures_of(batch: MREBatch, row: int) -> torch.Tensor:
    """The pixels of a row's images."""
    assert batch.pixels is not None
    row_mask = torch.zeros_like(batch.region_mask)
    row_mask[batch.rows == row] = True
    return batch.pixels[row_mask[batch.region_mask]]


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


def test_padding_is_masked_and_the_rest_is_unchanged(five: Any, load: Load) -> None:
    module = load()
    batch, places = by_row(module)
    for row, place in enumerate(places):
        example = module.examples["train"][row]
        assert batch.input_ids[place][batch.text_mask[place]].tolist() == example.input_ids
        assert batch.word_ids[place][batch.text_mask[place]].tolist() == example.word_ids
        assert (batch.word_ids[place][~batch.text_mask[place]] == NO_WORD).all()
        assert set(batch.input_ids[place][~batch.text_mask[place]].tolist()) <= {module.tokenizer.pad_id}
        marker = batch.input_ids[place, batch.positions[place]].tolist()
        assert marker == [module.tokenizer.marker_ids[name] for name in ("<mmib:head>", "<mmib:tail>")]
    assert batch.text_mask.dtype == batch.region_mask.dtype == torch.bool


@pytest.mark.parametrize("frozen", [True, False])
def test_a_batch_without_any_images_is_valid(
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


def test_defect_24_absent_images_and_crops_are_masked_not_black_images(five: Any, load: Load) -> None:
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


def test_each_grid_cell_has_its_box(five: Any, load: Load, make_image_encoder: Callable[..., ImageEncoder]) -> None:
    batch, places = by_row(load(image_encoder=make_image_encoder(regions="grid")))
    assert batch.region_mask.sum(dim=1).tolist() == [25] * 5
    cells = batch.boxes[places[0]].reshape(5, 5, 4)
    torch.testing.assert_close(cells[1, 3], torch.tensor([0.6, 0.2, 0.8, 0.4]))


# Cached features and pixels


def encoded(batch: MREBatch, encoder: ImageEncoder) -> torch.Tensor:
    """(P, V) features of a batch's images, computed from its pixels."""
    assert batch.features is None
    assert batch.pixels is not None
    with torch.inference_mode():
        return encoder.eval()(batch.pixels).flatten(0, 1)


@pytest.mark.parametrize("regions", ["crops", "grid"])
@pytest.mark.parametrize("options", [{"frozen": False}, {"augment": True}], ids=["unfrozen", "augmented"])
def test_pixels_and_cached_features_are_equivalent(
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


def test_augmentation_changes_only_training_images(five: Any, load: Load) -> None:
    five.image("a.jpg", split="val")
    module = load(augment=True)
    assert module.cache is None
    first, second = (batches(trained_by(module, epoch=epoch))[0] for epoch in (0, 1))
    order_first, order_second = first.rows.argsort(), second.rows.argsort()
    assert torch.equal(first.input_ids[order_first], second.input_ids[order_second])
    assert first.pixels is not None
    assert second.pixels is not None
    for row in range(len(first)):
        one, two = (pictures_of(batch, row) for batch in (first, second))
        assert one.shape == two.shape
        assert not torch.equal(one, two), "every epoch crops anew"
    evaluated = [batches(module, "val")[0].pixels for _ in range(2)]
    assert torch.equal(evaluated[0], evaluated[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_depends_only_on_seed_epoch_and_row(
    five: Any, load: Load, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """timm samples from torch and from Python: both are independent of worker, rank and order of batches."""
    drawn: list[dict[int, torch.Tensor]] = []
    for seed, options in ((5, {}), (5, {"workers": workers, "batch_size": 2}), (6, {})):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        random.seed(len(drawn))
        torch.manual_seed(len(drawn))
        expected = batches(trained_by(load(augment=True, **options), epoch=3))
        drawn.append({row: pictures_of(batch, row) for batch in expected for row in batch.rows.tolist()})
    for row in range(5):
        assert torch.equal(drawn[0][row], drawn[1][row])
        assert not torch.equal(drawn[0][row], drawn[2][row])


def test_with_a_warm_cache_no_image_is_decoded_and_no_encoder_runs(
    five: Any, load: Load, make_image_encoder: Callable[..., ImageEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    load().setup("fit")

    def refuse(*_: Any) -> None:
        raise AssertionError("an image was decoded or encoded")

    monkeypatch.setattr(base_module, "unreadable_images", refuse)
    monkeypatch.setattr(loading_module, "read_image", refuse)
    monkeypatch.setattr(cache_module, "read_image", refuse)
    encoder = make_image_encoder()
    monkeypatch.setattr(type(encoder), "forward", refuse)
    batch, _ = by_row(load(image_encoder=encoder))
    assert batch.features is not None
    assert batch.features.any()


# Ranks


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_rows_of_all_ranks_equal_the_batch_of_one_process_plus_padding_rows(
    five: Any, load: Load, make_image_encoder: Callable[..., ImageEncoder], ranks: int, frozen: bool, split: str
) -> None:
    for number in range(6):
        five.row("val", token=["w"] * (9 - number), img_id="red.png")
    five.image("red.png", split="val")
    options = {
        "image_encoder": make_image_encoder(frozen=frozen),
        **{"batch_size": 4 if ranks != 3 else 3, "eval_batch_size": 4},
    }
    alone = batches(load(**options), split)
    shared = [batches(trained_by(load(**options), ranks=ranks, rank=rank), split) for rank in range(ranks)]
    assert {len(share) for share in shared} == {len(alone)}
    padding_rows = 0
    for whole, *parts in zip(alone, *shared, strict=True):
        count = len(whole)
        assert len({len(part) for part in parts}) == 1
        for name in ("rows", "input_ids", "text_mask", "word_ids", "mentions", "positions", "label_ids"):
            joined = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(joined[:count], getattr(whole, name)), name
        for name in ("region_mask", "boxes", "image_ids"):
            joined = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(joined[:count], getattr(whole, name)), name
            assert torch.equal(joined[count:], torch.full_like(joined[count:], NO_IMAGE if name == "image_ids" else 0))
        assert (torch.cat([part.rows for part in parts])[count:] == -1).all()
        if frozen:
            joined = torch.cat([part.features for part in parts if part.features is not None])
            assert whole.features is not None
            assert torch.equal(joined[:count], whole.features)
            assert not joined[count:].any()
        else:
            assert whole.pixels is not None
            pixels = [part.pixels for part in parts if part.pixels is not None]
            assert torch.equal(torch.cat(pixels), whole.pixels), "a padding row has no picture"
            assert all((part.pixels is None) == (not part.region_mask.any()) for part in parts)
            assert all((part.features is None) == (part.pixels is not None) for part in parts)
        padding_rows += sum(len(part) for part in parts) - count
    assert padding_rows > 0


def test_a_batch_size_that_ranks_cannot_share_is_refused_only_for_training(five: Any, load: Load) -> None:
    module = trained_by(load(batch_size=16, eval_batch_size=16), ranks=3)
    with pytest.raises(ConfigError, match=r"batch_size is 16 rows over all ranks, and 3 ranks .* multiple of 3"):
        batches(module)
    assert not module.examples, "refused before any data is read"
    module.setup("validate")
    assert len(next(iter(module.val_dataloader()))) == 1


def test_max_tokens_bounds_the_batches_of_every_split(five: Any, load: Load) -> None:
    for number in range(30):
        five.row(token=["w"] * (3 + number % 25))
        five.row("val", token=["w"] * (3 + number % 25))
    module = load(batch_size=12, eval_batch_size=12, max_length=40, max_tokens=90)
    for split, rows in (("train", 35), ("val", 31)):
        found = batches(module, split)
        assert sorted(row for batch in found for row in batch.rows.tolist()) == list(range(rows))
        assert max(batch.input_ids.numel() for batch in found) <= 90
        assert max(map(len, found)) > 2 * min(map(len, found))
        assert max(map(len, found)) <= 12


def test_ranks_share_batches_within_a_token_budget(five: Any, load: Load) -> None:
    options = {"batch_size": 7, "max_length": 40, "max_tokens": 60}
    alone = batches(load(**options))
    shared = [batches(trained_by(load(**options), ranks=3, rank=rank)) for rank in range(3)]
    for whole, *parts in zip(alone, *shared, strict=True):
        assert torch.cat([part.rows[part.rows >= 0] for part in parts]).tolist() == whole.rows.tolist()


def test_a_budget_smaller_than_one_post_is_refused(five: Any, load: Load) -> None:
    with pytest.raises(ConfigError, match="max_tokens is 79, and a single post may have max_length 80 word pieces"):
        load(max_length=80, max_tokens=79)
    load(max_length=80, max_tokens=80)


def test_only_training_batches_are_weighted_within_their_step(five: Any, load: Load) -> None:
    module = trained_by(load(batch_size=2, eval_batch_size=1), accumulate_grad_batches=3)
    five.row("val")
    windows = [batch.window for batch in batches(module)]
    assert [round(window.posts, 6) for window in windows] == [
        pytest.approx(3 * len(batch) / 5) for batch in batches(module)
    ]
    assert sum(window.images for window in windows) == pytest.approx(3)
    assert {batch.window for batch in batches(module, "val")} == {Window()}


# Resuming


def rows_of(loader: Any) -> list[list[int]]:
    return [batch.rows.tolist() for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_resumes_after_the_last_trained_batch(five: Any, load: Load, workers: int) -> None:
    """Not after the batches that workers had prefetched."""
    options = {"batch_size": 1, "workers": workers}
    module = trained_by(load(**options), epoch=4)
    module.setup("fit")
    loader: Any = module.train_dataloader()
    whole = rows_of(loader)
    trained_by(module, epoch=4, processed=2)
    drawing = iter(loader)
    next(drawing)
    state = loader.state_dict()
    assert state == {"consumed": 2}
    other = trained_by(load(**options), epoch=4, processed=2)
    other.setup("fit")
    resumed: Any = other.train_dataloader()
    resumed.load_state_dict(state)
    assert len(resumed) == 5
    assert rows_of(resumed) == whole[2:]
    assert rows_of(other.val_dataloader()) == [[0]], "validation is always whole"
    trained_by(other, epoch=4, processed=0)
    assert rows_of(resumed) == whole, "later epochs are whole again"


class RowRecorder(pl.LightningModule):
    """Records the rows of each epoch; saves a checkpoint after a batch of the second epoch, and stops."""

    def __init__(self, checkpoint: Path | None = None) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch: MREBatch, index: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch.rows.tolist()))
        return self.weight.sum()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.checkpoint and len(self.seen) == 8:
            self.trainer.save_checkpoint(self.checkpoint)
            raise KeyboardInterrupt

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no", "ignore:.*LeafSpec")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_trains_on_exactly_the_remaining_rows(
    five: Any, load: Load, tmp_path: Path, workers: int
) -> None:
    def fit(model: RowRecorder, ckpt_path: Path | None = None) -> list[tuple[int, list[int]]]:
        trainer = pl.Trainer(
            default_root_dir=tmp_path,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            max_epochs=3,
            limit_val_batches=0,
            use_distributed_sampler=False,
        )
        trainer.fit(model, datamodule=load(batch_size=1, workers=workers), ckpt_path=ckpt_path, weights_only=True)
        return model.seen

    whole = fit(RowRecorder())
    assert len(whole) == 15
    checkpoint = tmp_path / "middle.ckpt"
    with pytest.raises(SystemExit):
        fit(first := RowRecorder(checkpoint))
    assert first.seen == whole[:8]
    assert fit(RowRecorder(), checkpoint) == whole[8:]


# Images that are missing, disabled, or shuffled


def test_missing_and_unreadable_images_are_counted_per_image_and_per_row(five: Any, load: Load) -> None:
    for name in ("gone.png", "gone.png", "lime.png"):
        five.row(img_id=name)
    (five.root / "img_org" / "train" / "gold.png").write_bytes(b"<html>404</html>")
    (five.root / "img_org" / "train" / "navy.png").write_bytes(b"")
    module = load()
    module.setup("fit")
    report = module.image_reports["train"]
    assert str(report).startswith("3 of 6 images, 4 of 8 rows, 2 unreadable: gold.png, navy.png")
    assert "it is no image" in report.unreadable["gold.png"]
    assert str(module.image_reports["val"]) == "0 of 1 image, 0 of 1 row"


def test_data_without_images_is_described_as_such() -> None:
    assert str(ImageReport(0, 0, 48, 0, 0, {})) == "no images, as no row names one"
    assert (
        str(ImageReport(0, 0, 48, 0, 2, {})) == "0 of 0 images, 0 of 48 rows, 2 rows left out by the trainer's limits"
    )


def test_an_image_is_missing_even_if_its_crops_exist(five: Any, load: Load) -> None:
    (five.root / "img_org" / "train" / "red.png").unlink()
    module = load()
    batch, places = by_row(module)
    assert str(module.image_reports["train"]) == "4 of 5 images, 5 of 5 rows"
    assert batch.region_mask[places].sum(dim=1).tolist() == [2, 1, 1, 1, 1]
    with pytest.raises(DataError, match=r"1 of 5 images are missing .*red\.png"):
        load(max_missing_images=0.05).setup("fit")


def test_cyclic_links_are_missing_and_one_pixel_wide_images_are_unreadable(five: Any, load: Load) -> None:
    folder = five.root / "img_org" / "train"
    (folder / "gold.png").unlink()
    (folder / "gold.png").symlink_to(folder / "gold.png")
    Image.new("L", (1, 50_000)).save(folder / "navy.png")
    module = load()
    module.setup("fit")
    assert str(module.image_reports["train"]).startswith("3 of 5 images, 3 of 5 rows, 1 unreadable: navy.png")


@pytest.mark.parametrize("frozen", [True, False])
def test_defect_25_an_unreadable_image_is_named_and_never_replaced(
    five: Any, load: Load, make_image_encoder: Callable[..., ImageEncoder], frozen: bool
) -> None:
    """STYLE.md 2.1, defect 25: a bare except substituted another image without counting it."""
    for folder in ("img_org/train/lime.png", "img_vg/train/crops/one.png"):
        path = five.root / folder
        path.write_bytes(path.read_bytes()[:60])
    module = load(image_encoder=make_image_encoder(frozen=frozen))
    batch, places = by_row(module)
    assert sorted(module.image_reports["train"].unreadable) == ["lime.png", "one.png"]
    assert batch.region_mask[places].sum(dim=1).tolist() == [2, 0, 1, 1, 1]
    assert batch.image_ids[places[1]] == NO_IMAGE


def test_an_error_about_too_many_missing_images_names_the_remedy(five: Any, load: Load) -> None:
    for number in range(7):
        five.row(img_id=f"gone{number}.png")
    with pytest.raises(DataError) as error:
        load(max_missing_images=0.05).setup("fit")
    text = str(error.value)
    for part in (
        *(str(five.root), "split train", "7 of 12 images are missing or unreadable", "58%", "allows 5%"),
        *("gone0.png", "gone4.png and 2 more", "--data.max_missing_images 1.0"),
        f"Put the images into {five.root / 'img_org' / 'train'}, or",
    ):
        assert part in text
    assert "gone5.png" not in text


def test_a_split_without_any_of_its_images_names_the_searched_folder(
    five: Any, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    """With unlimited missing images, a wrong folder name would go unnoticed."""
    folder = five.root / "img_org" / "train"
    load(max_missing_images=1.0).setup("fit")
    assert "train: no image was found" not in caplog.text
    folder.rename(folder.with_name("training"))
    load(max_missing_images=1.0).setup("fit")
    assert f"train: no image was found in {folder}, which does not exist" in caplog.text


def test_the_limit_is_a_fraction_of_distinct_images(five: Any, load: Load) -> None:
    for _ in range(20):
        five.row(img_id="gone.png")
    five.image("a.jpg", split="val")
    load(max_missing_images=1 / 6).setup("fit")
    with pytest.raises(DataError, match="1 of 6 images"):
        load(max_missing_images=0.16).setup("fit")


def test_an_unknown_use_of_images_is_refused(five: Any, load: Load) -> None:
    with pytest.raises(ConfigError, match="images 'shuffle' is unknown: choose own, none, shuffled"):
        load(images="shuffle")


def test_disabled_images_are_neither_searched_nor_missing(
    five: Any, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(images="none", max_missing_images=0.0)
    monkeypatch.setattr(module, "cache", None)
    monkeypatch.setattr(base_module, "unreadable_images", None)
    batch, _ = by_row(module)
    assert not batch.region_mask.any()
    assert (batch.image_ids == NO_IMAGE).all()
    assert str(module.image_reports["train"]) == "0 of 5 images, 0 of 5 rows"


def test_shuffled_images_belong_to_another_post(five: Any, load: Load) -> None:
    for name in ("lime.png", "lime.png", "red.png", "gone.png"):
        five.row(img_id=name)
    modules = [load(images="shuffled"), load(images="shuffled")]
    for module in modules:
        module.setup("fit")
    rows = modules[0].examples["train"]
    given = [[picture.file.name for picture in example.pictures] for example in rows]
    originals = ["red.png", "lime.png", "blue.png", "gold.png", "navy.png", "lime.png", "lime.png", "red.png"]
    donors = dict(zip(originals, (names[0] for names in given[:8]), strict=True))
    assert all(name != donor for name, donor in donors.items())
    assert sorted(donors.values()) == sorted(donors)
    assert [names[0] for names in given[:8]] == [donors[name] for name in originals]
    assert given[8] == []
    assert len({example.image_id for example in rows[:8]}) == 5
    assert given == [[picture.file.name for picture in example.pictures] for example in modules[1].examples["train"]]


@pytest.mark.parametrize("cached", [True, False])
def test_copies_of_an_image_under_other_names_count_as_the_same_image(
    five: Any, load: Load, make_image_encoder: Callable[..., ImageEncoder], cached: bool
) -> None:
    five.image("copy-of-lime.png", "lime")
    five.row(img_id="copy-of-lime.png")
    module = load() if cached else load(image_encoder=make_image_encoder(frozen=False))
    assert (module.cache is not None) == cached
    module.setup("fit")
    ids = [example.image_id for example in module.examples["train"]]
    assert ids[5] == ids[COLOURS.index("lime")]
    assert len(set(ids)) == 5
    assert str(module.image_reports["train"]) == "6 of 6 images, 6 of 6 rows"


def test_crops_are_shuffled_together_with_their_image(five: Any, load: Load) -> None:
    module = load(images="shuffled")
    module.setup("fit")
    given = [[picture.file.name for picture in example.pictures] for example in module.examples["train"]]
    assert ["red.png", "one.png", "two.png"] in given[1:]


# A sample


@pytest.mark.parametrize(("most", "expected"), [(400, [1, 2, 3, 4, 5]), (5, [1, 2, 3, 4, 5]), (2, [1, 3]), (0, [])])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_sample_is_spread_over_the_rows_with_an_image(
    five: Any, load: Load, most: int, expected: list[int], ranks: int
) -> None:
    for colour in COLOURS:  # after the row with a missing image
        five.row("val", img_id=f"{colour}.png")
        five.image(f"{colour}.png", colour, "val")
    found = []
    for rank in range(ranks):
        module = trained_by(load(eval_batch_size=2), ranks=ranks, rank=rank)
        module.setup("fit")
        assert module.val_sample(most) == expected
        sampled = list(module.val_dataloader(expected))
        assert len(sampled) == (len(expected) + 1) // 2, "no batch more than it takes"
        found += [row for batch in sampled for row in batch.rows.tolist() if row >= 0]
    assert sorted(found) == expected


# Descriptions of rows


def test_a_row_is_described_as_seen_by_the_model(five: Any, load: Load) -> None:
    five.row(token=["ada", "\u2028", "bob"], head=(2, 3), tail=(0, 1), img_id="gone.png")
    (five.root / "img_vg" / "train" / "boxes.json").write_text('{"two.png": [0.25, 0, 1, 0.5]}')
    module = load(root=str(five.root / ".." / five.root.name))
    batch, places = by_row(module)
    first, last = module.describe("train", 0), module.describe("train", 5)
    assert first["image"] == "img_org/train/red.png"
    assert first["boxes"] == [WHOLE_IMAGE, UNKNOWN_BOX, (0.25, 0.0, 1.0, 0.5)]
    assert batch.boxes[places[0]].tolist() == [list(box) for box in first["boxes"]]
    assert (first["words"], first["head"], first["tail"]) == (["w"] * 3, (0, 1), (2, 3))
    assert last == {"words": ["ada", "\u2028", "bob"], "head": (2, 3), "tail": (0, 1), "image": None, "boxes": []}


def test_crops_are_described_without_their_missing_image(five: Any, load: Load) -> None:
    (five.root / "img_org" / "train" / "red.png").unlink()
    module = load()
    module.setup("fit")
    described = module.describe("train", 0)
    assert (described["image"], described["boxes"]) == (None, [UNKNOWN_BOX, UNKNOWN_BOX])


def test_a_row_with_a_shuffled_image_is_described_with_that_image(five: Any, load: Load) -> None:
    module = load(images="shuffled")
    module.setup("fit")
    for row, colour in enumerate(COLOURS):
        (whole, *_) = module.examples["train"][row].pictures
        described = module.describe("train", row)["image"]
        assert described == f"img_org/train/{whole.file.name}" != f"img_org/train/{colour}.png"


@pytest.mark.parametrize("images", ["own", "none", "shuffled"])
def test_relevance_is_that_of_the_rows_own_image(five: Any, load: Load, tmp_path: Path, images: str) -> None:
    file = tmp_path / "relevance.jsonl"
    names = [*(f"{colour}.png" for colour in COLOURS[:-1]), "a.jpg"]  # the last one belongs to the validation row
    file.write_text("".join(f'{{"image": "{name}", "relevance": {n}}}\n' for n, name in enumerate(names)))
    module = load(images=images, relevance=str(file))
    module.setup("fit")
    rows = [module.describe("train", row)["relevance"] for row in range(len(COLOURS))]
    assert rows == [*range(len(COLOURS) - 1), None]


def test_relevance_scores_of_other_images_are_refused_before_training(five: Any, load: Load, tmp_path: Path) -> None:
    (tmp_path / "relevance.jsonl").write_text('{"image": "other.jpg", "relevance": 1}\n')
    with pytest.raises(DataError, match=r"no relevance of any image of .*split val: it names other\.jpg, the posts"):
        load(relevance=str(tmp_path / "relevance.jsonl")).setup("fit")
    with pytest.raises(DataError, match="nothing"):
        load(relevance=str(tmp_path / "nothing.jsonl")).check_files("fit")


def test_a_grid_is_described_cell_by_cell(
    five: Any, load: Load, make_image_encoder: Callable[..., ImageEncoder]
) -> None:
    module = load(image_encoder=make_image_encoder(regions="grid"))
    module.setup("fit")
    assert len(module.describe("train", 0)["boxes"]) == 25


# A custom reader and task


class Lines(Reader):
    """ROOT/{split}.txt, one line `label image word word …` per post; images are in ROOT."""

    corpus = "lines"
    layout = "expected below the root: train.txt, val.txt, test.txt"

    def text_file(self, split: str) -> Path:
        return self.root / f"{split}.txt"

    def image_folder(self, split: str) -> Path:
        return self.root

    def scan(self, split: str) -> Iterator[LabelledPost | Malformed]:
        path = self.text_file(split)
        for number, line in enumerate(read_lines(path, self.layout), start=1):
            label, image, *words = line.split()
            post = LabelledPost(words=words, image=image.strip("-"), place=f"{path}:{number}", label=label)
            yield post if words else Malformed(number, DataError(f"{path}:{number}: no words"))

    def note(self, split: str) -> str:
        return f"{split} has been read"

    def options(self) -> dict[str, Any]:
        return {"marker": "-"}


class Relevance(PostClassification):
    """A custom task."""

    name = "relevance"
    title = "image-text relevance"


@pytest.fixture
def lines(
    tmp_path: Path, text_encoder: TextEncoder, image_encoder: ImageEncoder, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., PostDataModule]:
    """A data module with this reader and task over three training posts, the first of which has an image."""
    monkeypatch.setattr("mmib.schema._TASKS", {})
    register_task(Relevance())
    root = tmp_path / "lines"
    root.mkdir()
    (root / "train.txt").write_text("yes a.png the cat\nno - anna meets bob\nno gone.png the\n")
    (root / "val.txt").write_text("yes - the\n")
    Image.new("RGB", (20, 20), "red").save(root / "a.png")
    encoders = {"text_encoder": text_encoder, "image_encoder": image_encoder, "cache_dir": str(tmp_path / "cache")}

    def make(**options: Any) -> PostDataModule:
        settings = {"labels": ["no", "yes"], "task": "relevance", "max_missing_images": 1.0, **encoders, **options}
        return PostDataModule(Lines(root), **settings)

    return make


def test_a_reader_and_a_task_suffice_for_a_data_module(
    lines: Callable[..., PostDataModule], caplog: pytest.LogCaptureFixture
) -> None:
    module = lines()
    module.setup("fit")
    (batch,) = module.train_dataloader()
    places = batch.rows.argsort()
    assert isinstance(batch, ClassBatch)
    assert batch.label_ids[places].tolist() == [1, 0, 0]
    assert batch.region_mask[places].sum(dim=1).tolist() == [1, 0, 0]
    assert "train: 3 posts, 2 labels, train has been read" in caplog.text
    assert "train: found 1 of 2 images, 1 of 3 rows" in caplog.text
    assert module.corpus == "lines"
    assert {key: module.fingerprint("train")[key] for key in ("rows", "marker")} == {"rows": 3, "marker": "-"}
    assert module.describe("train", 0) == {
        "words": ["the", "cat"],
        "image": "a.png",
        "boxes": [WHOLE_IMAGE],
    }
    swapped = lines(labels={"names": ["yes", "no"], "negative": "no"})
    assert [example.label for example in swapped.read_split("train")] == [0, 1, 1]


class Cased(Lines):
    """Optionally lower-cases words; its options are those of `Reader`."""

    options = Reader.options

    def __init__(self, root: Path, lower: bool) -> None:
        super().__init__(root)
        self.rows = "lines"
        self.lower = lower
        self.order = ("upper", {"lower": 1.5})
        self.pattern = re.compile("")
        self._read = 0

    def scan(self, split: str) -> Iterator[LabelledPost | Malformed]:
        for post in super().scan(split):
            assert isinstance(post, LabelledPost)
            yield replace(post, words=[word.lower() for word in post.words]) if self.lower else post


def test_posts_are_read_again_if_a_custom_reader_has_other_settings(
    lines: Callable[..., PostDataModule],
) -> None:
    module = lines()
    (module.root / "train.txt").write_text("yes a.png THE Cat\n")
    found = []
    for lower in (False, True, False):
        module.reader = Cased(module.root, lower)
        found.append(module.read_split("train")[0].words)
    assert found == [["THE", "Cat"], ["the", "cat"], ["THE", "Cat"]]
    assert module.reader.options() == {"lower": False, "order": ("upper", {"lower": 1.5})}


def test_malformed_lines_and_labels_of_a_custom_reader_name_file_and_line(lines: Callable[..., PostDataModule]) -> None:
    with pytest.raises(DataError, match=r"train\.txt:1: the label 'yes' is not one of the 1 of data\.labels \(no\)"):
        lines(labels=["no"]).read_split("train")
    module = lines()
    path = module.reader.text_file("train")
    path.write_text("yes a.png the\nno b.png\n")
    with pytest.raises(DataError, match=r"train\.txt:2: no words"):
        module.read_split("train")
    path.write_text("yes ../a.png the\n")
    with pytest.raises(DataError, match=r"train\.txt:1: the file name '\.\./a\.png' is not inside"):
        module.read_split("train")


@pytest.mark.parametrize("task", ["", "relevanz"])
def test_a_data_module_without_a_registered_task_is_refused(lines: Callable[..., PostDataModule], task: str) -> None:
    with pytest.raises(TaskError, match=f"there is no task '{task}': choose from mre, mner, relevance, or import"):
        lines(task=task)


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


def test_defect_21_a_row_keeps_its_own_images_in_every_epoch(five: Any, load: Load) -> None:
    """STYLE.md 2.1, defect 21: sampled posts were combined with crops of other posts."""
    module = load(batch_size=2)
    module.setup("fit")
    assert module.cache is not None
    loader = module.train_dataloader()
    for _ in range(2):
        for batch in loader:
            for place, row in enumerate(batch.rows.tolist()):
                pictures = module.examples["train"][row].pictures
                features = np.concatenate([module.cache.features(picture.file) for picture in pictures])
                row_features = batch.features[place][batch.region_mask[place]].numpy()
                np.testing.assert_array_equal(row_features, features.astype(np.float32))
                assert pictures[0].file.name == f"{COLOURS[row]}.png"


def test_an_available_split_is_read_once(five: Any, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load()
    module.setup("fit")
    monkeypatch.setattr(module, "read_split", None)
    module.setup("fit")
    module.setup("validate")


def test_the_fingerprint_matches_the_file(five: Any, load: Load) -> None:
    module = load()
    module.setup("fit")
    digest = hashlib.sha256(five.text("train").read_bytes()).hexdigest()
    assert module.fingerprint("train") == {"rows": 5, "sha256": digest}


# Subsets of the training rows


def test_a_subset_of_rows_keeps_its_images_and_encodes_no_others(
    five: Any, load: Load, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crops are keyed by the row number in the file, which differs from the position in the subset."""
    five.crops({1: ["one.png"], 3: ["two.png"], 4: ["one.png", "two.png"]})
    module = load(train_rows=3)
    encoded: set[str] = set()
    build = module.unreadable
    monkeypatch.setattr(module, "unreadable", lambda files: build(encoded.update(f.name for f in files) or files))
    whole = load().read_split("train")
    module.setup("fit")
    rows = module.subset.choose([["/per/per/peer"]] * 5).tolist()
    assert len(set(rows)) == 3
    part = module.examples["train"]
    assert [example.row for example in part] == [0, 1, 2]
    for example, row in zip(part, rows, strict=True):
        assert [picture.file for picture in example.pictures] == [picture.file for picture in whole[row].pictures]
        assert (example.words, example.input_ids) == (whole[row].words, whole[row].input_ids)
    assert encoded == {picture.file.name for row in rows for picture in whole[row].pictures}
    (batch,) = module.train_dataloader()
    assert sorted(batch.text_mask.sum(dim=1).tolist()) == sorted(len(whole[row].input_ids) for row in rows)
    digest = hashlib.sha256(five.text("train").read_bytes()).hexdigest()
    subset = {"of": 5, "seed": 0, "without": []}
    assert module.fingerprint("train") == {"rows": 3, "sha256": digest, "subset": subset}
    assert module.fingerprint("val").keys() == {"rows", "sha256"}
    assert "train: 3 of 5 rows are trained on (subset_seed 0)" in caplog.text


def test_a_class_without_any_row_is_named(five: Any, load: Load, caplog: pytest.LogCaptureFixture) -> None:
    five.row(relation="/per/loc/place_of_birth")
    module = load(train_share=1 / 6)
    module.setup("fit")
    assert (
        "train: 1 of 6 rows are trained on (subset_seed 0); no row has the labels /per/loc/place_of_birth"
        in caplog.text
    )
    assert module.fingerprint("train")["subset"]["without"] == ["/per/loc/place_of_birth"]
    with pytest.raises(ConfigError, match="train_rows is 7, and the training split has 6 rows"):
        load(train_rows=7).setup("fit")
    with pytest.raises(ConfigError, match="train_share is 2"):
        load(train_share=2.0)


def test_rows_have_the_labels_of_their_task(five: Any, load: Load) -> None:
    five.row("val", relation="None")
    module = load(labels=["None", "/per/per/peer", "spare"])
    module.setup("fit")
    assert module.labels_of_rows("val", [1, 0]).tolist() == [[True, False, False], [False, True, False]]
    assert module.labels_of_rows("val", []).shape == (0, 3)


def test_the_maximum_length_is_limited_by_the_encoder(load: Load, text_encoder: TextEncoder) -> None:
    limit = text_encoder.tokenizer.max_length
    assert limit is not None
    with pytest.raises(ConfigError, match=f"max_length is {limit + 1}: the text encoder takes {limit}"):
        load(max_length=limit + 1)
    load(max_length=limit)


def test_unusual_images_of_a_folder_become_features(mnre: Any, load: Load) -> None:
    """CMYK, palettes, greys, one pixel: every readable image is encoded."""
    modes = {"cmyk.jpg": "CMYK", "palette.png": "P", "grey.png": "L", "bits.png": "1", "alpha.png": "RGBA"}
    for name, mode in modes.items():
        mnre.row(img_id=name)
        Image.new("RGB", (1, 1), "red").convert(mode).save(mnre.image(name))
    mnre.row("val")
    module = load()
    batch, _ = by_row(module)
    assert batch.region_mask.all()
    assert str(module.image_reports["train"]) == "5 of 5 images, 5 of 5 rows"
