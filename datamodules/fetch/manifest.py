"""What `mmib fetch-data` downloads: addresses, sizes and checksums, which `manifest.json` holds."""

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
        address: where its authors put it.
        sha256: its checksum; None where the file was not read when the manifest was written.
        size: in bytes; None where it is not known.
    """

    file: str
    address: str
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class TextDownload(Download):
    """The text of a split.

    Attributes:
        path: where readers expect it below the root of the data set.
    """

    path: str = ""


@dataclass(frozen=True)
class CaptionDownload(Download):
    """Machine captions of images.

    Attributes:
        model: what wrote them.
        format: a key of `mmib.datamodules.fetch.captions.PARSERS`.
    """

    model: str = ""
    format: str = ""


@dataclass(frozen=True)
class DataSet:
    """A released data set.

    Attributes:
        name: as the command line has it.
        title: as people write it.
        terms: what its users accept.
        texts: the splits.
        images: an archive of the images, and perhaps of those of other sets.
        captions_terms: what users of the captions accept beside.
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
        """What reads the data set from a folder."""
        return READERS[self.name](root)


def data_set(name: str) -> DataSet:
    """The data set of a name among `READERS`."""
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
