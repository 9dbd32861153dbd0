"""A trained model without what trained it, and how it is built from a description."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from mmib.analysis.calibration import Temperature, fitted_temperature
from mmib.backbone import MultimodalIB
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder
from mmib.network import NETWORKS, EntityNetwork, ExtractionNetwork, RelationNetwork
from mmib.nn.alignment import Alignment
from mmib.nn.fusion import Fusion
from mmib.nn.gaussian import GaussianEncoder
from mmib.runs.checkpoints import open_checkpoint
from mmib.runs.reader import FinishedRun, read_run
from mmib.schema import ExportError, Task

# What a backbone takes as callables of its width, and the base of each.
PARTS: dict[str, type[nn.Module]] = {"gaussian": GaussianEncoder, "alignment": Alignment, "fusion": Fusion}
ENCODERS: dict[str, type[nn.Module]] = {"text_encoder": TextEncoder, "image_encoder": ImageEncoder}
BEST = Path("checkpoints") / "best.ckpt"


@dataclass(frozen=True)
class TrainedModel:
    """A network with its weights, and what must be known to use it.

    Attributes:
        network: in evaluation mode, without gradients.
        parts: class and settings of each of `PARTS`.
        max_length: most word pieces that it reads of a post.
        max_crops: most object crops that it has seen beside the whole image.
        reads_images: whether it was trained with images.
        temperature: of its confidence.
        card: scores and settings of the run, for people.
    """

    network: ExtractionNetwork
    parts: dict[str, Any]
    max_length: int
    max_crops: int
    reads_images: bool = True
    temperature: Temperature = field(default_factory=Temperature)
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """`mre` or `mner`."""
        return self.network.task


def build(
    task: Task, encoders: tuple[TextEncoder, ImageEncoder], parts: dict[str, Any], settings: dict[str, Any]
) -> ExtractionNetwork:
    """A network of random weights.

    Args:
        task: which head it has.
        encoders: of text and image.
        parts: class and settings of each of `PARTS`, as in a configuration file; what is left out is the default.
        settings: of the head, see `ExtractionNetwork.settings`.

    Raises:
        ExportError: a class that is not there or may not stand there.
    """
    named: dict[str, Any] = {
        name: part(parts[name], base, name) for name, base in PARTS.items() if parts.get(name) is not None
    }
    backbone = MultimodalIB(*encoders, **named)
    return NETWORKS[task](backbone, **settings)


def part(description: Any, base: type[nn.Module], name: str) -> Callable[[int], Any]:
    """What builds a part of given width: a class with its settings.

    Classes of one's own must have been imported before: a model that comes from elsewhere imports nothing.

    Raises:
        ExportError: the class is not there, or no such part.
    """
    if isinstance(description, str):
        description = {"class_path": description}
    if not isinstance(description, dict) or not isinstance(description.get("class_path"), str):
        raise ExportError(f"the model's {name} is {description!r}: expected class_path and init_args")
    module, _, own = description["class_path"].rpartition(".")
    if module.partition(".")[0] != "mmib" and module not in sys.modules:
        raise ExportError(f"the model's {name} is {description['class_path']}, of code of one's own: import it first")
    try:
        found = getattr(importlib.import_module(module), own)
    except (ImportError, AttributeError) as error:
        raise ExportError(f"the model's {name}, {description['class_path']}, is not there: {error}") from error
    if not isinstance(found, type) or not issubclass(found, base):
        raise ExportError(f"the model's {name}, {description['class_path']}, is no {base.__name__}")
    return partial(found, **(description.get("init_args") or {}))


def load_weights(network: ExtractionNetwork, weights: dict[str, Any], source: Path) -> None:
    """Put weights into a network and make it ready for use.

    Raises:
        ExportError: they are those of another network.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ExportError(f"the weights of {source} do not fit its description: {reason[:300]}") from error
    network.requires_grad_(False)
    network.eval()


def model_of_run(folder: Path, checkpoint: Path | None = None) -> TrainedModel:
    """The model that a finished run selected, or that another of its checkpoints holds.

    Raises:
        RunError: the run has not finished.
        CheckpointError: the checkpoint is missing or damaged.
        ExportError: the run's encoders are of classes of one's own.
    """
    run = read_run(folder)
    try:
        model, data = (run.config()[name]["init_args"] for name in ("model", "data"))
        settings = model["backbone"]["init_args"]
        text, image = (_encoder(settings[name], kind) for name, kind in ENCODERS.items())
        parts = {name: settings.get(name) for name in PARTS}
        network = build(run.task, (TextEncoder(**text), ImageEncoder(**image)), parts, _head(run.task, model))
        path = checkpoint or folder / BEST
        load_weights(network, open_checkpoint(path, run.task)["state_dict"], path)
        crops = 0 if network.backbone.image_encoder.regions == "grid" else int(data["max_crops"])
        return TrainedModel(
            network=network,
            parts=parts,
            max_length=int(data["max_length"]),
            max_crops=crops,
            reads_images=data.get("images") != "none",
            temperature=_temperature(run),
            card=_card(run, model, data),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"{folder / 'config.yaml'} describes no model ({type(error).__name__}: {error})") from error


def _encoder(description: dict[str, Any], kind: type[nn.Module]) -> dict[str, Any]:
    """Settings of an encoder of the project's own class; weights that the checkpoint replaces are not loaded."""
    if description["class_path"] != f"{kind.__module__}.{kind.__name__}":
        raise ExportError(f"the encoder {description['class_path']} is of one's own: only {kind.__name__} is exported")
    kept = {"name", "regions"} & description["init_args"].keys()
    return {name: description["init_args"][name] for name in sorted(kept)} | {"pretrained": False}


def _head(task: Task, model: dict[str, Any]) -> dict[str, Any]:
    network = {"mre": RelationNetwork, "mner": EntityNetwork}[task]
    names = network.__init__.__annotations__.keys() - {"backbone", "return"}
    return {name: model[name] for name in sorted(names) if name in model}


def _temperature(run: FinishedRun) -> Temperature:
    """Fitted on validation; 1 where the run has no predictions of it."""
    return fitted_temperature(run.task, run.predictions("val")) if run.has_predictions("val") else Temperature()


def _card(run: FinishedRun, model: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """What a model card tells of the run: nothing that names a place on this machine."""
    known = {"experiment", "corpus", "seed", "data", "images", "versions", "selected", "val", "test", "ceiling"}
    card = {name: value for name, value in run.summary.items() if name in known}
    if card.get("selected"):
        card["selected"] = {name: value for name, value in card["selected"].items() if name != "checkpoint"}
    plain = {name: value for name, value in model.items() if isinstance(value, int | float | None)}
    reading = {name: data[name] for name in ("batch_size", "max_length", "max_crops", "images") if name in data}
    card["settings"] = {**plain, **reading, "optimizer": model.get("optimizer")}
    return card
