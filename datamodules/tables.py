"""Numbers by key, for millions of keys."""

from __future__ import annotations

import hashlib

import numpy as np

HASH_BYTES = 16
# So many entries wait in a dict before they are sorted in, or a tenth of what is there: each is moved a few times.
FEWEST_WAITING = 1024


class HashedTable:
    """Whole numbers by key, in 24 bytes an entry: a dict of strings takes ten times that.

    Keys are known by 128 bits of their hash. Those of a set of any size differ.
    """

    def __init__(self) -> None:
        self._hashes = np.empty(0, f"S{HASH_BYTES}")
        self._values = np.empty(0, np.int64)
        self._waiting: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._hashes) + len(self._waiting)

    def get(self, key: str) -> int | None:
        """The number of a key, or None."""
        hashed = _hash(key)
        waiting = self._waiting.get(hashed)
        return self._sorted_in(hashed) if waiting is None else waiting

    def setdefault(self, key: str, value: int) -> int:
        """The number of a key, which is `value` from now on where it had none."""
        known = self.get(key)
        if known is not None:
            return known
        self._waiting[_hash(key)] = value
        if len(self._waiting) > max(FEWEST_WAITING, len(self._hashes) // 10):
            self._sort_in()
        return value

    def _sorted_in(self, hashed: bytes) -> int | None:
        place = int(np.searchsorted(self._hashes, hashed))
        # As bytes: numpy takes zeros off the end of its strings.
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
