"""One tiny finished run of the whole program per task, for every test of a run's results."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from experiments.chromium import Browser
from mmib import schema
from mmib.cli import main
from mmib.export.model import TrainedModel
from mmib.labels import LabelSet
from mmib.runs.checkpoints import CHECKPOINT_LABELS_KEY, CHECKPOINT_TASK_KEY

EPOCHS = 2


@dataclass(frozen=True)
class Run:
    """A run's folder and its output."""

    folder: Path
    output: str
    errors: str = ""

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))

    def predictions(self, split: str) -> list[dict[str, Any]]:
        lines = (self.folder / "predictions" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def checkpoint(self, name: str) -> str:
        return str(self.folder / "checkpoints" / f"{name}.ckpt")


@dataclass(frozen=True)
class Workspace:
    """Folders of tiny runs: `experiments` are configurations of the demo corpus with tiny encoders, by task."""

    root: Path
    experiments: dict[str, Path]

    @property
    def experiment(self) -> Path:
        """The MRE experiment, for tests that do not depend on the task."""
        return self.experiments["mre"]

    def folders(self) -> set[Path]:
        return set((self.root / "runs").glob("*/*"))


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, encoder_files: Any) -> Workspace:
    root = tmp_path_factory.mktemp("workspace")
    experiments = {task: root / f"tiny-{task}.yaml" for task in ("mre", "mner")}
    for task, path in experiments.items():
        path.write_text(yaml.safe_dump(tiny_experiment(task, root, encoder_files)), encoding="utf-8")
    return Workspace(root, experiments)


