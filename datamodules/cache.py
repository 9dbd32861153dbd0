"""Features of a frozen image encoder, computed once and memory-mapped."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mmib.base.files import atomic_file, checksum, locked, parse_json, write_text
from mmib.datamodules.files import Digests
from mmib.datamodules.images import UnreadableImageError, decoders, read_image
from mmib.datamodules.tables import HashedTable
from mmib.encoders.image import ImageEncoder
from mmib.schema import DataError, Example

log = logging.getLogger(__name__)

FORMAT = 1
SHARD_IMAGES = 1024
BATCH_IMAGES = 32
# An index is the number of its shard and, in the lower bits, the row there.
ROW_BITS = 32
ROW_MASK = (1 << ROW_BITS) - 1


class MappedFeatures:
    """The features of shards, by cache index. A copy in another process maps the files itself."""

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

    def of(self, example: Example) -> torch.Tensor | None:
        """(R, V) features of a row's regions, or None where it has no pictures."""
        if not example.pictures:
            return None
        return torch.from_numpy(np.concatenate([self.at(picture.cache_index) for picture in example.pictures]))


class ImageFeatureCache:
    """Features by image content, for one encoder with its weights, transform and regions.

    The folder holds immutable shards: `<name>.npy`, float16 features (n, G, V), and `<name>.json` with the content
    hash of each image and the checksum of the features. A shard counts once it has its JSON file, which is
    written last; so a build that is killed loses at most one shard, and splits, runs and processes share all shards.
    Builders take turns by a lock.

    Args:
        root: folder of all caches; each encoder has a folder in it.
        encoder: the frozen encoder; runs only for images that no shard holds.

    Attributes:
        mapped: what it holds, by cache index.
    """

    def __init__(self, root: Path, encoder: ImageEncoder) -> None:
        self.root = root
        self.encoder = encoder
        self._shards: set[Path] = set()
        self.mapped = MappedFeatures()
        self._indices = HashedTable()
        self.digests = Digests()

    @cached_property
    def folder(self) -> Path:
        """The folder of this encoder's features."""
        key = hashlib.sha256(f"{FORMAT} {self.encoder.fingerprint()}".encode()).hexdigest()[:16]
        return self.root / f"{self.encoder.name.replace(':', '-').replace('/', '-')}-{key}"

    def build(self, files: Sequence[Path]) -> dict[Path, str]:
        """Compute the features of every readable file that no shard holds.

        Returns:
            {file: reason} of the files that cannot be decoded.

        Raises:
            DataError: the cache folder cannot be written.
        """
        self._read_shards()
        if all(self._indices.get(self.digests[file]) is not None for file in files):
            return {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / "lock"):
                self._read_shards()
                contents = ((self.digests[file], file) for file in files)
                distinct = {digest: file for digest, file in contents if self._indices.get(digest) is None}
                unreadable = self._compute(distinct)
        except OSError as error:
            raise DataError(
                f"the feature cache {self.folder} cannot be written: {error}; "
                "choose another folder with --data.cache_dir"
            ) from error
        return {file: unreadable[self.digests[file]] for file in files if self.digests[file] in unreadable}

    def index(self, file: Path) -> int:
        """Index in `mapped` of the features of a file that `build` could read, or of another one with the same content.

        Raises:
            KeyError: the cache does not hold them.
        """
        index = self._indices.get(self.digests[file])
        if index is None:
            raise KeyError(file)
        return index

    def features(self, file: Path) -> np.ndarray:
        """(G, V) float16 features of a file that `build` could read."""
        return self.mapped.at(self.index(file))

    def _compute(self, files: dict[str, Path]) -> dict[str, str]:
        """Encode {hash: file} into new shards; {hash: reason} of unreadable ones."""
        unreadable: dict[str, str] = {}
        pending = list(files.items())
        with tqdm(total=len(pending), desc="image features", unit="image", disable=not pending) as bar:
            for start in range(0, len(pending), SHARD_IMAGES):
                hashes, features = [], []
                for digest, feature in self._encode(pending[start : start + SHARD_IMAGES], unreadable, bar):
                    hashes.append(digest)
                    features.append(feature)
                if hashes:
                    self._write_shard(hashes, np.stack(features))
        self._read_shards()
        return unreadable

    def _encode(
        self, files: list[tuple[str, Path]], unreadable: dict[str, str], bar: tqdm[Any]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Encode in batches on the encoder's device, while threads decode the next batch."""
        with ThreadPoolExecutor(max_workers=decoders()) as pool:
            for batch in self._decode(files, pool):
                bar.update(len(batch))
                unreadable |= {digest: decoded for digest, decoded in batch if isinstance(decoded, str)}
                readable = [(digest, decoded) for digest, decoded in batch if not isinstance(decoded, str)]
                if readable:
                    pixels = torch.stack([decoded for _, decoded in readable])
                    encoded = self.encoder.features(pixels).to(torch.float16).numpy()
                    yield from zip((digest for digest, _ in readable), encoded, strict=True)

    def _decode(
        self, files: list[tuple[str, Path]], pool: ThreadPoolExecutor
    ) -> Iterator[list[tuple[str, torch.Tensor | str]]]:
        """Batches of hashes with pixels, or the reason why there are none; the next batch is decoded meanwhile."""

        def decode(file: Path) -> torch.Tensor | str:
            try:
                return self.encoder.transform(read_image(file))
            except UnreadableImageError as error:
                return str(error)

        pending: deque[list[tuple[str, Future[torch.Tensor | str]]]] = deque()
        for start in range(0, len(files), BATCH_IMAGES):
            batch = files[start : start + BATCH_IMAGES]
            pending.append([(digest, pool.submit(decode, file)) for digest, file in batch])
            if len(pending) > 1:
                yield [(digest, decoded.result()) for digest, decoded in pending.popleft()]
        for last_batch in pending:
            yield [(digest, decoded.result()) for digest, decoded in last_batch]

    def _write_shard(self, hashes: list[str], features: np.ndarray) -> None:
        name = hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]
        path = self.folder / f"{name}.npy"
        with atomic_file(path) as file:
            np.save(file, features)
        description = {"hashes": hashes, "sha256": checksum(path)}
        write_text(self.folder / f"{name}.json", json.dumps(description))

    def _read_shards(self) -> None:
        """Map the shards that are new since the last call; damaged ones are left out, and so computed again."""
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
                # An image in two shards keeps its index, which may be in use.
                self._indices.setdefault(digest, len(self.mapped) << ROW_BITS | number)
            self.mapped.append(array, features)


def mapped(path: Path) -> np.ndarray:
    """The array of a NumPy file, mapped and not writable.

    NumPy's `mmap_mode` keeps a file open for each array, and a process may have a thousand open files on most systems:
    the shards of a million images. PyTorch closes it.

    Raises:
        ValueError: it is no such file.
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
