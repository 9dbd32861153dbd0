"""The code of docs/extending.md runs as it stands there."""

from __future__ import annotations

import csv
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from mmib.cli import main
from mmib.schema import DataError

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
FILES = {"hinge_alignment.py", "max_pooled_encoder.py", "tsv_data.py", "mine.yaml"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside the package with the files of the page and a tiny data set."""
    blocks = re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert {name for name, _ in blocks} == FILES
    for name, code in blocks:
        (tmp_path / name).write_text(code, encoding="utf-8")
    images = tmp_path / "my-data" / "images"
    images.mkdir(parents=True)
    lines = []
    for number, colour in enumerate(("red", "lime", "blue", "gold", "navy", "pink")):
        Image.new("RGB", (30, 20), colour).save(images / f"{colour}.png")
        relation = ("None", "/per/per/peer", "/per/org/member_of")[number % 3]
        lines.append(f"{relation}\t{colour}.png\t0-1\t{number + 1}-{number + 2}\tanna {'and ' * number}bob\n")
    for split in ("train", "val"):
        (tmp_path / "my-data" / f"{split}.tsv").write_text("".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_an_alignment_an_encoder_and_a_data_set_of_ones_own_make_a_run(project: Path, encoder_files: Any) -> None:
    quick = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--wandb=off"]
    assert main(["fit", "--config", "mine.yaml", *encoder_files.options(), *quick]) == 0
    (run,) = (project / "runs" / "mine").iterdir()
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["images"] == {"train": "6 of 6 images, 6 of 6 rows", "val": "6 of 6 images, 6 of 6 rows"}
    assert summary["data"]["train"]["rows"] == 6
    assert set(summary["val"]) >= {"precision", "recall", "f1", "accuracy"}
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        columns = set(csv.DictReader(file).fieldnames or [])
    assert {"align/loss", "align/violated", "val/align/violated"} <= columns
    saved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    backbone = saved["model"]["init_args"]["backbone"]["init_args"]
    assert backbone["alignment"] == {"class_path": "hinge_alignment.HingeAlignment", "init_args": {"margin": 0.3}}
    assert backbone["image_encoder"]["class_path"] == "max_pooled_encoder.MaxPooledEncoder"
    assert saved["data"]["class_path"] == "tsv_data.TsvDataModule"


def test_the_encoder_of_the_page_does_not_share_features_with_the_stock_one(project: Path, encoder_files: Any) -> None:
    own = importlib.import_module("max_pooled_encoder").MaxPooledEncoder("test_resnet", weights=encoder_files.image)
    stock = type(own).__bases__[0]("test_resnet", weights=encoder_files.image)
    assert own.fingerprint() != stock.fingerprint()


def test_the_data_set_of_the_page_names_a_bad_line(project: Path, encoder_files: Any) -> None:
    from mmib.encoders.image import ImageEncoder
    from mmib.encoders.text import TextEncoder

    (project / "my-data" / "val.tsv").write_text("None\tred.png\n", encoding="utf-8")
    encoders = TextEncoder(encoder_files.text), ImageEncoder("test_resnet", weights=encoder_files.image)
    module = importlib.import_module("tsv_data").TsvDataModule("my-data", *encoders)
    with pytest.raises(DataError, match=r"val\.tsv:1: expected a relation of MNRE"):
        module.setup("fit")