def tiny_experiment(task: str, root: Path, encoder_files: Any) -> dict[str, Any]:
    """The task's demo experiment at tiny size."""
    return {
        "include": [f"experiment/{task}-demo.yaml"],
        "name": f"tiny-{task}",
        "runs": str(root / "runs"),
        "wandb": "off",
        "trainer": {
            "max_epochs": EPOCHS,
            "val_check_interval": 1.0,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
        "data": {
            "init_args": {"root": str(root / "demo"), "cache_dir": str(root / "cache"), "demo": {"size": "tiny"}},
        },
        "model": {
            "init_args": {
                "beta_text": 0.002,
                "beta_image": 0.004,
                "gamma": 0.5,
                # Low enough that predictions do not collapse into the largest class.
                "optimizer": {"lr": 1.0e-5, "text_lr": 1.0e-5, "other_lrs": {}},
                "backbone": {
                    "init_args": {
                        "text_encoder": {"init_args": {"name": encoder_files.text, "trainable_layers": None}},
                        "image_encoder": {
                            # Exporting to ONNX would take longer than all encoding.
                            "init_args": {"name": "test_resnet", "weights": encoder_files.image, "runtime": "torch"}
                        },
                    }
                },
            }
        },
    }


@pytest.fixture(scope="session")
def finished_runs(workspace: Workspace) -> Callable[[str], Run]:
    """Runs `mmib fit` of a task once, as a user would."""

    @functools.cache
    def fit(task: str) -> Run:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # the same number as runs inside the test process have
        command = [str(Path(sys.executable).with_name("mmib")), "fit", "--config", str(workspace.experiments[task])]
        before = workspace.folders()
        done = subprocess.run(
            command, env=environment, cwd=workspace.root, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        (folder,) = workspace.folders() - before
        return Run(folder, done.stdout, done.stderr)

    return fit


@pytest.fixture
def finished(finished_runs: Callable[[str], Run], task: str) -> Run:
    """The finished run of the test's task."""
    return finished_runs(task)


@pytest.fixture
def start(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Runs a trainer command inside the test process and checks that it succeeds."""

    def run(*arguments: str) -> Run:
        before = workspace.folders()
        capsys.readouterr()
        assert main(arguments) == 0
        output, errors = capsys.readouterr()
        (folder,) = workspace.folders() - before
        return Run(folder, output, errors)

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must end with exit status 2 and without a traceback; returns its message."""

    def run(*arguments: str) -> str:
        try:
            status = main(arguments)
        except SystemExit as error:  # how jsonargparse exits
            status = error.code
        output, errors = capsys.readouterr()
        assert status == 2, (output, errors)
        assert "Traceback" not in output + errors
        return errors

    return run


def mount(folder: Path, options: str) -> bool:
    """Whether a RAM disk could be mounted; that requires root."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount(folder, "size=64k"):
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def make_run(
    tmp_path: Path, bert_folder: str, tiny_parts: dict[str, Any], make_trained: Callable[..., TrainedModel]
) -> Callable[..., Path]:
    """Makes the folder of a finished run of a randomly initialised model; of version 0.1 without `labels`."""

    def make(
        task: str,
        name: str = "run",
        predictions: Sequence[dict[str, Any]] = (),
        labels: LabelSet | None = None,
        parts: dict[str, Any] | None = None,
    ) -> Path:
        named = tiny_parts | (parts or {})
        folder = tmp_path / "home" / "somebody" / "runs" / name
        (folder / "checkpoints").mkdir(parents=True)
        encoders = {
            "text_encoder": {
                "class_path": "mmib.encoders.text.TextEncoder",
                "init_args": {"name": bert_folder, "pretrained": True, "trainable_layers": 1, "dropout": 0.0},
            },
            "image_encoder": {
                "class_path": "mmib.encoders.image.ImageEncoder",
                "init_args": {"name": "test_resnet", "weights": str(tmp_path / "gone.pth"), "regions": "crops"},
            },
        }
        model = {
            "class_path": f"mmib.modules.{task.upper()}Module",
            "init_args": {
                "backbone": {"class_path": "mmib.backbone.MultimodalIB", "init_args": encoders | named},
                "head_dropout": 0.1,
                "gamma": 1.0,
                **({"threshold": 0.2} if task == "mre" else {"constrained": True}),
                "optimizer": {"lr": 1e-3},
            },
        }
        data = {"init_args": {"root": str(folder.parent), "max_length": 60, "max_crops": 4, "images": "own"}}
        (folder / "config.yaml").write_text(yaml.safe_dump({"model": model, "data": data}), encoding="utf-8")
        scores = {"precision": 0.5, "recall": 0.25, "f1": 0.3333, "classes": {"PER": {"gold": 40}}}
        summary = {
            "task": task,
            "experiment": "tiny",
            "corpus": "drawn",
            "seed": 7,
            "command": f"mmib fit --data.root {folder.parent}",
            "data": {"train": {"rows": 3, "sha256": "0123456789abcdef" * 4}},
            "versions": {"mmib": "0.1.0"},
            "selected": {"split": "val", "epoch": 1, "checkpoint": str(folder / "checkpoints" / "best.ckpt")},
            "val": scores,
            "test": None,
            **({"labels": labels.to_dict()} if labels else {}),
        }
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        content = {
            CHECKPOINT_TASK_KEY: task,
            "state_dict": make_trained(task, labels, parts=named).network.state_dict(),
        }
        if labels:
            content[CHECKPOINT_LABELS_KEY] = labels.to_dict()
        torch.save(content, folder / "checkpoints" / "best.ckpt")
        if predictions:
            lines = "".join(json.dumps(record) + "\n" for record in predictions)
            (folder / "predictions").mkdir()
            (folder / "predictions" / "val.jsonl").write_text(lines, encoding="utf-8")
        return folder

    return make


RELEVANCE = """
from mmib.schema import register_task
from mmib.tasks.base import PostClassification, PostNetwork

class RelevanceNetwork(PostNetwork):
    task = "relevance"

class Relevance(PostClassification):
    name = "relevance"
    title = "image-text relevance"
    network = RelevanceNetwork

register_task(Relevance())
"""


@pytest.fixture
def relevance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a module in the working directory that registers the task `relevance`; the test imports it."""
    name = "relevance_plugin"
    (tmp_path / f"{name}.py").write_text(RELEVANCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    # Without registrations of other tests.
    shipped = {task: schema._TASKS[task] for task in schema._TASKS.keys() & schema.SHIPPED_TASKS.keys()}
    monkeypatch.setattr(schema, "_TASKS", shipped)
    yield name
    sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium; tests are skipped if there is none."""
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture
def start_app() -> Iterator[Callable[[Any], str]]:
    """Serves an application in a thread; returns its address."""
    import uvicorn

    from mmib.serve.process import address_of, listen

    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app: Any) -> str:
        listener = listen("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        address = address_of(listener)
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return address

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()
