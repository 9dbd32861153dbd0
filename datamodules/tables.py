"""A compact table from string keys to numbers, for millions of keys."""

from __future__ import annotations

import hashlib

import numpy as np

HASH_BYTES = 16
# New entries wait in a dict until they exceed this number and a tenth of the sorted ones, so each moves few times.
FEWEST_WAITING = 1024


class HashedTable:
    """Integers by string key, in 24 bytes per entry; a dict of strings takes ten times as much.

    Only a 128-bit hash of a key is stored; collisions are negligible for any number of keys.
    """

    def __init__(self) -> None:
        self._hashes = np.empty(0, f"S{HASH_BYTES}")
        self._values = np.empty(0, np.int64)
        self._waiting: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._hashes) + len(self._waiting)

    def get(self, key: str) -> int | None:
        """Return the number of a key, or None."""
        hashed = _hash(key)
        waiting = self._waiting.get(hashed)
        return self._sorted_in(hashed) if waiting is None else waiting

    def setdefault(self, key: str, value: int) -> int:
        """Return the number of a key; if it has none, set it to `value`."""
        known = self.get(key)
        if known is not None:
            return known
        self._waiting[_hash(key)] = value
        if len(self._waiting) > max(FEWEST_WAITING, len(self._hashes) // 10):
            self._sort_in()
        return value

    def _sorted_in(self, hashed: bytes) -> int | None:
        place = int(np.searchsorted(self._hashes, hashed))
        # Compared as bytes: NumPy strips trailing zeros from its strings.
        if self._hashes[place : place + 1].tobytes() != hashed:
            return None
        return int(self._values[place])

    def _sort_in(self) -> None:
        hashes = np.concatenate([self._hashes, np.array(list(self._waiting), self._hashes.dtype)])
        values = np.concatenate([self._values, np.array(list(self._waiting.values()), np.int64)])
        self._waiting = {}
        order = np.argsort(hashes)
        self._hashes, self._values = hashes[order], values[order]


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=HASH_BYTES).digest()
