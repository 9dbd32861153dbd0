"""Images from all sources, and the crops that a model receives."""

from __future__ import annotations

import io
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmib.extract import pictures
from mmib.extract.pictures import grid, in_threads, open_image, views
from mmib.schema import UNKNOWN_BOX, WHOLE_IMAGE, InputError


@pytest.fixture
def picture() -> Image.Image:
    """An image that is black on the left and white on the right."""
    image = Image.new("RGB", (40, 20))
    image.paste("white", (20, 0, 40, 20))
    return image


def test_path_bytes_and_image_give_the_same_result(picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "a.png")
    sources: list[Any] = [tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), picture]
    assert {open_image(source).tobytes() for source in sources} == {picture.tobytes()}


@pytest.mark.parametrize("source", [b"", b"GIF89a broken", "missing.png", 7, ["a.png"]])
def test_invalid_images_are_refused(source: Any) -> None:
    with pytest.raises(InputError, match="image"):
        open_image(source)


@pytest.mark.parametrize("cores", [1, 2])
def test_threaded_results_are_ordered_and_the_first_failure_is_raised(
    monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr("mmib.extract.pictures.decoders", lambda: cores)
    later = threading.Event()

    def work(number: int) -> int:
        if number == 0 and cores > 1:
            assert later.wait(10), "nothing else is done meanwhile"
        later.set()
        return 10 // (5 - number)

    assert in_threads(work, range(5)) == [2, 2, 3, 5, 10]
    assert in_threads(work, []) == []
    with pytest.raises(InputError, match="first"):
        in_threads(_refuse, ["good", "first", "second"])


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_process_has_its_own_threads(monkeypatch: pytest.MonkeyPatch, picture: Image.Image) -> None:
    monkeypatch.setattr("mmib.extract.pictures.decoders", lambda: 2)
    in_threads(abs, range(4))  # starts the threads, which a fork does not copy
    with pictures._LOADING:  # as if another thread were decoding an image
        child = multiprocessing.get_context("fork").Process(target=in_threads, args=(open_image, [picture] * 4))
        child.start()
        child.join(20)
    hangs = child.is_alive()
    child.kill()
    child.join()
    assert not hangs
    assert child.exitcode == 0


def _refuse(name: str) -> str:
    if name == "good":
        return name
    raise InputError(name)


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch, picture: Image.Image) -> None:
    monkeypatch.setattr("mmib.datamodules.images.MAX_PIXELS", 799)
    with pytest.raises(InputError, match="40 x 20 pixels"):
        open_image(picture)


def test_a_truncated_file_is_refused(picture: Image.Image) -> None:
    file = io.BytesIO()
    picture.save(file, "JPEG")
    with pytest.raises(InputError, match="cannot be read"):
        open_image(file.getvalue()[:200])


@pytest.mark.parametrize(
    ("most", "aspect", "shape"),
    [
        (0, 1.0, None),
        (1, 1.0, None),
        (2, 2.0, (1, 2)),
        (2, 0.5, (2, 1)),
        (3, 1.5, (1, 3)),
        (4, 1.3, (2, 2)),
        (6, 1, (2, 3)),
    ],
)
def test_a_grid_has_as_many_cells_as_the_model_has_crops(
    most: int, aspect: float, shape: tuple[int, int] | None
) -> None:
    boxes = grid(most, aspect)
    if shape is None:
        assert boxes == []
        return
    assert len(boxes) == shape[0] * shape[1] == len(set(boxes))
    assert len({box[1] for box in boxes}) == shape[0] or shape == (2, 3)
    assert sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes) == pytest.approx(1)


def test_an_image_without_crops_is_seen_as_a_whole_and_in_parts(picture: Image.Image) -> None:
    whole, left, right = views(picture, None, 2)
    assert whole.box == WHOLE_IMAGE
    assert (left.box, right.box) == ((0, 0, 0.5, 1), (0.5, 0, 1, 1))
    assert left.picture.getextrema() == ((0, 0),) * 3
    assert right.picture.getextrema() == ((255, 255),) * 3


def test_boxes_are_cropped_and_given_crops_have_no_box(picture: Image.Image) -> None:
    crop = Image.new("RGB", (5, 5), "red")
    _, cut, given = views(picture, [(0.25, 0.0, 0.5, 1.0), crop, (0, 0, 1, 1)], 2)
    assert (cut.box, cut.picture.size) == ((0.25, 0.0, 0.5, 1.0), (10, 20))
    assert (given.box, given.picture.getpixel((0, 0))) == (UNKNOWN_BOX, (255, 0, 0))
    assert len(views(picture, [], 2)) == 1


@pytest.mark.parametrize("crops", [[(0, 0, 1)], [(0.5, 0, 0.5, 1)], [(0, 0, 2, 1)], [("a", 0, 1, 1)], [3], "box", 5])
def test_invalid_crops_are_refused(picture: Image.Image, crops: Any) -> None:
    with pytest.raises(InputError, match=r"crop|image"):
        views(picture, crops, 3)


def test_a_box_too_narrow_to_be_resized_is_refused() -> None:
    image = Image.new("RGB", (2000, 20))
    assert len(views(image, [(0, 0, 1, 0.5)], 3)) == 2
    with pytest.raises(InputError, match="2000 x 1 pixels"):
        views(image, [(0, 0, 1, 0.01)], 3)
