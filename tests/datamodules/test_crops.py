"""Crop dictionaries and boxes: anything but plain containers of names and numbers is refused."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from mmib.datamodules.crops import image_name, read_boxes, read_crop_dictionary, row_number
from mmib.schema import DataError


def saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "crops.pth")
    return folder / "crops.pth"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([["a.jpg"]], "holds a list"),
        ({"a.jpg": ["b.jpg"]}, "has the key 'a.jpg'"),
        ({0.5: ["b.jpg"]}, "has the key 0.5"),
        ({True: ["b.jpg"]}, "has the key True"),
        ({0: "b.jpg"}, "0: 'b.jpg'"),
        ({3: [1]}, r"3: \[1\]"),
        ({0: None}, "0: None"),
        (torch.zeros(2), "holds a Tensor"),
    ],
)
def test_a_dictionary_of_other_objects_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"crops\.pth.*{message}.*expected {{row number"):
        read_crop_dictionary(saved(tmp_path, content), row_number)


def test_damaged_dictionaries_raise_no_other_error(tmp_path: Path) -> None:
    """On damaged input the unpickler raises errors of many types, such as IndexError and struct.error."""
    content = {0: ["a.jpg"], 1: []}
    whole = [pickle.dumps(content, protocol=protocol) for protocol in (1, 2, 2, 2)]
    torch.save(content, tmp_path / "new.pth")
    whole.append((tmp_path / "new.pth").read_bytes())
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(rng.choice(whole))
        for _ in range(2):
            damaged[rng.randrange(2, min(60, len(damaged)))] = rng.randrange(256)
        (tmp_path / "x.pth").write_bytes(damaged)
        try:
            read_crop_dictionary(tmp_path / "x.pth", row_number)
        except DataError:
            refused += 1
    assert refused > 100


def test_row_numbers_may_be_strings(tmp_path: Path) -> None:
    assert read_crop_dictionary(saved(tmp_path, {"0": ["a.jpg"], 7: []}), row_number) == {0: ["a.jpg"], 7: []}


def test_image_names_are_strings(tmp_path: Path) -> None:
    content = {"7.jpg": ["a.jpg"], "b.jpg": []}
    assert read_crop_dictionary(saved(tmp_path, content), image_name) == content
    with pytest.raises(DataError, match=r"has the key 7: expected {image name: "):
        read_crop_dictionary(saved(tmp_path, {7: ["a.jpg"]}), image_name)


def test_a_missing_dictionary_is_empty(tmp_path: Path) -> None:
    assert read_crop_dictionary(tmp_path / "crops.pth", image_name) == {}


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 1, 1.5],
        [-0.1, 0, 1, 1],
        [0, 0, 1],
        [0, 0, 1, "1"],
        "whole",
        None,
        [0.9, 0, 0.1, 1],
    ],
)
def test_boxes_out_of_range_are_refused(tmp_path: Path, box: Any) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps({"good.jpg": [0, 0, 1, 1], "bad.jpg": box}))
    with pytest.raises(
        DataError, match=r"boxes\.json: the box of 'bad\.jpg' is .*expected \[x0, y0, x1, y1\] in 0\.\.1"
    ):
        read_boxes(tmp_path / "boxes.json")


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a.jpg": [' + "9" * 5000 + "]}", '{"a.jpg"', "\ud800", '{"a.jpg": [0, 0, 1, NaN]}']
)
def test_malformed_boxes_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "boxes.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=r"boxes\.json is not a readable JSON file: "):
        read_boxes(tmp_path / "boxes.json")
