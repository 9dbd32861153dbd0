"""Mutations of files, as from damage or malice."""

from __future__ import annotations

import copy
import datetime
import random
from collections.abc import Sequence
from typing import Any

# Bytes that have broken readers of all kinds: nesting, huge numbers, half characters, other line endings and formats.
TOKENS: tuple[bytes, ...] = (
    *(
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\n\n",
        b"\t",
        b"\t\t",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"\xed\xa0\x80",
    ),
    *(
        b"[" * 5000,
        b"{" * 300,
        b"(" * 300,
        b"-" * 4000,
        b"[[[",
        b"]]]",
        b"{'a':",
        b'{"a":',
        b"'",
        b'"',
        b"\\",
        b"#",
        b"%",
    ),
    *(
        b"9" * 5000,
        b"0x" + b"f" * 5000,
        b"1e999",
        b"-1",
        b"NaN",
        b"Infinity",
        b"null",
        b"None",
        b"True",
        b"1_0",
        b"1:99",
    ),
    *(
        b"2024-13-45",
        b"0o7",
        b"!!python/object/apply:os.mkdir [x]",
        b"!!int x",
        b"!!set {a}",
        b"!!binary x",
        b"&a [*a]",
    ),
    *(
        b"*a",
        b"<<: ",
        b"- - - -",
        b": ",
        b"? ",
        b"---\n",
        b"...\n",
        b"|\n",
        b">\n",
        b"IMGID:",
        b"O",
        b"B-PER",
        b"I-OTHER",
    ),
    *(b"../../", b"/etc/passwd", b"__import__('os')", b"f'{1}'", b"1+1j", b"b'x'", b"*x", b"lambda: 0", b"a" * 3000),
)

ODD_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2**31,
        2**63,
        -(2**63),
        10**5000,
        10**400,
        10**9,
        0.5,
        1.0000001,
        1e-300,
        1e300,
        123456789,
        float("nan"),
        float("inf"),
        -0.0,
    ),
    *(
        "",
        " ",
        "\0",
        "a" * 3000,
        "\ud800",
        "\u2028",
        "\ufe0f",
        "../../x",
        "/x",
        "https://x",
        "None",
        "O",
        "B-PER",
        "1",
        "²",
    ),
    *(
        [],
        {},
        (),
        [[]],
        [None],
        {"a": None},
        b"",
        b"x",
        1j,
        datetime.date(2024, 1, 1),
        {1, 2},
        {(1, 2): 3},
        ["a"] * 300,
    ),
)


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Apply a few random changes to a file's bytes."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = _changed(rng, data)
    return data


def _changed(rng: random.Random, data: bytes) -> bytes:
    start, end = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
    # Usually a small region, so that the rest of the file stays intact.
    end = end if rng.random() < 0.3 else min(end, start + rng.randint(1, 8))
    before, part, behind = data[:start], data[start:end], data[end:]
    elsewhere = rng.randint(0, len(data))
    return rng.choice(
        (
            before + rng.choice(TOKENS) + part + behind,
            before + rng.choice(TOKENS) + behind,
            before + rng.randbytes(len(part)) + behind,
            before + bytes(byte ^ 1 << rng.randrange(8) for byte in part) + behind,
            before + behind,
            before + part * rng.randint(2, 20) + behind,
            data[:elsewhere] + part + data[elsewhere:],
            before + part,
            part + behind,
        )
    )


def mutate_tree(rng: random.Random, tree: Any) -> Any:
    """Apply a few random changes to nested containers: to values, types, keys, lengths and depth."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = list(_places(tree))
        if not places:
            return _odd(rng)
        container, key = rng.choice(places)
        other, place = rng.choice(places)
        action = rng.randrange(7)
        if action == 0:
            del container[key]
        elif action == 1 and isinstance(container, dict):
            container[_hashable(_odd(rng))] = container.pop(key)
        elif action == 2:
            container[key] = [container[key]] if rng.random() < 0.5 else {"a": container[key]}
        elif action == 3:
            container[key] = copy.deepcopy(other[place])
        elif action == 4:
            container[key] = _varied(rng, container[key])
        else:
            container[key] = _odd(rng)
    return tree


def bomb(levels: int = 30) -> list[Any]:
    """A list that is small in memory and exponentially long when written: each level doubles the one below."""
    tree: list[Any] = ["lol"]
    for _ in range(levels):
        tree = [tree, tree]
    return tree


def _places(tree: Any) -> Sequence[tuple[Any, Any]]:
    """Pair each container of a tree with each of its keys."""
    if isinstance(tree, dict | list):
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        return [(tree, key) for key in keys] + [place for key in keys for place in _places(tree[key])]
    return []


def _odd(rng: random.Random) -> Any:
    # A copy, because a value inside a tree may be mutated there.
    return copy.deepcopy(rng.choice(ODD_VALUES))


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, list | dict | set) else value


def _varied(rng: random.Random, value: Any) -> Any:
    """Return a value close to the given one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, -value, value * 1000, str(value), float(value) if abs(value) < 2**60 else 0.0))
    if isinstance(value, str):
        return rng.choice(
            (value.upper(), value[1:], f"{value} ", value * 50, value.encode("utf-8", "replace"), [value])
        )
    if isinstance(value, list):
        return rng.choice((value * 2, value[::-1], tuple(map(str, value)), dict(enumerate(value))))
    return value
