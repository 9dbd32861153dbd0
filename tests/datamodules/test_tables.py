"""Numbers by key: what a dict would give, also across the moments at which entries are sorted in."""

from __future__ import annotations

import random

import pytest

from mmib.datamodules import tables
from mmib.datamodules.tables import HashedTable


def test_a_table_gives_what_a_dict_gives(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_hashes_that_end_in_zeros_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy compares its strings without the zeros at their end."""
    hashes = {key: bytes(key, "ascii").ljust(tables.HASH_BYTES, b"\0") for key in ("", "a", "ab", "b")}
    monkeypatch.setattr(tables, "_hash", hashes.__getitem__)
    monkeypatch.setattr(tables, "FEWEST_WAITING", 1)
    table = HashedTable()
    for number, key in enumerate(hashes):
        table.setdefault(key, number)
    assert [table.get(key) for key in hashes] == [0, 1, 2, 3]
