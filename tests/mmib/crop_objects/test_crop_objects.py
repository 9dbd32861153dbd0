"""`mmib crop-objects`: boxes become the pixels that data modules read, despite interruptions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmib import crop_objects
from mmib.cli import main
from mmib.crop_objects import cut
from mmib.crop_objects.detector import Detection
from mmib.crop_objects.plan import TYPES, mnre_splits, twitter_splits
from mmib.crop_objects.store import Settings
from mmib.datamodules.crops import read_boxes
from mmib.datamodules.images import read_image
from mmib.datamodules.mnre import MNREDataModule
from mmib.datamodules.twitter import TwitterDataModule
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder
from mmib.schema import ConfigError, DataError

SETTINGS = Settings("stub", None, "nouns", 3, "png")
ANNA, BOB, DOG = (10, 5, 40, 50), (50, 0, 90, 60), (0, 30, 20, 60)
WHERE = {"anna": ANNA, "bob": BOB, "dog": DOG}

Folder = Callable[..., Path]
Noise = Callable[..., Image.Image]


class Stub:
    """Detects each known phrase at a fixed position, the same in every image."""

    def __init__(self) -> None:
        self.seen: list[Sequence[str]] = []
        self.sizes: list[int] = []

    def __call__(self) -> Stub:
        return self

    def detect(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[Detection]]:
        self.seen += phrases
        self.sizes.append(len(images))
        return [
            [Detection(WHERE[name], 0.9 - at / 10, name) for at, name in enumerate(wanted) if name in WHERE]
            for wanted in phrases
        ]


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def load(encoder_files: Any, tmp_path: Path) -> Callable[..., Any]:
    def make(module: type, root: Path, **options: Any) -> Any:
        image = ImageEncoder(name="test_resnet", weights=encoder_files.image)
        data = module(
            str(root),
            text_encoder=TextEncoder(encoder_files.text),
            image_encoder=image,
            cache_dir=str(tmp_path / "cache"),
            **options,
        )
        data.examples["train"] = data.read_split("train")
        return data

    return make


def crop_mnre(root: Path, stub: Stub, settings: Settings = SETTINGS, batch_size: int = 2) -> str:
    (split,) = mnre_splits(root, ["train"], "nouns")
    return cut(split, settings, stub, batch_size)


def pictures(data: Any, row: int) -> dict[tuple[float, ...], Path]:
    return {picture.box: picture.file for picture in data.examples["train"][row].pictures}


def same_pixels(file: Path, whole: Image.Image, box: tuple[int, ...]) -> bool:
    return read_image(file).tobytes() == whole.crop(box).tobytes()


def relative(box: tuple[int, ...], size: tuple[int, int] = (90, 60)) -> tuple[float, ...]:
    return box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1]


# The data modules read what is written


def test_known_boxes_are_read_as_their_pixels_in_mnre(mnre: Folder, noise: Noise, stub: Stub, load: Any) -> None:
    root = mnre(("anna meets bob", "a.jpg"), ("anna has the dog", "a.jpg"), ("nobody knows nothing", "b.jpg"))
    whole = noise(root / "img_org" / "train" / "a.jpg")
    noise(root / "img_org" / "train" / "b.jpg", seed=1)
    text = crop_mnre(root, stub)
    assert "mnre train: 4 crops of 2 images in" in text
    assert "nothing found 1 times" in text
    data = load(MNREDataModule, root)
    for row, boxes in ((0, (ANNA, BOB)), (1, (ANNA, DOG))):
        read = pictures(data, row)
        assert list(read) == [(0, 0, 1, 1), *(relative(box) for box in boxes)]
        assert all(same_pixels(read[relative(box)], whole, box) for box in boxes)
    assert list(pictures(data, 2)) == [(0, 0, 1, 1)]


@pytest.mark.parametrize("year", [2015, 2017])
def test_known_boxes_are_read_as_their_pixels_in_twitter(
    twitter: Folder, noise: Noise, stub: Stub, load: Any, year: int
) -> None:
    root = twitter(("anna and bob", "7"), ("dog", "7"), ("the", "8"), year=year)
    whole = noise(root / f"twitter{year}_images" / "7.jpg")
    noise(root / f"twitter{year}_images" / "8.jpg", seed=1)
    (split,) = twitter_splits(root, [year], ["train", "val"], "nouns")
    cut(split, SETTINGS, stub, 4)
    assert stub.seen == [("anna", "bob", "dog"), TYPES]
    data = load(TwitterDataModule, root, year=year)
    for row in (0, 1):
        read = pictures(data, row)
        assert list(read) == [(0, 0, 1, 1), *(relative(box) for box in (ANNA, BOB, DOG))]
        assert all(same_pixels(read[relative(box)], whole, box) for box in (ANNA, BOB, DOG))


def test_boxes_refer_to_the_upright_image(mnre: Folder, noise: Noise, stub: Stub, load: Any) -> None:
    root = mnre(("anna meets nobody", "a.jpg"))
    path = root / "img_org" / "train" / "a.jpg"
    noise(path)
    turned = Image.Exif()
    turned[0x0112] = 6  # as written by a phone
    with Image.open(path) as image:
        image.rotate(90, expand=True).save(path, "PNG", exif=turned)
    crop_mnre(root, stub)
    upright = read_image(path)
    assert upright.size == (90, 60)
    read = pictures(load(MNREDataModule, root), 0)
    assert same_pixels(read[relative(ANNA)], upright, ANNA)


def test_jpeg_crops_are_smaller_and_similar(mnre: Folder, noise: Noise, stub: Stub) -> None:
    root = mnre(("anna meets bob", "a.jpg"))
    noise(root / "img_org" / "train" / "a.jpg")
    crop_mnre(root, stub, Settings("stub", None, "nouns", 1, "jpg"))
    (crop,) = (root / "img_vg" / "train" / "crops").iterdir()
    assert (crop.suffix, read_image(crop).size) == (".jpg", (30, 45))


def test_only_the_best_crops_are_kept(mnre: Folder, noise: Noise, stub: Stub) -> None:
    root = mnre(("dog and anna and bob", "a.jpg"))
    noise(root / "img_org" / "train" / "a.jpg")
    crop_mnre(root, stub, Settings("stub", None, "nouns", 2, "png"))
    boxes = read_boxes(root / "img_vg" / "train" / "boxes.json")
    assert list(boxes.values()) == [relative(DOG), relative(ANNA)]


def test_unreadable_images_are_reported_and_the_others_processed(
    mnre: Folder, noise: Noise, stub: Stub, load: Any
) -> None:
    root = mnre(*((f"anna has {name}", f"{name}.jpg") for name in ("missing", "broken", "narrow", "good")))
    noise(root / "img_org" / "train" / "good.jpg")
    noise(root / "img_org" / "train" / "narrow.jpg", size=(500, 9))
    (root / "img_org" / "train" / "broken.jpg").write_bytes(b"no image")
    text = crop_mnre(root, stub)
    assert "3 images could not be searched: missing.jpg (missing), broken.jpg (unreadable: " in text
    assert "narrow.jpg (too narrow: 500 x 9 pixels)" in text
    assert len(pictures(load(MNREDataModule, root, max_missing_images=1.0), 3)) == 2


# Resuming


class Killed(BaseException):
    """Simulates a kill."""


def test_a_resumed_run_ends_like_an_uninterrupted_one(
    mnre: Folder, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number}.jpg" for number in range(6)]
    root = mnre(*(("anna and bob", name) for name in names))
    for seed, name in enumerate(names):
        noise(root / "img_org" / "train" / name, seed=seed)

    class Mortal(Stub):
        def detect(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[Detection]]:
            if len(self.seen) == 4:
                raise Killed
            return super().detect(images, phrases)

    with pytest.raises(Killed):
        crop_mnre(root, Mortal())
    crops = root / "img_vg" / "train" / "crops"
    assert len(list(crops.iterdir())) == 8
    assert not (root / "txt" / "mre_train_dict.pth").exists(), "nobody trains on half of the crops"
    rest = Stub()
    crop_mnre(root, rest)
    assert len(rest.seen) == 2
    stopped = contents(root)
    for path in stopped:
        path.unlink()
    crop_mnre(root, Stub(), batch_size=5)
    assert contents(root) == stopped


def contents(root: Path) -> dict[Path, Any]:
    made = [*root.glob("img_vg/**/*.*"), root / "txt" / "mre_train_dict.pth"]
    return {path: torch.load(path, weights_only=True) if path.suffix == ".pth" else path.read_bytes() for path in made}


def test_a_kill_during_writing_leaves_only_complete_files(
    mnre: Folder, noise: Noise, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = mnre(("anna and bob", "a.jpg"))
    noise(root / "img_org" / "train" / "a.jpg")
    save = Image.Image.save

    def die_half_way(image: Image.Image, file: Any, *args: Any, **options: Any) -> None:
        save(image, file, *args, **options)
        if image.size == (40, 60):
            raise Killed

    monkeypatch.setattr(Image.Image, "save", die_half_way)
    with pytest.raises(Killed):
        crop_mnre(root, stub)
    monkeypatch.undo()
    (only,) = (root / "img_vg" / "train" / "crops").iterdir()
    assert read_image(only).size == (30, 45)
    assert "2 crops of 1 image in" in crop_mnre(root, stub)


def test_finished_images_are_skipped_without_loading_a_detector(mnre: Folder, noise: Noise, stub: Stub) -> None:
    root = mnre(("anna and bob", "a.jpg"), ("dog and bob", "b.jpg"))
    noise(root / "img_org" / "train" / "a.jpg")
    crop_mnre(root, stub)
    assert stub.sizes == [1]
    assert "2 crops of 1 image in" in crop_mnre(root, stub)
    assert stub.sizes == [1]
    noise(root / "img_org" / "train" / "b.jpg")
    next((root / "img_vg" / "train" / "crops").glob("a-*-0.png")).unlink()
    assert "4 crops of 2 images" in crop_mnre(root, stub)
    assert stub.sizes == [1, 2], "one that has appeared, one whose crop has gone"


def test_different_settings_are_refused(mnre: Folder, noise: Noise, stub: Stub) -> None:
    root = mnre(("anna and bob", "a.jpg"))
    noise(root / "img_org" / "train" / "a.jpg")
    crop_mnre(root, stub)
    with pytest.raises(ConfigError, match=r"were made with the objects 3, not 1: move .*img_vg/train and .* away"):
        crop_mnre(root, stub, Settings("stub", None, "nouns", 1, "png"))


def test_crops_from_other_sources_are_never_overwritten(mnre: Folder, noise: Noise, stub: Stub) -> None:
    root = mnre(("anna and bob", "a.jpg"))
    noise(root / "img_org" / "train" / "a.jpg")
    torch.save({0: ["theirs.jpg"]}, root / "txt" / "mre_train_dict.pth")
    with pytest.raises(DataError, match=r"mre_train_dict\.pth exists and was not made by mmib crop-objects"):
        crop_mnre(root, stub)
    assert torch.load(root / "txt" / "mre_train_dict.pth", weights_only=True) == {0: ["theirs.jpg"]}


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "[]",
        "{}",
        '{"settings": {}, "images": {"a": 1}}',
        '{"settings": {}, "images": {"a": {"objects": [], "failure": null}}}',
        '{"settings": {}, "images": {"a": {"image": "a.jpg", "phrases": [], "failure": null, "objects": '
        '[{"crop": "../x", "box": []}]}}}',
    ],
)
def test_a_damaged_record_is_refused(mnre: Folder, noise: Noise, stub: Stub, record: str) -> None:
    root = mnre(("anna and bob", "a.jpg"))
    path = root / "img_vg" / "train" / "objects.json"
    path.parent.mkdir(parents=True)
    path.write_text(record)
    with pytest.raises(DataError, match=r"objects\.json"):
        crop_mnre(root, stub)


# The command


@pytest.mark.parametrize("family", ["grounding-dino", "owlv2"])
def test_the_command_loads_a_detector_from_a_folder(
    mnre: Folder, noise: Noise, detectors: dict[str, str], load: Any, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    root = mnre(("anna and bob", "a.jpg"), ("dog and bob", "b.jpg"))
    mnre(("anna and bob", "c.jpg"), split="val")
    for name in ("a", "b"):
        noise(root / "img_org" / "train" / f"{name}.jpg")
    options = ["--detector", detectors[family], "--threshold", "0", "--objects", "2", "--device", "cpu"]
    assert main(["crop-objects", str(root), "--task", "mnre", *options]) == 0
    printed = capsys.readouterr().out
    assert "mnre val: left out, none of its images is in" in printed
    assert "crops of 2 images" in printed
    boxes = json.loads((root / "img_vg" / "train" / "boxes.json").read_text())
    data = load(MNREDataModule, root)
    read = [picture for row in (0, 1) for picture in data.examples["train"][row].pictures[1:]]
    assert {picture.file.name: list(picture.box) for picture in read} == boxes
    for picture in read:
        width, height = read_image(picture.file).size
        x0, y0, x1, y1 = picture.box
        assert (width, height) == (pytest.approx(90 * (x1 - x0)), pytest.approx(60 * (y1 - y0)))


def test_the_command_crops_a_twitter_set(
    twitter: Folder, noise: Noise, stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crop_objects, "ZeroShotDetector", lambda *options: stub)
    for year in (2015, 2017):
        root = twitter(("anna and bob", "7"), year=year)
        noise(root / f"twitter{year}_images" / "7.jpg")
    assert main(["crop-objects", str(root), "--task", "twitter", "--phrases", "types"]) == 0
    assert stub.seen == [TYPES, TYPES]
    printed = capsys.readouterr().out
    assert "twitter2015 train: 0 crops" in printed
    assert "twitter2017 train: 0 crops" in printed


def test_missing_data_is_a_one_sentence_error(mnre: Folder, tmp_path: Path, capsys: Any, detectors: Any) -> None:
    def refused(root: Path, *options: str) -> str:
        assert main(["crop-objects", str(root), "--task", "mnre", *options]) == 2
        return str(capsys.readouterr().err)

    assert f"mmib: the data folder {tmp_path / 'no'} does not exist" in refused(tmp_path / "no")
    assert "has none of the requested splits; expected below the root:" in refused(tmp_path)
    root = mnre(("anna and bob", "a.jpg"))
    assert "none of the images was found: they are expected in" in refused(root)


def test_an_unwritable_folder_is_named(
    mnre: Folder, noise: Noise, stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crop_objects, "ZeroShotDetector", lambda *options: stub)
    root = mnre(("anna and bob", "a.jpg"))
    noise(root / "img_org" / "train" / "a.jpg")
    (root / "img_vg").write_text("in the way")
    assert main(["crop-objects", str(root), "--task", "mnre"]) == 2
    assert "mmib: the crops cannot be written: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objects", "0"], "argument --objects: '0' is no whole number above 0"),
        (["--batch-size", "x"], "argument --batch-size: 'x' is no whole number above 0"),
        (["--threshold", "1.5"], "argument --threshold: '1.5' is no number from 0 to below 1"),
        (["--threshold", "nan"], "argument --threshold: 'nan' is no number from 0 to below 1"),
        (["--year", "2016"], "argument --year: invalid choice: 2016"),
    ],
)
def test_invalid_options_are_refused(options: list[str], message: str, capsys: Any) -> None:
    assert main(["crop-objects", ".", "--task", "mnre", *options]) == 2
    assert f"mmib: {message}" in capsys.readouterr().err
