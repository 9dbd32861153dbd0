"""The crops of a split on disk: files are never partial, and a record lets an interrupted run resume."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mmib.base.files import atomic_file, write_text
from mmib.crop_objects.boxes import Pixels
from mmib.crop_objects.detector import Detection
from mmib.crop_objects.plan import Key, Request
from mmib.datamodules.crops import CropFiles, read_json_object, write_crop_dictionary
from mmib.schema import ConfigError, DataError

RECORD = "objects.json"
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Settings:
    """Settings that determine which crops are made.

    Attributes:
        detector: name of the detector.
        threshold: minimum score, or None for the detector's default.
        phrases: `nouns` or `types`.
        objects: maximum number of crops per image.
        format: `png` or `jpg`.
    """

    detector: str
    threshold: float | None
    phrases: str
    objects: int
    format: str


class CropStore:
    """The objects found in the images of a split so far.

    Args:
        files: where the crops are written.
        settings: the settings of this run.

    Raises:
        DataError: the split has crops that were not made by this command, or a damaged record.
        ConfigError: its crops were made with other settings.
    """

    def __init__(self, files: CropFiles, settings: Settings) -> None:
        self.files = files
        self.settings = settings
        self.record = files.folder / RECORD
        self.results: dict[str, dict[str, Any]] = {}
        if self.record.is_file():
            self.results = self._read()
        elif files.dictionary.exists() or files.boxes.exists():
            existing = files.dictionary if files.dictionary.exists() else files.boxes
            raise DataError(
                f"{existing} exists and was not made by mmib crop-objects: move it and its crops away first"
            )

    def _read(self) -> dict[str, dict[str, Any]]:
        content = read_json_object(self.record)
        settings, results = content.get("settings"), content.get("images")
        if (
            not isinstance(settings, dict)
            or not isinstance(results, dict)
            or not all(map(_is_result, results.values()))
        ):
            raise DataError(f"{self.record} is no record of mmib crop-objects: delete it and {self.files.crops}")
        for name, value in asdict(self.settings).items():
            if settings.get(name) != value:
                raise ConfigError(
                    f"the crops in {self.files.folder} were made with the {name} {settings.get(name)!r}, not {value!r}"
                    f": move {self.files.folder} and {self.files.dictionary} away, or use the same"
                )
        return results

    def is_finished(self, request: Request) -> bool:
        """Whether an image has been searched and its crops still exist; failed images are tried again."""
        result = self.results.get(request.name)
        if result is None or result["failure"] is not None:
            return False
        return all((self.files.crops / one["crop"]).is_file() for one in result["objects"])

    def add(self, request: Request, image: Image.Image, objects: Sequence[tuple[Pixels, Detection]]) -> None:
        """Save the crops of an image; there may be none."""
        kept = []
        for number, (pixels, detection) in enumerate(objects):
            name = f"{request.name}-{number}.{self.settings.format}"
            with atomic_file(self.files.crops / name) as file:
                image.crop(pixels).save(file, "JPEG" if self.settings.format == "jpg" else "PNG", quality=JPEG_QUALITY)
            box, score = pixels.relative(*image.size), round(detection.score, 4)
            kept.append({"crop": name, "box": box, "score": score, "phrase": detection.phrase})
        self._keep(request, kept, None)

    def fail(self, request: Request, reason: str) -> None:
        """Record why an image could not be searched."""
        self._keep(request, [], reason)

    def _keep(self, request: Request, objects: list[dict[str, Any]], failure: str | None) -> None:
        self.results[request.name] = {
            "image": request.image,
            "phrases": list(request.phrases),
            "objects": objects,
            "failure": failure,
        }

    def save(self) -> None:
        """Write the record, from which a later run resumes."""
        content = {"settings": asdict(self.settings), "images": self.results}
        write_text(self.record, json.dumps(content, indent=1) + "\n")

    def publish(self, requests: Mapping[Key, Request]) -> None:
        """Write the files that data modules read: the boxes, then the dictionary of crops."""
        found = {key: self.results[request.name]["objects"] for key, request in requests.items()}
        boxes = {one["crop"]: one["box"] for objects in found.values() for one in objects}
        write_text(self.files.boxes, json.dumps(boxes, indent=1) + "\n")
        names = {key: [one["crop"] for one in objects] for key, objects in found.items()}
        write_crop_dictionary(self.files.dictionary, names)


def _is_result(result: Any) -> bool:
    if not isinstance(result, dict) or not {"image", "phrases", "objects", "failure"} <= result.keys():
        return False
    objects = result["objects"]
    return isinstance(objects, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("crop"), str)
        and Path(one["crop"]).name == one["crop"]
        and isinstance(one.get("box"), list)
        for one in objects
    )
