"""Zero-shot object detectors from transformers, behind one small interface."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForZeroShotObjectDetection, AutoProcessor

from mmib.base.devices import usable_device
from mmib.encoders.pretrained import settle_hub_mode
from mmib.schema import Box, ConfigError, EncoderError

DEFAULT_DETECTOR = "IDEA-Research/grounding-dino-tiny"
GROUNDING = ("grounding-dino", "mm-grounding-dino")
OWL = ("owlv2", "owlvit")


@dataclass(frozen=True)
class Detection:
    """An object detected in an image.

    Attributes:
        box: x0 y0 x1 y1 in pixels of the image.
        score: confidence of the detector, 0..1.
        phrase: the phrase that the object matches.
    """

    box: Box
    score: float
    phrase: str


class Detector(Protocol):
    """Detects objects named by phrases."""

    def detect(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """Return the objects in each image that match its phrases (one or more), in any order."""


class ZeroShotDetector:
    """A Grounding DINO or OWL detector.

    Args:
        name: a local folder, or a hub name.
        threshold: minimum score of an object; None for the default of the family: 0.25 (Grounding DINO) or 0.1 (OWL).
        device: the device to run on; None for a GPU if available.

    Raises:
        EncoderError: the model cannot be loaded, or is not of these families.
        ConfigError: the device cannot be used.
    """

    def __init__(self, name: str = DEFAULT_DETECTOR, threshold: float | None = None, device: str | None = None) -> None:
        settle_hub_mode()
        # A local folder must never cause a request to the hub, not even if a file is missing in it.
        # Code beside the weights is not run either: transformers would ask, and wait for an answer.
        local = {"local_files_only": Path(name).is_dir(), "trust_remote_code": False}
        try:
            family = AutoConfig.from_pretrained(name, **local).model_type
            if family not in (*GROUNDING, *OWL):
                known = ", ".join((*GROUNDING, *OWL))
                raise EncoderError(f"{name!r} is a {family}, not a supported zero-shot detector: choose one of {known}")
            self.processor: Any = AutoProcessor.from_pretrained(name, **local)
            model = AutoModelForZeroShotObjectDetection.from_pretrained(name, **local)
        # Damaged or mismatched weights raise RuntimeError and SafetensorError, unusual configurations KeyError,
        # AttributeError and TypeError.
        except (OSError, ValueError, RuntimeError, KeyError, AttributeError, TypeError, SafetensorError) as error:
            raise _not_loaded(name, error) from error
        self.grounding = family in GROUNDING
        self.options = {} if threshold is None else {"threshold": threshold}
        self.device = usable_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model: Any = model.eval().to(self.device)

    def detect(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """See `Detector.detect`; the result for an image does not depend on the other images.

        Raises:
            ConfigError: the images do not fit into memory together.
        """
        found: list[list[Detection]] = [[] for _ in images]
        # Grounding DINO pads to the largest image and does not mask all padding: only batch images of equal size.
        sizes = [image.size if self.grounding else None for image in images]
        for size in dict.fromkeys(sizes):
            numbers = [number for number, other in enumerate(sizes) if other == size]
            batch = self._together([images[number] for number in numbers], [phrases[number] for number in numbers])
            for number, detections in zip(numbers, batch, strict=True):
                found[number] = detections
        return found

    @torch.inference_mode()
    def _together(self, images: list[Image.Image], phrases: list[Sequence[str]]) -> list[list[Detection]]:
        sizes = [(image.height, image.width) for image in images]
        inputs = self._inputs(images, [list(names) for names in phrases]).to(self.device)
        try:
            outputs = self.model(**inputs)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"{len(images)} images do not fit into the memory of {self.device}: give a smaller --batch-size"
            ) from error
        ids = {"input_ids": inputs["input_ids"]} if self.grounding else {}
        results = self.processor.post_process_grounded_object_detection(
            outputs, **ids, target_sizes=sizes, **self.options
        )
        return [self._detections(result, names) for result, names in zip(results, phrases, strict=True)]

    def _inputs(self, images: list[Image.Image], phrases: list[list[str]]) -> Any:
        if self.grounding:
            return self.processor(images=images, text=phrases, padding=True, return_tensors="pt")
        # The processor would pad with blanks, which count as phrases and take boxes from the real ones.
        most = max(map(len, phrases))
        filled = [list(itertools.islice(itertools.cycle(names), most)) for names in phrases]
        length = self.model.config.text_config.max_position_embeddings
        return self.processor(
            images=images, text=filled, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )

    def _detections(self, result: Any, phrases: Sequence[str]) -> list[Detection]:
        scores, boxes = result["scores"].tolist(), result["boxes"].tolist()
        # Grounding DINO returns the words that a box matches, OWL the index of the phrase.
        names = (
            result["text_labels"] if self.grounding else [phrases[label % len(phrases)] for label in result["labels"]]
        )
        return [
            Detection((x0, y0, x1, y1), score, name)
            for (x0, y0, x1, y1), score, name in zip(boxes, scores, names, strict=True)
        ]


def _not_loaded(name: str, error: Exception) -> EncoderError:
    first = (str(error).strip().splitlines() or [""])[0][:160]
    if Path(name).is_dir():
        return EncoderError(
            f"the detector {name!r} could not be loaded from that folder ({type(error).__name__}: {first}): it needs "
            "config.json, preprocessor, tokenizer and weight files that belong together"
        )
    return EncoderError(
        f"the detector {name!r} could not be loaded: it is no local folder, it is not in the hub's local cache, and "
        f"the model hub did not answer ({type(error).__name__}: {first}). Give a local folder, or fill the cache on a "
        "machine with a network"
    )
