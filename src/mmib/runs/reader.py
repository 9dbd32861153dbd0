"""Reads what finished runs left in their folders; needs no torch."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmib.base.class_paths import current_class_paths
from mmib.base.files import parse_json, read_yaml
from mmib.datamodules.released import LABELS_BEFORE_0_2
from mmib.labels import LabelSet, difference
from mmib.plugins import task_of
from mmib.records import TrainingItems
from mmib.runs.resumption import resumption
from mmib.schema import ConfigError, RunError, Task

STUDY = "study.json"
LABELS = "labels.json"
TRAINING = "training.json"
# Settings, without `init_args`, that may differ between the runs of one configuration.
INCIDENTAL = ("seed_everything", "name", "run", "runs", "wandb", "ckpt_path", "data.root", "data.cache_dir")


@dataclass(frozen=True)
class FinishedRun:
    """A run folder that holds a summary.

    Attributes:
        folder: the folder.
        summary: what its `summary.json` holds.
    """

    folder: Path
    summary: dict[str, Any]

    @property
    def task(self) -> str:
        """Name of its task."""
        return str(self.summary["task"])

    def registered_task(self) -> Task:
        """Its task.

        Raises:
            TaskError: no module that has been imported registers it; those to import are named.
        """
        return task_of(self.task, self.folder, self.summary.get("plugins") or ())

    @property
    def labels(self) -> LabelSet:
        """What it predicts; runs of version 0.1 record none, and have those of their task's released data set.

        Raises:
            RunError: what the summary holds is no label set.
            TaskError: it holds none, and its task is not registered.
        """
        if "labels" in self.summary:
            return _label_set(self.summary["labels"], self.folder / "summary.json")
        if self.task not in LABELS_BEFORE_0_2:
            self.registered_task()
            raise RunError(f"{self.folder / 'summary.json'} names no 'labels': copy the run again")
        return LABELS_BEFORE_0_2[self.task]

    @property
    def trained(self) -> bool:
        """Whether it is a training, and no evaluation of another run's checkpoint."""
        return self.summary.get("selected") is not None

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return str(self.summary["experiment"])

    @property
    def seed(self) -> int | None:
        """Seed of the training."""
        seed: int | None = self.summary["seed"]
        return seed

    @property
    def ended(self) -> float:
        """When its summary was written, in seconds since 1970."""
        return (self.folder / "summary.json").stat().st_mtime

    def fingerprint(self, split: str) -> Any:
        """SHA-256 of what it was scored on; None where that was not recorded."""
        return ((self.summary.get("data") or {}).get(split) or {}).get("sha256")

    def config(self) -> dict[str, Any]:
        """The complete configuration, with current class paths.

        Raises:
            RunError: `config.yaml` is missing or damaged.
        """
        path = self.folder / "config.yaml"
        try:
            config = read_yaml(path)
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read: {error}; copy the run again") from error
        if not isinstance(config, dict):
            raise RunError(f"{path} is no configuration: copy the run again")
        current: dict[str, Any] = current_class_paths(config, path)
        return current

    def _data_options(self) -> dict[str, Any]:
        data = self.config().get("data")
        options = data.get("init_args", data) if isinstance(data, dict) else {}
        return options if isinstance(options, dict) else {}

    @property
    def own_images(self) -> bool:
        """Whether its posts were shown with their own images, and not with those of others."""
        return bool(self._data_options().get("images", "own") == "own")

    @property
    def data_root(self) -> Path | None:
        """The folder of its data, which paths of images start from; None where its configuration names none.

        Raises:
            RunError: see `config`.
        """
        root = self._data_options().get("root")
        return Path(root) if isinstance(root, str) else None

    def training(self) -> TrainingItems | None:
        """What its model was trained on; None where that was not recorded, as by older versions.

        Raises:
            RunError: the file is damaged.
        """
        return read_training(self.folder)

    def has_predictions(self, split: str) -> bool:
        """Whether the run was scored on a split."""
        return self.predictions_file(split).is_file()

    def predictions_file(self, split: str) -> Path:
        """The file of the predictions of `val` or `test`."""
        return self.folder / "predictions" / f"{split}.jsonl"

    def predictions(self, split: str) -> list[dict[str, Any]]:
        """The predictions of `val` or `test`, in order of row.

        Raises:
            RunError: there are none, they are of other labels than the summary names, or a line is damaged.
        """
        path = self.predictions_file(split)
        remedy = f"make them with mmib {'test' if split == 'test' else 'validate'} --config {self.folder}/config.yaml …"
        self._check_labels(path.with_name(LABELS), remedy)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError as error:
            raise RunError(f"the run {self.folder} has no predictions of {split}: {remedy}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{path} cannot be read: {error}; {remedy}") from error
        records = []
        for number, line in enumerate(lines, 1):
            try:
                record = parse_json(line, allow_nan=True)
            except ValueError as error:
                raise RunError(f"{path}, line {number} is no JSON: {error}; {remedy}") from error
            if not isinstance(record, dict) or type(record.get("id")) is not int or "predicted" not in record:
                raise RunError(
                    f"{path}, line {number} is no prediction: it has no row number 'id' or no 'predicted'; {remedy}"
                )
            records.append(record)
        return records

    @contextmanager
    def interpreting(self, split: str) -> Iterator[None]:
        """While records of the predictions of a split are interpreted: what fails in them becomes an error of the file.

        Raises:
            RunError: a record is damaged.
        """
        try:
            yield
        except (KeyError, IndexError, TypeError, ValueError) as error:
            path = self.predictions_file(split)
            raise RunError(f"{path} is damaged ({type(error).__name__}: {error}): score the run again") from error

    def _check_labels(self, path: Path, remedy: str) -> None:
        """Refuse prediction files of another label set; those of version 0.1 do not say which they are of."""
        if not path.is_file():
            return
        try:
            found = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read: {error}; {remedy}") from error
        differing = difference(self.labels, _label_set(found, path))
        if differing:
            raise RunError(f"{self.folder / 'summary.json'} and {path} name different labels, {differing}; {remedy}")

    def metrics(self) -> list[dict[str, str]]:
        """Rows of `metrics.csv`, each with what was logged at one step; empty where nothing was.

        Raises:
            RunError: the file is damaged.
        """
        path = self.folder / "metrics.csv"
        if not path.is_file():
            return []
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except (OSError, ValueError, csv.Error) as error:
            raise RunError(f"{path} cannot be read: {error}; copy the run again") from error
        for number, row in enumerate(rows, 1):
            if None in row:
                raise RunError(
                    f"{path} is damaged: its row {number} has more values than there are columns; copy the run again"
                )
        return [{name: value for name, value in row.items() if value} for row in rows]


