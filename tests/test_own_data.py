"""Custom data with custom labels, in two commands, and then through everything that a trained model is for."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from mmib import Extractor
from mmib.cli import main
from mmib.serve.app import create_app

POSTS = 60
PRODUCTS = ("Zorbo", "Kinta phone", "Mapple")
TEAMS = ("Red Hawks", "Wolves", "FC Lund")
RELATIONS = {"backs": "sponsor_of", "sues": "rival_of", "cheers": "fan_of"}
QUICK = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.max_epochs=1", "--wandb=off"]
TASKS = ("mner", "mre")
LABELS = {"mner": {"PRODUCT", "TEAM"}, "mre": set(RELATIONS.values())}


class Trained(NamedTuple):
    """A folder with data, and the runs of two seeds of each task."""

    root: Path
    runs: dict[str, list[Path]]


def write_posts(folder: Path) -> None:
    """60 posts with images, entities of two types and a relation of three between them."""
    generator = random.Random(0)
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(POSTS):
        product, team = generator.choice(PRODUCTS), generator.choice(TEAMS)
        verb = generator.choice(list(RELATIONS))
        text = f"{product} {verb} {team} {number}"
        start = text.index(team)
        entities = [
            {"start": 0, "end": len(product), "type": "PRODUCT"},
            {"start": start, "end": start + len(team), "type": "TEAM"},
        ]
        relations = [{"head": 0, "tail": 1, "type": RELATIONS[verb]}]
        post = {"id": number, "text": text, "image": f"{number}.jpg", "entities": entities, "relations": relations}
        lines.append(json.dumps(post) + "\n")
        Image.new("RGB", (40, 30), (4 * number, 99, 50)).save(folder / "images" / f"{number}.jpg")
    (folder / "posts.jsonl").write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, encoder_files: Any) -> Trained:
    """`mmib init` and `mmib fit`, over two seeds of each task, from a folder of posts."""
    root = tmp_path_factory.mktemp("custom")
    write_posts(root / "posts")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for task in TASKS:
            assert main(["init", "posts", "--task", task, "-o", f"{task}.yaml"]) == 0
            for seed in ("1", "2"):
                fit = ["fit", "--config", f"{task}.yaml", "--seed_everything", seed, "--data.max_length=40"]
                assert main([*fit, *QUICK, *encoder_files.options()]) == 0
    return Trained(root, {task: sorted((root / "runs" / task).iterdir()) for task in TASKS})


@pytest.fixture
def folder(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained.root)
    return trained.root


@pytest.fixture(scope="module")
def exports(trained: Trained) -> Path:
    """Both tasks in one folder, with ONNX."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained.root)
        assert main(["export", *(str(trained.runs[task][0]) for task in TASKS), "-o", "exports", "--onnx"]) == 0
    return trained.root / "exports"


@pytest.mark.parametrize("task", TASKS)
def test_labels_travel_from_the_data_to_summary_and_predictions(trained: Trained, task: str) -> None:
    for run in trained.runs[task]:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        assert set(summary["labels"]["names"]) == LABELS[task]
        assert summary["test"] is not None
        lines = (run / "predictions" / "test.jsonl").read_text(encoding="utf-8").splitlines()
        gold = [json.loads(line)["gold"] for line in lines]
        names = {tag.partition("-")[2] for tags in gold for tag in tags if tag != "O"} if task == "mner" else set(gold)
        assert names == LABELS[task]


@pytest.mark.parametrize("task", TASKS)
def test_test_report_and_aggregate(
    folder: Path, trained: Trained, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = trained.runs[task]
    config, best = str(first / "config.yaml"), str(first / "checkpoints" / "best.ckpt")
    assert main(["test", "--config", config, "--ckpt_path", best]) == 0
    assert main(["report", str(first)]) == 0
    page = (first / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in LABELS[task])
    assert "<img" in page
    capsys.readouterr()
    assert main(["aggregate", str(first), str(second)]) == 0
    assert task in capsys.readouterr().out


def test_another_order_of_the_same_labels_is_refused_by_the_checkpoint(
    folder: Path, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained.runs["mner"][0]
    arguments = ["test", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
    assert main([*arguments, "--data.labels=[TEAM,PRODUCT]"]) == 2
    message = capsys.readouterr().err
    assert "in another order" in message
    assert "TEAM, PRODUCT" in message
    assert "PRODUCT, TEAM" in message


def test_what_was_exported_extracts_with_these_labels(exports: Path) -> None:
    extractor = Extractor.from_pretrained(str(exports))
    found = extractor.extract("Zorbo backs Wolves", image=str(exports.parent / "posts" / "images" / "3.jpg")).to_dict()
    assert {entity["type"] for entity in found["entities"]} <= LABELS["mner"]
    entities = [{"start": 0, "end": 5, "type": "PRODUCT"}, {"start": 12, "end": 18, "type": "TEAM"}]
    found = extractor.extract("Zorbo backs Wolves", entities=entities).to_dict()
    # Without a negative class every pair has a relation.
    assert {relation["label"] for relation in found["relations"]} & LABELS["mre"]


def test_the_page_speaks_these_labels(exports: Path) -> None:
    from starlette.testclient import TestClient

    client = TestClient(create_app(Extractor.from_pretrained(str(exports))), base_url="http://127.0.0.1")
    models = client.get("/api/model").text
    assert all(name in models for labels in LABELS.values() for name in labels)


def test_onnx_scores_these_labels(exports: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    for task, outputs in (("mner", 5), ("mre", 3)):
        session = onnxruntime.InferenceSession(str(exports / task / "model.onnx"))
        assert session.get_outputs()[0].shape[-1] == outputs
