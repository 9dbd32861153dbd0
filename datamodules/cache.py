"""Features of a frozen encoder of images or side texts, computed once and memory-mapped."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from mmib.base.files import atomic_file, checksum, locked, parse_json, write_text
from mmib.base.timing import clock
from mmib.datamodules.files import Digests
from mmib.datamodules.images import UnreadableImageError, batches_ahead, decoders, read_image
from mmib.datamodules.tables import HashedTable
from mmib.encoders.image import ImageEncoder
from mmib.encoders.side_text import SideTextEncoder
from mmib.schema import DataError, Picture

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
EncoderT = TypeVar("EncoderT", bound=ImageEncoder | SideTextEncoder)

FORMAT = 1
SHARD_ITEMS = 1024
BATCH_ITEMS = 32
# A cache index holds the number of a shard and, in the lower bits, a row of the shard.
ROW_BITS = 32
ROW_MASK = (1 << ROW_BITS) - 1


class MappedFeatures:
    """The features of shards, by cache index. A copy in another process maps the files anew."""

    def __init__(self) -> None:
        self._files: list[Path] = []
        self._arrays: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._files)

    def __getstate__(self) -> list[Path]:
        return self._files

    def __setstate__(self, files: list[Path]) -> None:
        self._files = files
        self._arrays = [mapped(file) for file in files]

    def append(self, file: Path, features: np.ndarray) -> None:
        """Add a shard."""
        self._files.append(file)
        self._arrays.append(features)

    def at(self, index: int) -> np.ndarray:
        """(G, V) float16 features at a cache index."""
        features: np.ndarray = self._arrays[index >> ROW_BITS][index & ROW_MASK]
        return features

    def of(self, pictures: Sequence[Picture]) -> torch.Tensor | None:
        """(R, V) features of the regions of images and crops, or None if there are none."""
        if not pictures:
            return None
        return torch.from_numpy(np.concatenate([self.at(picture.cache_index) for picture in pictures]))


class FeatureCache(ABC, Generic[ItemT, EncoderT]):
    """Features of items by their content, for one encoder, its weights and everything else that features depend on.

    The folder holds immutable shards: `<name>.npy`, float16 features (n, G, V), and `<name>.json` with the key of each
    item and the checksum of the features. A shard is valid once its JSON file exists, which is written last. An
    interrupted build thus loses at most one shard, and splits, runs and processes share all shards. A lock serialises
    builds.

    Args:
        root: folder of all caches; each encoder has its own folder in it.
        encoder: the frozen encoder; it runs only on items that are not in any shard.

    Attributes:
        mapped: the cached features, by cache index.
    """

    items: ClassVar[str]

    def __init__(self, root: Path, encoder: EncoderT) -> None:
        self.root = root
        self.encoder = encoder
        self._shards: set[Path] = set()
        self.mapped = MappedFeatures()
        self._indices = HashedTable()

    @cached_property
    def folder(self) -> Path:
        """The folder of this encoder's features."""
        key = hashlib.sha256(f"{FORMAT} {self.encoder.fingerprint()}".encode()).hexdigest()[:16]
        return self.root / f"{self.encoder.name.replace(':', '-').replace('/', '-')}-{key}"

    def _fill(self, keyed: Callable[[], Iterable[tuple[str, ItemT]]]) -> dict[str, str]:
        """Compute the features of items that are not in any shard.

        Args:
            keyed: returns items with their keys, which depend on the content.

        Returns:
            {key: reason} of items that cannot be encoded.

        Raises:
            DataError: the cache folder cannot be written.
        """
        self._read_shards()
        if all(self._indices.get(key) is not None for key, _ in keyed()):
            return {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / "lock"):
                self._read_shards()
                return self._compute({key: item for key, item in keyed() if self._indices.get(key) is None})
        except OSError as error:
            raise DataError(
                f"the feature cache {self.folder} cannot be written: {error}; "
                "choose another folder with --data.cache_dir"
            ) from error

    def _compute(self, items: dict[str, ItemT]) -> dict[str, str]:
        """Encode {key: item} into new shards; return {key: reason} of items that cannot be encoded."""
        failures: dict[str, str] = {}
        pending = list(items.items())
        what = f"{self.items} features"
        with (
            clock.phase(what),
            tqdm(total=len(pending), desc=what, unit=self.items, disable=not pending) as bar,
        ):
            for start in range(0, len(pending), SHARD_ITEMS):
                keys, features = [], []
                for key, feature in self._encode(pending[start : start + SHARD_ITEMS], failures, bar):
                    keys.append(key)
                    features.append(feature)
                if keys:
                    self._write_shard(keys, np.stack(features))
        self._read_shards()
        return failures

    @abstractmethod
    def _encode(
        self, items: list[tuple[str, ItemT]], failures: dict[str, str], bar: tqdm[Any]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield keys and (G, V) float16 features of items; add those that cannot be encoded to {key: reason}."""

    def _write_shard(self, hashes: list[str], features: np.ndarray) -> None:
        name = hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]
        path = self.folder / f"{name}.npy"
        with atomic_file(path) as file:
            np.save(file, features)
        description = {"hashes": hashes, "sha256": checksum(path)}
        write_text(self.folder / f"{name}.json", json.dumps(description))

    def _read_shards(self) -> None:
        """Map the shards that are new since the last call; damaged ones are skipped, and so computed again."""
        for path in sorted(self.folder.glob("*.json")):
            if path in self._shards:
                continue
            array = path.with_suffix(".npy")
            try:
                description = parse_json(path.read_text(encoding="utf-8"))
                if checksum(array) != description["sha256"]:
                    raise ValueError("the checksum does not match")
                features, hashes = mapped(array), description["hashes"]
                if len(hashes) != len(features) or not all(isinstance(digest, str) for digest in hashes):
                    raise ValueError("its description does not match it")
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("the feature cache file %s is damaged and is computed again: %s", array, error)
                continue
            self._shards.add(path)
            for number, digest in enumerate(hashes):
                # An item in two shards keeps its first index, which may be in use.
                self._indices.setdefault(digest, len(self.mapped) << ROW_BITS | number)
            self.mapped.append(array, features)


class ImageFeatureCache(FeatureCache[Path, ImageEncoder]):
    """A `FeatureCache` of images, by the content of their files."""

    items = "image"

    def __init__(self, root: Path, encoder: ImageEncoder) -> None:
        super().__init__(root, encoder)
        self.digests = Digests()

    def build(self, files: Sequence[Path]) -> dict[Path, str]:
        """Compute the features of every readable file that are not in any shard.

        Returns:
            {file: reason} of the files that cannot be decoded.

        Raises:
            DataError: the cache folder cannot be written.
        """
        unreadable = self._fill(lambda: ((self.digests[file], file) for file in files))
        return {file: unreadable[self.digests[file]] for file in files if self.digests[file] in unreadable}

    def index(self, file: Path) -> int:
        """Index in `mapped` of the features of a file that `build` could read; files of the same content share it.

        Raises:
            KeyError: the features are not cached.
        """
        index = self._indices.get(self.digests[file])
        if index is None:
            raise KeyError(file)
        return index

    def features(self, file: Path) -> np.ndarray:
        """(G, V) float16 features of a file that `build` could read."""
        return self.mapped.at(self.index(file))

    def _encode(
        self, items: list[tuple[str, Path]], failures: dict[str, str], bar: tqdm[Any]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Encode in batches on the encoder's device, while threads decode the next batch."""
        with ThreadPoolExecutor(max_workers=decoders()) as pool:
            for batch in batches_ahead(pool, self._decoded, items, BATCH_ITEMS):
                bar.update(len(batch))
                failures |= {digest: decoded for digest, decoded in batch if isinstance(decoded, str)}
                readable = [(digest, decoded) for digest, decoded in batch if not isinstance(decoded, str)]
                if readable:
                    pixels = torch.stack([decoded for _, decoded in readable])
                    encoded = self.encoder.features(pixels).to(torch.float16).numpy()
                    yield from zip((digest for digest, _ in readable), encoded, strict=True)

    def _decoded(self, item: tuple[str, Path]) -> tuple[str, torch.Tensor | str]:
        """Hash and pixels of a keyed file, or the reason why it cannot be decoded."""
        digest, file = item
        try:
            return digest, self.encoder.transform(read_image(file))
        except UnreadableImageError as error:
            return digest, str(error)


class TextFeatureCache(FeatureCache[str, SideTextEncoder]):
    """A `FeatureCache` of side texts, by their content; each region has its own index."""

    items = "text"

    def build(self, texts: Iterable[str]) -> None:
        """Compute the features of every text that are not in any shard.

        Raises:
            DataError: the cache folder cannot be written.
        """
        distinct = sorted(set(texts), key=len)  # little padding
        self._fill(lambda: ((text_digest(text), text) for text in distinct))

    def indices(self, text: str) -> list[int]:
        """Index in `mapped` of each region of a text that was passed to `build`."""
        key = text_digest(text)
        regions = (self._indices.get(_region_key(key, number)) for number in itertools.count())
        return list(itertools.takewhile(lambda index: index is not None, regions))  # type: ignore[arg-type]

    def _encode(
        self, items: list[tuple[str, str]], failures: dict[str, str], bar: tqdm[Any]
    ) -> Iterator[tuple[str, np.ndarray]]:
        for start in range(0, len(items), BATCH_ITEMS):
            batch = items[start : start + BATCH_ITEMS]
            for (key, _), regions in zip(batch, self.encoder.text_features([text for _, text in batch]), strict=True):
                for number, region in enumerate(regions.to(torch.float16).numpy()):
                    yield _region_key(key, number), region[None]
            bar.update(len(batch))


def text_digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _region_key(text: str, number: int) -> str:
    """Key of a region of a text; the first region has the key of the text."""
    return f"{text}/{number}" if number else text


def mapped(path: Path) -> np.ndarray:
    """Map the array of a NumPy file, read-only.

    NumPy's `mmap_mode` keeps a file open for each array, and most systems limit a process to about a thousand open
    files, which is the number of shards of a million images. PyTorch closes the file.

    Raises:
        ValueError: the file is no such NumPy file.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
    if version != (1, 0) or dtype.hasobject:
        raise ValueError("it is no plain NumPy file")
    content = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8).numpy()
    array: np.ndarray = content[start:].view(dtype).reshape(shape)
    array.flags.writeable = False
    return array
