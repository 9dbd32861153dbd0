"""Reader of the files of finished runs. Does not import torch."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmib.base.class_paths import current_class_paths
from mmib.base.files import parse_json, read_yaml
from mmib.datamodules.files import image_root
from mmib.datamodules.released import LABELS_BEFORE_0_2
from mmib.labels import LabelSet, difference
from mmib.plugins import task_of
from mmib.records import TrainingItems
from mmib.runs.resumption import resumption
from mmib.schema import ConfigError, RunError, Task

STUDY = "study.json"
LABELS = "labels.json"
TRAINING = "training.json"
# Settings, with `init_args` left out of their names, that may differ between runs of the same configuration.
INCIDENTAL = ("seed_everything", "name", "run", "runs", "wandb", "ckpt_path", "data.root", "data.cache_dir")
# Entries of the data in `summary.json` that determine which rows a split has; None where they do not apply.
IDENTITY = ("sha256", "rows", "held_out", "holdout_seed", "subset")


@dataclass(frozen=True)
class FinishedRun:
    """A run folder with a summary.

    Attributes:
        folder: the folder.
        summary: content of its `summary.json`.
    """

    folder: Path
    summary: dict[str, Any]

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.summary["task"])

    def registered_task(self) -> Task:
        """Return the task.

        Raises:
            TaskError: no imported module registers the task; the message names the modules to import.
        """
        return task_of(self.task, self.folder, self.summary.get("plugins") or ())

    @property
    def labels(self) -> LabelSet:
        """The label set; runs of version 0.1 do not record it, and have that of their task's released data set.

        Raises:
            RunError: the label set in the summary is invalid, or missing for a task that version 0.1 did not have.
            TaskError: the summary has no label set, and its task is not registered.
        """
        if "labels" in self.summary:
            return _label_set(self.summary["labels"], self.folder / "summary.json")
        if self.task not in LABELS_BEFORE_0_2:
            self.registered_task()
            raise RunError(f"{self.folder / 'summary.json'} names no 'labels': copy the run again")
        return LABELS_BEFORE_0_2[self.task]

    @property
    def trained(self) -> bool:
        """Whether the run is a training, and not an evaluation of another run's checkpoint."""
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
        """Time at which the summary was written, in seconds since 1970."""
        return (self.folder / "summary.json").stat().st_mtime

    def fingerprint(self, split: str) -> tuple[Any, ...] | None:
        """Return what identifies the rows of a split, see `fingerprint`; None if not recorded."""
        described = (self.summary.get("data") or {}).get(split)
        return fingerprint(described) if described else None

    @property
    def training_data(self) -> str:
        """SHA-256 of the file with the training rows; `unknown` if not recorded."""
        return str(((self.summary.get("data") or {}).get("train") or {}).get("sha256", "unknown"))

    def config(self) -> dict[str, Any]:
        """Return the complete configuration, with current class paths.

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
        """Whether the model saw the posts with their own images, and not with those of other posts."""
        return bool(self._data_options().get("images", "own") == "own")

    @property
    def image_root(self) -> Path | None:
        """Folder to which image paths are relative, see `image_root`; None if the configuration names no data.

        Raises:
            RunError: see `config`.
        """
        options = self._data_options()
        root, images = options.get("root"), options.get("image_folder")
        if not isinstance(root, str):
            return None
        folder = Path(root).parent if Path(root).is_file() else Path(root)
        return image_root(folder, Path(images)) if isinstance(images, str) else folder

    def training(self) -> TrainingItems | None:
        """Return the items that the model was trained on; None if not recorded, as in older versions.

        Raises:
            RunError: the file is damaged.
        """
        return read_training(self.folder)

    def has_predictions(self, split: str) -> bool:
        """Return whether the run has predictions for a split."""
        return self.predictions_file(split).is_file()

    def predictions_file(self, split: str) -> Path:
        """Return the path of the predictions for `val` or `test`."""
        return self.folder / "predictions" / f"{split}.jsonl"

    def predictions(self, split: str) -> list[dict[str, Any]]:
        """Read the predictions for `val` or `test`, in order of row.

        Raises:
            RunError: there are none, their labels differ from those in the summary, a line is damaged, or two are of
                one row.
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
        lines_of_rows: dict[int, int] = {}
        for number, line in enumerate(lines, 1):
            try:
                record = parse_json(line, allow_nan=True)
            except ValueError as error:
                raise RunError(f"{path}, line {number} is no JSON: {error}; {remedy}") from error
            if not isinstance(record, dict) or type(record.get("id")) is not int or "predicted" not in record:
                raise RunError(
                    f"{path}, line {number} is no prediction: it has no row number 'id' or no 'predicted'; {remedy}"
                )
            if (first := lines_of_rows.setdefault(record["id"], number)) != number:
                raise RunError(
                    f"{path}, lines {first} and {number} are both of row {record['id']}, as in files that were joined: "
                    f"use the predictions of one run; {remedy}"
                )
            records.append(record)
        return records

    @contextmanager
    def interpreting(self, split: str) -> Iterator[None]:
        """Turn errors while interpreting predictions of a split into errors that name the prediction file.

        Raises:
            RunError: a record is damaged.
        """
        try:
            yield
        except (KeyError, IndexError, TypeError, ValueError) as error:
            path = self.predictions_file(split)
            raise RunError(f"{path} is damaged ({type(error).__name__}: {error}): score the run again") from error

    def _check_labels(self, path: Path, remedy: str) -> None:
        """Check the label set of prediction files; those of version 0.1 do not record it."""
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
        """Read the rows of `metrics.csv`, each with the values logged at one step; an empty list without a file.

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


def fingerprint(described: dict[str, Any]) -> tuple[Any, ...]:
    """Return what identifies the rows of a split: splits may be shares of one file.

    Args:
        described: see `mmib.datamodules.base.PostDataModule.fingerprint`.
    """
    return tuple(described.get(name) for name in IDENTITY)


def _label_set(content: Any, path: Path) -> LabelSet:
    try:
        return LabelSet.from_dict(content)
    except ConfigError as error:
        raise RunError(f"{path} holds no label set ({error}): copy the run again") from error


def read_training(folder: Path) -> TrainingItems | None:
    """Read the items that the model of a run folder was trained on; None if not recorded.

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
    """Read a finished run.

    Raises:
        RunError: the folder is missing, or its run has not finished or has a damaged summary.
    """
    if not folder.is_dir():
        raise RunError(f"there is no run folder {folder}: those of mmib fit are in runs/")
    path = folder / "summary.json"
    remedy = resumption(folder)
    try:
        summary = parse_json(path.read_text(encoding="utf-8"), allow_nan=True)
    except FileNotFoundError as error:
        if not (folder / "config.yaml").is_file():
            finished = sorted(inner.parent for inner in folder.glob("*/summary.json"))
            advice = f"name one of the runs in it, such as {finished[-1]}" if finished else "name the folder of a run"
            raise RunError(f"{folder} is no run, it has neither summary.json nor config.yaml: {advice}") from error
        raise RunError(f"the run {folder} has not finished, it has no summary.json; {remedy}") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}; {remedy}") from error
    if not isinstance(summary, dict) or not {"task", "experiment", "seed", "val", "test"} <= summary.keys():
        raise RunError(f"{path} is no summary of a run; {remedy}")
    return FinishedRun(folder, summary)


