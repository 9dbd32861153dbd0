"""Custom data in two commands, `mmib init` and `mmib fit`, and all later steps with its labels.

The encoders are tiny. Each step is the command or call that a user would run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime
import pytest
from starlette.testclient import TestClient

from mmib.cli import main
from mmib.extract.extractor import Extractor
from mmib.serve.app import create_app
from mmib.serve.limits import Limits

pytestmark = [pytest.mark.slow, pytest.mark.fresh_weights]
both_tasks = pytest.mark.parametrize("task", ["mner", "mre"])

TYPES = ["PRODUCT", "TEAM"]
RELATIONS = ["nothing", "breaks", "makes", "sells"]
LABELS = {"mner": {"names": TYPES}, "mre": {"names": RELATIONS, "negative": "nothing"}}
# The outputs of the head.
OUTPUTS = {"mner": ["O", *(f"{prefix}-{name}" for name in TYPES for prefix in "BI")], "mre": RELATIONS}
POSTS = 60
PICTURED = 18
OPTIONS = [
    "--wandb=off",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]
TEXT = "Heard today: Acme makes the Zipper"


class Trained(NamedTuple):
    """Paths of the data, of two runs of each task, and of a folder of their models."""

    data: Path
    runs: dict[str, list[Path]]
    exported: Path

    def summary(self, task: str) -> dict[str, Any]:
        """The summary of the first run of a task."""
        return dict(json.loads((self.runs[task][0] / "summary.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, invented: Any, encoder_files: Any) -> Trained:
    """The results of `mmib init`, `mmib fit` with two seeds and `mmib export` on 60 posts."""
    root = tmp_path_factory.mktemp("own")
    data = invented.folder(root / "posts", POSTS)
    runs = {}
    for task, options in (("mner", []), ("mre", ["--negative", "nothing"])):
        file = root / f"{task}.yaml"
        assert main(["init", str(data), "--task", task, "-o", str(file), *options]) == 0
        places = [f"--runs={root / 'runs'}", f"--data.cache_dir={root / 'cache'}"]
        for seed in (1, 2):
            fit = ["fit", "--config", str(file), *OPTIONS, *places, f"--seed_everything={seed}"]
            assert main([*fit, *encoder_files.options()]) == 0
        runs[task] = sorted((root / "runs" / task).iterdir())
    first = [str(folders[0]) for folders in runs.values()]
    assert main(["export", *first, "-o", str(root / "exported"), "--onnx"]) == 0
    return Trained(data, runs, root / "exported")


@both_tasks
def test_a_run_records_its_labels_and_posts(trained: Trained, task: str) -> None:
    summary = trained.summary(task)
    assert (summary["task"], summary["labels"]) == (task, LABELS[task])
    # Each post is in one split, and each of its entity pairs, in both orders, is a row of it.
    rows = {split: described["rows"] for split, described in summary["data"].items()}
    assert rows.keys() == {"train", "val", "test"}
    assert sum(rows.values()) == (POSTS if task == "mner" else 2 * POSTS)
    assert sum(int(text.split(" of ")[0]) for text in summary["images"].values()) == PICTURED
    for split in ("val", "test"):
        lines = (trained.runs[task][0] / "predictions" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        assert len(records) == rows[split]
        gold = {label for record in records for label in ([record["gold"]] if task == "mre" else record["gold"])}
        assert gold <= set(OUTPUTS[task])
        assert len(gold) >= 3


@both_tasks
def test_scoring_a_run_again_gives_the_same_scores(trained: Trained, task: str, tmp_path: Path) -> None:
    run = trained.runs[task][0]
    checkpoint = ["--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
    assert main(["test", "--config", str(run / "config.yaml"), *checkpoint, f"--runs={tmp_path}"]) == 0
    (again,) = tmp_path.glob("*/*/summary.json")
    scored = json.loads(again.read_text(encoding="utf-8"))["test"]
    assert scored["f1"] == pytest.approx(trained.summary(task)["test"]["f1"])
    assert set(scored["classes"]) <= {*OUTPUTS[task], *TYPES}


@both_tasks
def test_the_report_shows_the_labels(trained: Trained, task: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert main(["report", str(trained.runs[task][0]), "--output", str(page)]) == 0
    shown = page.read_text(encoding="utf-8")
    assert all(name in shown for name in LABELS[task]["names"])


@both_tasks
def test_both_seeds_are_averaged_in_one_table_row(
    trained: Trained, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["aggregate", *map(str, trained.runs[task]), "--resamples", "100", "--format", "csv"]) == 0
    heading, row = capsys.readouterr().out.strip().splitlines()[:2]
    cells = dict(zip(heading.split(","), row.split(","), strict=True))
    assert (cells["name"], cells["seeds"]) == (task, "1 2")


@both_tasks
def test_exports_have_these_labels(trained: Trained, task: str) -> None:
    config = json.loads((trained.exported / task / "config.json").read_text(encoding="utf-8"))
    assert [*config["labels"]] == OUTPUTS[task] or config["labels"] == LABELS[task]
    (scores,) = onnxruntime.InferenceSession(trained.exported / task / "model.onnx").get_outputs()
    assert scores.shape[-1] == len(OUTPUTS[task])


@pytest.mark.smoke
def test_extraction_predicts_these_labels(trained: Trained) -> None:
    extractor = Extractor.from_pretrained(trained.exported)
    found = extractor.extract(TEXT, entities=[(13, 17, "TEAM"), (28, 34, "PRODUCT")])
    assert {relation.label for relation in found.relations} <= set(RELATIONS[1:])
    image = next((trained.data / "images").iterdir())
    assert {entity.type for entity in extractor.extract(TEXT, image=image).entities} <= set(TYPES)
    with TestClient(create_app(extractor, Limits())) as client:
        answer = client.post("/api/extract", json={"text": TEXT})
        assert answer.status_code == 200
        assert answer.json()["text"] == TEXT


def test_extractions_become_pre_annotations(trained: Trained, tmp_path: Path) -> None:
    found, tasks, posts = (tmp_path / name for name in ("found.jsonl", "tasks.json", "posts.jsonl"))
    lines = (trained.data / "posts.jsonl").read_text(encoding="utf-8").splitlines()
    # Without entities, which would be used unchanged.
    raw = [{key: value for key, value in json.loads(line).items() if key in ("id", "text", "image")} for line in lines]
    posts.write_text("".join(json.dumps(post) + "\n" for post in raw), encoding="utf-8")
    images = ["--images", str(trained.data / "images")]
    assert main(["extract", str(posts), "--model", str(trained.exported), "-o", str(found), *images]) == 0
    assert main(["convert", str(found), "--to", "label-studio", "-o", str(tasks), "--posts", str(posts)]) == 0
    made = json.loads(tasks.read_text(encoding="utf-8"))
    readable = [post for post in raw if (trained.data / "images" / post.get("image", "")).exists()]
    assert [task["data"] for task in made] == readable
    assert len(readable) == POSTS - 2
    labels = {label for task in made for result in task["predictions"][0]["result"] for label in labels_of(result)}
    assert labels <= {*TYPES, *RELATIONS[1:]}


def labels_of(result: dict[str, Any]) -> list[str]:
    """Labels of a region or a relation."""
    return list(result.get("value", result)["labels"])