def _label_set(content: Any, path: Path) -> LabelSet:
    try:
        return LabelSet.from_dict(content)
    except ConfigError as error:
        raise RunError(f"{path} holds no label set ({error}): copy the run again") from error


def read_training(folder: Path) -> TrainingItems | None:
    """What the model of a run folder was trained on; None where that was not recorded.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / TRAINING
    if not path.is_file():
        return None
    try:
        return TrainingItems.from_dict(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged ({type(error).__name__}: {error}): copy the run again") from error


def read_run(folder: Path) -> FinishedRun:
    """A finished run.

    Raises:
        RunError: there is no such folder, or the run in it has not finished.
    """
    if not folder.is_dir():
        raise RunError(f"there is no run folder {folder}: those of mmib fit are in runs/")
    path = folder / "summary.json"
    remedy = resumption(folder)
    try:
        summary = parse_json(path.read_text(encoding="utf-8"), allow_nan=True)
    except FileNotFoundError as error:
        raise RunError(f"the run {folder} has not finished, it has no summary.json; {remedy}") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}; {remedy}") from error
    if not isinstance(summary, dict) or not {"task", "experiment", "seed", "val", "test"} <= summary.keys():
        raise RunError(f"{path} is no summary of a run; {remedy}")
    return FinishedRun(folder, summary)


def find_runs(folders: Iterable[Path]) -> list[FinishedRun]:
    """The finished runs that folders name or, at any depth, hold; in order, each once.

    Evaluations of a checkpoint, which `mmib test` and `validate` write beside the runs, count where they are named.

    Raises:
        RunError: a folder is not there, or neither is a run nor holds a finished one.
    """
    found: dict[Path, FinishedRun] = {}
    for folder in folders:
        if (folder / "summary.json").is_file() or (folder / "config.yaml").is_file() or not folder.is_dir():
            runs = [read_run(folder)]
        else:
            runs = trained_runs(folder)
            if not runs:
                studies = sorted(str(path.parent) for path in folder.rglob(STUDY))
                remedy = f"; it holds studies, each with a page: mmib report {studies[0]}" if studies else ""
                raise RunError(f"{folder} holds no finished training: none below it has left a summary.json{remedy}")
        found |= {run.folder: run for run in runs if run.folder not in found}
    return list(found.values())


def trained_runs(folder: Path) -> list[FinishedRun]:
    """The finished trainings below a folder, in order of their paths."""
    return _trained(folder.rglob("summary.json"))


def single_runs(folder: Path) -> list[FinishedRun]:
    """Those that were started one by one, NAME/RUN of `mmib fit`: those of sweeps and studies are deeper."""
    return _trained([*folder.glob("*/summary.json"), *folder.glob("*/*/summary.json")])


def _trained(summaries: Iterable[Path]) -> list[FinishedRun]:
    runs = (read_run(path.parent) for path in sorted(summaries))
    return [run for run in runs if run.trained]


def newest_first(runs: Iterable[FinishedRun]) -> list[FinishedRun]:
    """Runs in order of their end, the last to end first."""
    return sorted(runs, key=lambda run: run.ended, reverse=True)


def dotted(config: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted keys and values of a nested configuration."""
    items: list[tuple[str, Any]] = []
    for key, value in config.items():
        items += dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return items
