"""Invented user data in several formats."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmib.cli import main

TEAMS = ("Acme", "Red Owls", "Borealis", "Kite Works", "Ninefold")
PRODUCTS = ("Zipper", "Lumo 2", "Drift", "Pocket Sun", "Tern")
RELATIONS = {"makes": "makes the", "sells": "sells the", "breaks": "broke a"}


class Invented:
    """Writes invented posts in each of the formats."""

    @staticmethod
    def posts(number: int, seed: int = 0) -> list[dict[str, Any]]:
        """Posts with the entity types TEAM and PRODUCT and three relations; every third has an image."""
        generator = random.Random(seed)
        posts = []
        for at in range(number):
            team, product = generator.choice(TEAMS), generator.choice(PRODUCTS)
            relation = generator.choice(list(RELATIONS))
            text = f"Heard today: {team} {RELATIONS[relation]} {product} #{at}"
            places = {name: (text.index(name), text.index(name) + len(name)) for name in (team, product)}
            types = zip(places.values(), ("TEAM", "PRODUCT"), strict=True)
            post = {
                "id": at,
                "text": text,
                "entities": [{"start": start, "end": end, "type": name} for (start, end), name in types],
                "relations": [{"head": 0, "tail": 1, "type": relation}],
            }
            posts.append(post | ({"image": f"{at}.jpg"} if at % 3 == 0 else {}))
        return posts

    @staticmethod
    def lines(posts: list[dict[str, Any]]) -> str:
        return "".join(json.dumps(post) + "\n" for post in posts)

    @staticmethod
    def columns(posts: list[dict[str, Any]], separator: str = "\t", extra: tuple[str, ...] = ()) -> str:
        """One line per word with its BIO tag; `extra` columns come in between."""
        lines = []
        for post in posts:
            lines += [f"IMGID:{post['image'].removesuffix('.jpg')}"] if "image" in post else []
            place = 0
            for word in post["text"].split():
                start = post["text"].index(word, place)
                place = start + len(word)
                tag = "O"
                for entity in post["entities"]:
                    if entity["start"] <= start < entity["end"]:
                        tag = f"{'B' if start == entity['start'] else 'I'}-{entity['type']}"
                lines.append(separator.join((word, *extra, tag)))
            lines.append("")
        return "\n".join(lines)

    def folder(self, root: Path, number: int) -> Path:
        """Posts as JSON lines in one file, and the images of all but the first six."""
        (root / "images").mkdir(parents=True)
        posts = self.posts(number)
        (root / "posts.jsonl").write_text(self.lines(posts), encoding="utf-8")
        for post in posts[6:]:
            if "image" in post:
                Image.new("RGB", (40, 30), (post["id"] * 4, 80, 120)).save(root / "images" / post["image"])
        return root

    @staticmethod
    def mnre(*relations: str) -> str:
        """One row per relation."""
        head, tail = {"name": "Acme", "pos": [0, 1]}, {"name": "Zip", "pos": [2, 3]}
        row = {"token": ["Acme", "and", "Zip"], "h": head, "t": tail, "img_id": "a.jpg"}
        return "".join(repr(row | {"relation": relation}) + "\n" for relation in relations)


@pytest.fixture(scope="session")
def invented() -> Invented:
    return Invented()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a text to a file in the test's folder."""

    def make(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return make


@dataclass(frozen=True)
class Output:
    """The output of `mmib init`."""

    status: int
    output: str
    errors: str


@pytest.fixture
def look(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Output]:
    """Runs `mmib init`, without the packaged tokenizer."""
    monkeypatch.setattr("mmib.datamodules.init.command.TOKENIZER", "pip:nowhere")
    monkeypatch.setenv("COLUMNS", "1000")  # the lines of messages are not wrapped

    def run(*arguments: object) -> Output:
        capsys.readouterr()
        status = main(["init", *map(str, arguments)])
        printed = capsys.readouterr()
        return Output(status, printed.out, printed.err)

    return run


@pytest.fixture
def folder(tmp_path: Path, invented: Invented) -> Path:
    """60 posts as JSON lines in one file, with most of their images."""
    return invented.folder(tmp_path / "posts", 60)
