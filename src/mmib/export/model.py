"""A trained model independent of its training, and how to build it from a description."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

from jsonargparse import ArgumentError, ArgumentParser
from torch import nn

from mmib.analysis.calibration import Temperature, fitted_temperature
from mmib.backbone import ExtractionNetwork, MultimodalIB
from mmib.encoders.image import ImageEncoder
from mmib.encoders.lora import LoraSettings
from mmib.encoders.text import TextEncoder
from mmib.labels import LabelSet
from mmib.nn.alignment import Alignment
from mmib.nn.fusion import Fusion
from mmib.nn.gaussian import GaussianEncoder
from mmib.nn.priors import Prior
from mmib.plugins import task_of
from mmib.runs.checkpoints import check_labels, open_checkpoint
from mmib.runs.reader import FinishedRun, read_run
from mmib.schema import ExportError, RunError, Task, task_named

# Parts that a backbone takes as callables of its width, and the base class of each.
PARTS: dict[str, type[nn.Module]] = {
    "gaussian": GaussianEncoder,
    "alignment": Alignment,
    "fusion": Fusion,
    # Evidence contains rates, which are relative to the priors.
    "text_prior": Prior,
    "image_prior": Prior,
}
# The package of mmib's own parts.
PARTS_PACKAGE = "mmib.nn."
ENCODERS: dict[str, type[nn.Module]] = {"text_encoder": TextEncoder, "image_encoder": ImageEncoder}
BEST = Path("checkpoints") / "best.ckpt"


@dataclass(frozen=True)
class TrainedModel:
    """A network with its weights, and the settings needed to use it.

    Attributes:
        network: in evaluation mode, without gradients.
        parts: class and settings of each of `PARTS`.
        max_length: maximum number of word pieces of a post.
        max_crops: maximum number of object crops besides the whole image, as in training.
        reads_images: whether it was trained with images.
        temperature: the calibration of its confidence.
        card: scores and settings of the run, for readers of the model card.
    """

    network: ExtractionNetwork
    parts: dict[str, Any]
    max_length: int
    max_crops: int
    reads_images: bool = True
    temperature: Temperature = field(default_factory=Temperature)
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.network.task

    @property
    def image_encoder(self) -> ImageEncoder:
        """The image encoder; a model that reads side texts of images is never exported."""
        return cast(ImageEncoder, self.network.backbone.image_encoder)

    @property
    def labels(self) -> LabelSet:
        """The labels that it predicts."""
        return self.network.labels

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs of the head, by id."""
        return task_named(self.task).outputs(self.labels)


def build(
    task: str,
    labels: LabelSet,
    encoders: tuple[TextEncoder, ImageEncoder],
    parts: dict[str, Any],
    settings: dict[str, Any],
) -> ExtractionNetwork:
    """Build a network with random weights.

    Args:
        task: name of the task whose head it has.
        labels: the labels that it predicts.
        encoders: text encoder and image encoder.
        parts: class and settings of each of `PARTS`, as in a configuration file; missing parts are the default.
        settings: settings of the network, see `ExtractionNetwork.settings`.

    Raises:
        TaskError: the task is not registered.
        ExportError: a class does not exist or is not allowed as this part.
    """
    named: dict[str, Any] = {
        name: part(parts[name], base, name) for name, base in PARTS.items() if parts.get(name) is not None
    }
    head = checked_arguments(task_named(task).network, settings, f"the head of {task}")
    return task_named(task).build_network(MultimodalIB(*encoders, **named), labels, **head)


def part(description: Any, base: type[nn.Module], name: str) -> Callable[[int], Any]:
    """Return a callable that builds a part of a given width, from its class and settings.

    Custom classes must already be imported: a model from elsewhere causes no imports.

    Raises:
        ExportError: the class does not exist, or is not such a part.
    """
    if isinstance(description, str):
        description = {"class_path": description}
    if not isinstance(description, dict) or not isinstance(description.get("class_path"), str):
        raise ExportError(f"the model's {name} is {description!r}: expected class_path and init_args")
    path = description["class_path"]
    module, _, class_name = path.rpartition(".")
    if not module.startswith(PARTS_PACKAGE) and module not in sys.modules:
        raise ExportError(
            f"the model's {name} is {path}, a custom class: add --plugin {module}, or in Python import it first"
        )
    try:
        found = getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError) as error:
        raise ExportError(f"the model's {name}, {path}, is not there: {error}") from error
    if not isinstance(found, type) or not issubclass(found, base):
        raise ExportError(f"the model's {name}, {path}, is no {base.__name__}")
    return partial(found, **checked_arguments(found, description.get("init_args") or {}, f"the model's {name}"))


def checked_arguments(found: type[nn.Module], arguments: Any, what: str) -> dict[str, Any]:
    """Check constructor arguments, which must be numbers, strings or booleans, against the constructor's types.

    Args:
        found: the class; parameters that are built for it, such as the width, cannot be given.
        arguments: the arguments by name.
        what: the beginning of the error message.

    Raises:
        ExportError: an argument is unknown to the constructor or has another type than it declares.
    """
    if not isinstance(arguments, dict) or any(isinstance(value, dict | list) for value in arguments.values()):
        raise ExportError(f"{what} has the arguments {arguments!r}: expected names with a number, text or switch each")
    built = [name for name in inspect.signature(found).parameters if name in ("dim", "backbone", "labels")]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(found, skip=set(built))
    try:
        return dict(parser.parse_object(arguments, defaults=False).as_dict())
    except ArgumentError as error:
        raise ExportError(f"{what} cannot be built: {' '.join(str(error).split())}") from error


