"""Options for the files of annotation tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmib.datamodules.convert.offsets import Unit


@dataclass(frozen=True)
class Options:
    """Options to read and write files of annotation tools.

    Attributes:
        offsets: unit of the offsets in the file; None for the default of its format.
        images: folder of the images; if given, images get the names that they have there.
        text_field, image_field: Label Studio: the fields of `data` with text and image; None to detect them.
        from_name, to_name: Label Studio: names of the tags of labels and text in the labelling configuration; None
            to use the only ones.
        image_prefix: prefix of the names of images in the output.
        posts: the posts that were the input of `mmib extract`, to get the images from.
    """

    offsets: Unit | None = None
    images: Path | None = None
    text_field: str | None = None
    image_field: str | None = None
    from_name: str | None = None
    to_name: str | None = None
    image_prefix: str = ""
    posts: Path | None = None