def find_runs(folders: Iterable[Path]) -> list[FinishedRun]:
    """Find the finished runs that folders are or, at any depth, contain; in order, without duplicates.

    Evaluations of a checkpoint, which `mmib test` and `validate` write beside the runs, are included only if named.

    Raises:
        RunError: a folder is missing, or neither is a run nor contains a finished one.
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
        for run in runs:
            found.setdefault(run.folder.resolve(), run)
    return list(found.values())


def trained_runs(folder: Path) -> list[FinishedRun]:
    """Return the finished trainings below a folder, in order of path."""
    return _trained(folder.rglob("summary.json"))


def single_runs(folder: Path) -> list[FinishedRun]:
    """Return the finished trainings of `mmib fit`, in NAME/RUN; those of sweeps and studies are deeper."""
    return _trained([*folder.glob("*/summary.json"), *folder.glob("*/*/summary.json")])


def _trained(summaries: Iterable[Path]) -> list[FinishedRun]:
    runs = (read_run(path.parent) for path in sorted(summaries))
    return [run for run in runs if run.trained]


def newest_first(runs: Iterable[FinishedRun]) -> list[FinishedRun]:
    """Sort runs by end time, newest first."""
    return sorted(runs, key=lambda run: run.ended, reverse=True)


def dotted(config: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the dotted keys and values of a nested configuration."""
    items: list[tuple[str, Any]] = []
    for key, value in config.items():
        items += dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return items