def load_weights(network: ExtractionNetwork, weights: dict[str, Any], source: Path) -> None:
    """Load weights into a network, and set it to evaluation mode without gradients.

    Raises:
        ExportError: the weights are of another network.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ExportError(f"the weights of {source} do not fit its description: {reason[:300]}") from error
    network.requires_grad_(False)
    network.eval()


def model_of_run(folder: Path, checkpoint: Path | None = None) -> TrainedModel:
    """Load the selected model of a finished run, or the model of another checkpoint of it.

    Raises:
        RunError: the run has not finished, or its predictions are damaged.
        TaskError: its task is not registered.
        CheckpointError: the checkpoint is missing or damaged, or has other labels than the run.
        ExportError: an encoder of the run is a custom class, it reads side texts, or its configuration is invalid.
    """
    run = read_run(folder)
    task = task_of(run.task, folder, run.summary.get("plugins") or ())
    labels = run.labels
    try:
        model, data = (run.config()[name]["init_args"] for name in ("model", "data"))
        _check_image_source(data.get("image_source", "pixels"), folder)
        backbone = model["backbone"]["init_args"]
        text, image = (_encoder(backbone[name], base) for name, base in ENCODERS.items())
        text |= _lora(backbone["text_encoder"]["init_args"])
        parts = {name: backbone.get(name) for name in PARTS}
        settings = {name: model[name] for name in _settings_of(task) if name in model}
        network = build(run.task, labels, (TextEncoder(**text), ImageEncoder(**image)), parts, settings)
        path = checkpoint or folder / BEST
        content = open_checkpoint(path, run.task)
        check_labels(content, labels, str(path))
        load_weights(network, _weights_of(network, content["state_dict"]), path)
        network.backbone.text_encoder.merge_lora()
        crops = 0 if image.get("regions") == "grid" else int(data["max_crops"])
        return TrainedModel(
            network=network,
            parts=parts,
            max_length=int(data["max_length"]),
            max_crops=crops,
            reads_images=data.get("images") != "none",
            temperature=_temperature(run, task),
            card=_card(run, model, data),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"{folder / 'config.yaml'} describes no model ({type(error).__name__}: {error})") from error


def _check_image_source(source: str, folder: Path) -> None:
    """Refuse a run that reads side texts of images.

    Raises:
        ExportError: the image source is not pixels.
    """
    if source != "pixels":
        raise ExportError(
            f"the run {folder} reads side texts of images (image_source: {source}), and an extractor or exported model "
            f"reads pixels: score it with mmib test --config {folder / 'config.yaml'} --ckpt_path {folder / BEST}, or "
            "train a model on pixels, or on text alone (--data.images none --data.image_source pixels), to extract with"
        )


def _encoder(description: dict[str, Any], base: type[nn.Module]) -> dict[str, Any]:
    """Settings of an encoder of mmib's own class, without pretrained weights: the checkpoint replaces them."""
    names = f"{base.__module__}.{base.__name__}", f"mmib.{base.__name__}"  # the latter is the public name
    if description["class_path"] not in names:
        raise ExportError(
            f"the {base.__name__} {description['class_path']} is a custom class, and an extractor or exported model "
            "has an encoder of mmib: train one with it to extract with, or score this run with mmib test"
        )
    kept = {"name", "markers", "regions", "model_args"} & description["init_args"].keys()
    return {name: description["init_args"][name] for name in sorted(kept)} | {"pretrained": False}


def _lora(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that determine which layers of a text encoder have LoRA matrices; empty without LoRA."""
    if settings.get("lora") is None:
        return {}
    return {"lora": LoraSettings(**settings["lora"]), "trainable_layers": settings.get("trainable_layers")}


def _settings_of(task: Task) -> list[str]:
    """Parameters of a task's network other than backbone and labels."""
    return [name for name in inspect.signature(task.network).parameters if name not in ("backbone", "labels")]


def _weights_of(network: ExtractionNetwork, state: dict[str, Any]) -> dict[str, Any]:
    """Weights of the network in a checkpoint; terms of the objective may have weights of their own."""
    children = dict(network.named_children())
    return {name: tensor for name, tensor in state.items() if name.partition(".")[0] in children}


def _temperature(run: FinishedRun, task: Task) -> Temperature:
    """Temperature fitted on the validation split; 1 if the run has no predictions for it.

    Raises:
        RunError: a prediction is damaged.
    """
    if not run.has_predictions("val"):
        return Temperature()
    try:
        return fitted_temperature(task.judge(run.predictions("val"), run.labels))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RunError(
            f"{run.predictions_file('val')} has an invalid prediction ({type(error).__name__}: {error}): copy the "
            f"run again, or predict again with mmib validate --config {run.folder}/config.yaml"
        ) from error


def _card(run: FinishedRun, model: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Facts about the run for the model card, without paths on this machine."""
    known = {"experiment", "corpus", "seed", "data", "images", "versions", "selected", "val", "test", "ceiling"}
    card = {name: value for name, value in run.summary.items() if name in known}
    if card.get("selected"):
        card["selected"] = {name: value for name, value in card["selected"].items() if name != "checkpoint"}
    if "data" in card:  # the settings of a custom reader may name files
        card["data"] = {split: _without_paths(facts) for split, facts in card["data"].items()}
    plain = {name: value for name, value in model.items() if isinstance(value, int | float | None)}
    reading = {name: data[name] for name in ("batch_size", "max_length", "max_crops", "images") if name in data}
    card["ended"] = datetime.fromtimestamp(run.ended, UTC).date().isoformat()
    card["settings"] = {**plain, **reading, "optimizer": model.get("optimizer")}
    return card


def _without_paths(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if not isinstance(value, str) or not Path(value).is_absolute()}
