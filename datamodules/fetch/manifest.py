"""The downloads of `mmib fetch-data`: addresses, sizes and checksums from `manifest.json`."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmib.datamodules.mnre_files import MNREReader
from mmib.datamodules.readers import Reader
from mmib.datamodules.twitter_files import TwitterReader

MANIFEST = Path(__file__).with_name("manifest.json")
READERS: dict[str, Callable[[Path], Reader]] = {
    "twitter2015": functools.partial(TwitterReader, year=2015),
    "twitter2017": functools.partial(TwitterReader, year=2017),
    "mnre": MNREReader,
}


@dataclass(frozen=True)
class Download:
    """A file to download.

    Attributes:
        file: its name, which is also its address below a mirror.
        address: its address on the authors' site.
        sha256: its checksum; None if the file was not read when the manifest was written.
        size: its size in bytes; None if it is unknown.
    """

    file: str
    address: str
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class TextDownload(Download):
    """The text of a split.

    Attributes:
        path: its path below the root of the data set.
    """

    path: str = ""


@dataclass(frozen=True)
class CaptionDownload(Download):
    """Machine captions of images.

    Attributes:
        model: model that wrote them.
        format: a key of `mmib.datamodules.fetch.captions.PARSERS`.
    """

    model: str = ""
    format: str = ""


@dataclass(frozen=True)
class DataSet:
    """A released data set.

    Attributes:
        name: its name on the command line.
        title: its usual name.
        terms: terms that its users accept.
        texts: texts of the splits.
        images: an archive with the images, and perhaps those of other data sets.
        captions_terms: additional terms of the captions.
        captions: the files of captions.
    """

    name: str
    title: str
    terms: str
    texts: tuple[TextDownload, ...]
    images: Download
    captions_terms: str
    captions: tuple[CaptionDownload, ...]

    def reader(self, root: Path) -> Reader:
        """Return a reader of the data set in a folder."""
        return READERS[self.name](root)


def data_set(name: str) -> DataSet:
    """Return the data set with a name in `READERS`."""
    facts: dict[str, Any] = json.loads(MANIFEST.read_text(encoding="utf-8"))["sets"][name]
    return DataSet(
        name=name,
        title=facts["title"],
        terms=facts["terms"],
        texts=tuple(TextDownload(**text) for text in facts["texts"]),
        images=Download(**facts["images"]),
        captions_terms=facts["captions_terms"],
        captions=tuple(CaptionDownload(**captions) for captions in facts["captions"]),
    )
