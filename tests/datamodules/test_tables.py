"""Numbers by key: equivalent to a dict, also while entries are being merged."""

from __future__ import annotations

import random

import pytest

from mmib.datamodules import tables
from mmib.datamodules.tables import HashedTable


def test_a_table_is_equivalent_to_a_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "FEWEST_WAITING", 3)
    rng, table, known = random.Random(0), HashedTable(), dict[str, int]()
    for value in range(500):
        key = str(rng.randrange(200))
        assert table.get(key) == known.get(key)
        assert table.setdefault(key, value) == known.setdefault(key, value)
        assert len(table) == len(known)
    assert {key: table.get(key) for key in known} == known
    assert table.get("200") is None
    assert HashedTable().get("") is None


def test_hashes_with_trailing_zeros_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy strips trailing zeros when it compares strings."""
    hashes = {key: bytes(key, "ascii").ljust(tables.HASH_BYTES, b"\0") for key in ("", "a", "ab", "b")}
    monkeypatch.setattr(tables, "_hash", hashes.__getitem__)
    monkeypatch.setattr(tables, "FEWEST_WAITING", 1)
    table = HashedTable()
    for number, key in enumerate(hashes):
        table.setdefault(key, number)
    assert [table.get(key) for key in hashes] == [0, 1, 2, 3]
