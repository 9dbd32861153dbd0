"""Side texts of images, such as captions, from JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from reprlib import repr as shortened
from typing import NamedTuple

from mmib.base.wording import counted
from mmib.datamodules.image_lines import ByImage, ImageLine, image_lines
from mmib.labels import shown
from mmib.schema import DataError

LAYOUT = (
    'one image a line: {"image": "1.jpg", "captions": {"blip": "a dog"}} or {"image": "1.jpg", "text": "a dog"} '
    "(docs/how-to/data.md)"
)


class NamedText(NamedTuple):
    """A text with the model that wrote it; None if the file does not name the model."""

    model: str | None
    text: str


class SideTexts:
    """The side texts of each image of a file.

    Args:
        file: JSON lines, each `{"image": name, "captions": {model: text}}` or `{"image": name, "text": text}`. An
            image may have several lines, whose distinct texts are all kept.
        models: models whose captions are used, in this order; None uses all. A plain `text` is always used.

    Attributes:
        empty: number of texts without a word, which are left out.
        repeated: number of images in several lines with different texts.

    Raises:
        DataError: the file cannot be read, a line is malformed, or the file holds no text or no text of a model.
    """

    def __init__(self, file: Path, models: Sequence[str] | None = None) -> None:
        self.file = file
        self.models = None if models is None else list(models)
        self.empty = self.repeated = 0
        self._texts: dict[str, list[str]] = {}
        known: set[str] = set()
        repeated: set[str] = set()
        for line in image_lines(file, LAYOUT):
            image, texts = line.image, _texts(line)
            known |= {model for model, _ in texts if model is not None}
            self.empty += sum(not text.strip() for _, text in texts)
            chosen = list(dict.fromkeys(self._chosen(texts)))
            before = self._texts.get(image)
            if not before:  # an image without a text so far is not named with different ones
                self._texts[image] = chosen
            elif new := [text for text in chosen if text not in before]:
                before += new
                repeated.add(image)
        self.repeated = len(repeated)
        absent = [model for model in self.models or () if model not in known]
        if absent:
            raise DataError(
                f"{file} has no captions of {shown(absent)}: choose side_text_models from "
                f"{shown(sorted(known)) or 'none, since its texts name no model'}"
            )
        if not any(self._texts.values()):
            raise DataError(f"{file} holds no text of any image: expected {LAYOUT}")
        self._by_image = ByImage(file, {image: tuple(texts) for image, texts in self._texts.items() if texts})

    def __len__(self) -> int:
        return len(self._texts)

    def of(self, image: str) -> tuple[str, ...]:
        """The texts of an image, by its name with or without the ending; empty if it has none."""
        return self._by_image.get(image) or ()

    def images(self) -> list[str]:
        """The images that the file names."""
        return list(self._texts)

    def note(self) -> str:
        """A summary of the file."""
        texts = sum(map(len, self._texts.values()))
        parts = [f"{counted(texts, 'texts')} of {counted(len(self), 'images')} in {self.file.name}"]
        if without := sum(not of_image for of_image in self._texts.values()):
            parts.append(counted(without, "images without a text"))
        if self.repeated:
            parts.append(counted(self.repeated, "images named more than once with different texts, all kept"))
        if self.empty:
            parts.append(f"{self.empty:,} empty left out")
        return ", ".join(parts)

    def check_common(self, images: Sequence[str], where: str) -> None:
        """Check that the texts belong to this data set; see `ByImage.check_common`."""
        self._by_image.check_common(images, where, "text")

    def _chosen(self, texts: Sequence[NamedText]) -> Iterator[str]:
        """The texts of an image that are used, without those that have no word."""
        named = {model: text for model, text in texts if model is not None}
        plain = [text for model, text in texts if model is None]
        taken = [*(named.get(model, "") for model in (named if self.models is None else self.models)), *plain]
        return (" ".join(text.split()) for text in taken if text.strip())


def _texts(line: ImageLine) -> list[NamedText]:
    """The texts of a line.

    Raises:
        DataError: the texts are malformed; the message names file and line.
    """
    place, _, row = line
    captions = row.get("captions", {})
    if ("text" in row) == ("captions" in row) or not isinstance(captions, dict):
        raise DataError(f"{place}: give an image either 'captions', an object, or 'text'; expected {LAYOUT}")
    texts = [NamedText(model, text) for model, text in captions.items()]
    texts += [NamedText(None, row["text"])] if "text" in row else []
    for model, text in texts:
        if not isinstance(text, str):
            raise DataError(f"{place}: the text {f'of {model} ' if model else ''}is {shortened(text)}, no string")
    return texts
