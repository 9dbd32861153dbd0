"""The code of docs/tutorials/extending.md runs unchanged."""

from __future__ import annotations

import csv
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from mmib.cli import main
from mmib.schema import DataError

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "extending.md"
FILES = {
    *("hinge_alignment.py", "max_pooled_encoder.py", "gated_fusion.py", "small_means.py"),
    *("tsv_data.py", "mine.yaml", "relevance.py", "relevance.yaml"),
}
QUICK = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--wandb=off"]
COLOURS = ("red", "lime", "blue", "gold", "navy", "pink")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside the package with the files of the page and tiny data sets."""
    blocks = re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert {name for name, _ in blocks} == FILES
    for name, code in blocks:
        (tmp_path / name).write_text(code, encoding="utf-8")
    relations, posts = [], []
    for number, colour in enumerate(COLOURS):
        for folder in ("my-data", "my-posts"):
            images = tmp_path / folder / "images"
            images.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (30, 20), colour).save(images / f"{colour}.png")
        relation = ("nothing", "plays for", "sponsors")[number % 3]
        relations.append(f"{relation}\t{colour}.png\t0-1\t{number + 1}-{number + 2}\tanna {'and ' * number}bob\n")
        posts.append(f"{('unrelated', 'related')[number % 2]} {colour}.png anna {'and ' * number}bob\n")
    for split in ("train", "val"):
        (tmp_path / "my-data" / f"{split}.tsv").write_text("".join(relations), encoding="utf-8")
    for split in ("train", "val", "test"):
        (tmp_path / "my-posts" / f"{split}.txt").write_text("".join(posts), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in FILES:  # of another test's folder
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
    return tmp_path


def columns(run: Path) -> set[str]:
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return set(csv.DictReader(file).fieldnames or [])


def test_custom_parts_and_a_custom_data_set_can_be_trained(project: Path, encoder_files: Any) -> None:
    assert main(["fit", "--config", "mine.yaml", *encoder_files.options(), *QUICK]) == 0
    (run,) = (project / "runs" / "mine").iterdir()
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["images"] == {"train": "6 of 6 images, 6 of 6 rows", "val": "6 of 6 images, 6 of 6 rows"}
    assert summary["data"]["train"]["rows"] == 6
    assert summary["labels"] == {"names": ["nothing", "plays for", "sponsors"], "negative": "nothing"}
    assert set(summary["val"]) >= {"precision", "recall", "f1", "accuracy"}
    logged = {"align/loss", "align/violated", "val/align/violated", "fusion/gate", "val/fusion/gate"}
    assert logged | {"loss/small_means", "val/loss/small_means"} <= columns(run)
    saved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    backbone = saved["model"]["init_args"]["backbone"]["init_args"]
    assert backbone["alignment"] == {"class_path": "hinge_alignment.HingeAlignment", "init_args": {"margin": 0.3}}
    assert backbone["image_encoder"]["class_path"] == "max_pooled_encoder.MaxPooledEncoder"
    assert saved["data"]["class_path"] == "tsv_data.TsvDataModule"


def test_the_encoder_of_the_page_does_not_share_features_with_the_original_one(
    project: Path, encoder_files: Any
) -> None:
    custom = importlib.import_module("max_pooled_encoder").MaxPooledEncoder("test_resnet", weights=encoder_files.image)
    stock = type(custom).__bases__[0]("test_resnet", weights=encoder_files.image)
    assert custom.fingerprint() != stock.fingerprint()


def test_the_data_set_of_the_page_names_a_malformed_line(project: Path, encoder_files: Any) -> None:
    from mmib.encoders.image import ImageEncoder
    from mmib.encoders.text import TextEncoder

    (project / "my-data" / "val.tsv").write_text("nothing\tred.png\n", encoding="utf-8")
    encoders = TextEncoder(encoder_files.text), ImageEncoder("test_resnet", weights=encoder_files.image)
    labels = ["nothing", "plays for", "sponsors"]
    module = importlib.import_module("tsv_data").TsvDataModule(
        "my-data", labels, text_encoder=encoders[0], image_encoder=encoders[1]
    )
    with pytest.raises(DataError, match=r"val\.tsv:1: expected five fields"):
        module.setup("fit")


def test_a_label_missing_from_the_configuration_names_file_line_and_label(
    project: Path, encoder_files: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = "--data.labels={names: [nothing, plays for], negative: nothing}"
    assert main(["fit", "--config", "mine.yaml", labels, *encoder_files.options(), *QUICK]) == 2
    message = capsys.readouterr().err
    assert "train.tsv:3" in message
    assert "'sponsors'" in message
    assert "Traceback" not in message


def test_the_task_of_the_page_works_with_every_command(
    project: Path, encoder_files: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fit with two seeds, test, report, aggregate, export and extract, without changes to the package."""
    for seed in ("1", "2"):
        fit = ["fit", "--config", "relevance.yaml", "--seed_everything", seed]
        assert main([*fit, *encoder_files.options(), *QUICK]) == 0
    first, second = sorted((project / "runs" / "relevance").iterdir())
    summary = json.loads((first / "summary.json").read_text(encoding="utf-8"))
    assert summary["task"] == "relevance"
    assert summary["labels"] == {"names": ["unrelated", "related"]}
    assert summary["test"]["accuracy"] == summary["val"]["accuracy"]  # the same posts
    predictions = (first / "predictions" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["gold"] for line in predictions} == {"unrelated", "related"}
    config, best = str(first / "config.yaml"), str(first / "checkpoints" / "best.ckpt")
    assert main(["test", "--config", config, "--ckpt_path", best]) == 0
    assert main(["report", "--plugin", "relevance", str(first)]) == 0
    assert "image-text relevance" in (first / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["aggregate", "--plugin", "relevance", str(first), str(second)]) == 0
    assert "relevance" in capsys.readouterr().out
    assert main(["export", "--plugin", "relevance", str(first), "-o", "exports"]) == 0
    capsys.readouterr()
    extract = ["extract", "--plugin", "relevance", "--model", "exports", "--text", "anna and bob"]
    assert main([*extract, "--image", "my-posts/images/red.png"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels"]["relevance"]["label"] in {"unrelated", "related"}
    assert 0.5 <= found["labels"]["relevance"]["confidence"] <= 1
