"""What a person may say of the files of annotation tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmib.datamodules.convert.offsets import Unit


@dataclass(frozen=True)
class Options:
    """How files of annotation tools are read and written.

    Attributes:
        offsets: what the tool's offsets count; None for what the tool counts by default.
        images: folder of the images; where it is given, images are named as they are there.
        text_field, image_field: Label Studio: the fields of `data` that hold text and image; None to look for them.
        from_name, to_name: Label Studio: names of the tags of labels and text in the labelling configuration; None
            to take the only ones there are.
        image_prefix: what is put in front of the names of images when they are written.
        posts: the posts that were given to `mmib extract`, to take the images from.
    """

    offsets: Unit | None = None
    images: Path | None = None
    text_field: str | None = None
    image_field: str | None = None
    from_name: str | None = None
    to_name: str | None = None
    image_prefix: str = ""
    posts: Path | None = None
