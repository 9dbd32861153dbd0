"""Import of Label Studio's export, and export of predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Convert = Callable[..., Any]
TEXT = "\U0001f600 Acme sells the Zipper in Bern"


def region(identity: str, start: int, end: int, *labels: str, **changes: Any) -> dict[str, Any]:
    value = {"start": start, "end": end, "text": TEXT[start:end], "labels": list(labels)}
    return {"id": identity, "from_name": "label", "to_name": "text", "type": "labels", "value": value} | changes


def relation(head: str, tail: str, *labels: str, direction: str = "right") -> dict[str, Any]:
    return {"type": "relation", "from_id": head, "to_id": tail, "direction": direction, "labels": list(labels)}


def task(*results: Any, number: int = 1, data: Any = None, **annotation: Any) -> dict[str, Any]:
    made = {"id": 10 + number, "result": list(results), "was_cancelled": False, **annotation}
    return {"id": number, "data": {"text": TEXT} if data is None else data, "annotations": [made]}


ACME, ZIPPER = region("a", 2, 6, "TEAM"), region("z", 17, 23, "PRODUCT")


def test_regions_and_relations(convert: Convert) -> None:
    done = convert([task(ACME, ZIPPER, relation("a", "z", "sells"))], lines=False)
    assert done.status == 0
    (post,) = done.lines()
    assert post == {
        "id": 1,
        "text": TEXT,
        "entities": [{"start": 2, "end": 6, "type": "TEAM"}, {"start": 17, "end": 23, "type": "PRODUCT"}],
        "relations": [{"head": 0, "tail": 1, "type": "sells"}],
    }
    assert [TEXT[entity["start"] : entity["end"]] for entity in post["entities"]] == ["Acme", "Zipper"]
    assert "1 post (0 with an image), 2 entities (TEAM 1, PRODUCT 1), 1 relation (sells 1)" in done.output


@pytest.mark.parametrize(("direction", "pairs"), [("right", [(0, 1)]), ("left", [(1, 0)]), ("bi", [(0, 1), (1, 0)])])
def test_the_direction_of_a_relation(convert: Convert, direction: str, pairs: list[tuple[int, int]]) -> None:
    (post,) = convert([task(ACME, ZIPPER, relation("a", "z", "sells", direction=direction))], lines=False).lines()
    assert [(found["head"], found["tail"]) for found in post["relations"]] == pairs


def test_offsets_of_old_versions_are_in_utf_16_units(convert: Convert) -> None:
    value = {"start": 3, "end": 7, "text": "Acme", "labels": ["TEAM"]}
    old = [task(region("a", 0, 1, value=value))]
    wrong = convert(old, lines=False)
    assert wrong.lines()[0]["entities"] == []
    assert "1 region whose 'text' is not what stands at their place: left out (see --offsets) (task 1)" in wrong.output
    right = convert(old, "--offsets", "utf-16", lines=False)
    assert right.lines()[0]["entities"] == [{"start": 2, "end": 6, "type": "TEAM"}]
    assert "left out" not in right.output


def test_everything_dropped_is_counted_with_its_location(convert: Convert) -> None:
    choice = {"type": "choices", "from_name": "mood", "to_name": "text", "value": {"choices": ["good"]}}
    box = {"id": "b", "type": "rectanglelabels", "value": {"x": 1}}
    skipped = task(ACME, number=2, was_cancelled=True)
    several = task(ACME, number=3)
    several["annotations"].append({"id": 99, "result": []})
    done = convert(
        [
            task(ACME, choice, box, relation("a", "b", "shows"), relation("a", "a"), region("q", 2, 99, "TEAM")),
            skipped,
            several,
            {"id": 4, "data": {"text": TEXT}, "annotations": []},
            task(ACME, number=5, data={"text": " "}),
        ],
        lines=False,
    )
    assert [post["id"] for post in done.lines()] == [1, 3]
    for line in (
        "1 result of the type 'choices': left out (task 1)",
        "1 result of the type 'rectanglelabels': left out (task 1)",
        "1 relation whose head or tail is not an entity of the post: left out (task 1)",
        "1 relation without a label: left out (task 1)",
        "1 entity blank, outside the text or ending inside a character: left out (see --offsets) (task 1)",
        "2 tasks without an annotation: left out (task 2; task 4)",
        "1 annotation of a task beside the chosen one: left out (task 3)",
        "1 task without text: left out (task 5)",
    ):
        assert line in done.output.splitlines()


def test_the_ground_truth_is_chosen_among_several_annotations(convert: Convert) -> None:
    several = task(ZIPPER)
    several["annotations"].append({"id": 99, "ground_truth": True, "result": [ACME]})
    (post,) = convert([several], lines=False).lines()
    assert [entity["type"] for entity in post["entities"]] == ["TEAM"]


def test_a_region_with_two_labels_becomes_two_entities_and_relations_use_the_first(convert: Convert) -> None:
    (post,) = convert([task(region("a", 2, 6, "TEAM", "FIRM"), ZIPPER, relation("z", "a", "by"))], lines=False).lines()
    assert [entity["type"] for entity in post["entities"]] == ["TEAM", "FIRM", "PRODUCT"]
    assert post["relations"] == [{"head": 2, "tail": 0, "type": "by"}]


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/3/0a1b2c3d-photo.jpg",
        "/data/local-files/?d=trip/photo.jpg",
        "/data/local-files/?d=trip%5Cphoto.jpg",
        "https://example.org/a/trip/photo.jpg?size=1",
        "s3://bucket/trip/photo.jpg",
    ],
)
def test_images_have_the_names_of_their_files(convert: Convert, tmp_path: Path, address: str) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "photo.jpg").touch()
    done = convert([task(ACME, data={"text": TEXT, "picture": address})], "--images", str(images), lines=False)
    assert done.lines()[0]["image"] == "photo.jpg"
    assert "are not in" not in done.output


@pytest.mark.parametrize("name", ["b.png", f"{'b' * 300}.png"])
def test_missing_images_keep_their_name_and_are_counted(convert: Convert, tmp_path: Path, name: str) -> None:
    """Even if the name is longer than any file name can be."""
    done = convert([task(ACME, data={"text": TEXT, "image": f"/a/{name}"})], "--images", str(tmp_path), lines=False)
    assert done.lines()[0]["image"] == name
    assert f"1 image not in {tmp_path}: their posts keep the name (task 1)" in done.output


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("a/1.jpg", "a/1.jpg"),
        ("a\\1.jpg", "a/1.jpg"),
        ("/a/1.jpg", "1.jpg"),
        ("C:\\a\\1.jpg", "1.jpg"),
        ("https://a/b/1.jpg", "1.jpg"),
        ("/data/local-files/?d=a/1.jpg", "1.jpg"),
        ("../1.jpg", "1.jpg"),
    ],
)
@pytest.mark.parametrize("in_folder", [True, False])
def test_a_relative_path_keeps_its_folders(
    convert: Convert, tmp_path: Path, address: str, name: str, in_folder: bool
) -> None:
    options = ["--images", str(tmp_path / "nowhere")] if in_folder else []
    done = convert([task(ACME, data={"text": TEXT, "image": address})], *options, lines=False)
    assert done.lines()[0]["image"] == name


def test_an_embedded_image_is_dropped(convert: Convert) -> None:
    done = convert([task(ACME, data={"text": TEXT, "image": "data:image/png;base64,AA"})], lines=False)
    assert "image" not in done.lines()[0]
    assert "1 image inside the file itself: left out (task 1)" in done.output


def test_the_text_field_and_tag_can_be_set(convert: Convert) -> None:
    data = {"title": "Acme", "body": TEXT}
    in_title = region("t", 0, 4, "TEAM", to_name="head", value={"start": 0, "end": 4, "labels": ["TEAM"]})
    done = convert([task(ACME, in_title, data=data)], "--text-field", "body", "--to-name", "text", lines=False)
    assert done.lines()[0]["text"] == TEXT
    assert len(done.lines()[0]["entities"]) == 1
    assert "1 region not in 'text': left out (task 1)" in done.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is no JSON"),
        ('[{"text": "a", "label": []}]', "task 1 has no 'data' and 'annotations'"),
        ([task("x")], "task 1: a result without a 'type'"),
        ([task(region("a", 0, 1, value={"start": 0.5, "end": 2, "labels": ["A"]}))], "whole numbers"),
        ([task(region("a", 0, 1, value={"start": 0, "end": 1, "labels": "A"}))], "expected a list of names"),
        ([task(relation(1, 2, "a"))], "expected the ids of two regions"),  # type: ignore[arg-type]
        ([task(data={"title": "a", "body": "b"})], "use --text-field"),
        ([task(data={"text": "\ud800"})], "unpaired surrogate"),
        ([task(data={"text": "a", "one": "a.jpg", "two": "b.jpg"})], "use --image-field"),
        ([task(ACME, region("b", 0, 1, "A", to_name="title"))], "choose with --to-name"),
        ([task(annotations=1, result=None)], "a list 'result'"),
        ([{"id": 1, "data": {"text": "a"}, "annotations": []}], "holds no post"),
    ],
)
def test_malformed_exports_are_refused_in_one_sentence(convert: Convert, content: Any, message: str) -> None:
    done = convert(content, "--from", "label-studio", lines=False)
    assert done.status == 2
    assert message in done.errors
    assert "in.json" in done.errors
    assert done.errors.count("\n") == 1
    assert not done.file.exists()


def test_predictions_round_trip_through_label_studios_export(convert: Convert) -> None:
    """The exported predictions, imported as annotations, are unchanged."""
    found = {
        "row": 1,
        "id": "p1",
        "text": TEXT,
        "entities": [
            {"text": "Acme", "start": 2, "end": 6, "type": "TEAM", "confidence": 0.9},
            {"text": "Zipper", "start": 17, "end": 23, "type": None, "confidence": None},
        ],
        "relations": [{"label": "sells", "head": 0, "tail": 1, "confidence": 0.7, "compatible": True}],
        "notes": [],
    }
    done = convert([found], "--to", "label-studio", "--to-name", "post")
    (made,) = json.loads(done.file.read_text(encoding="utf-8"))
    (prediction,) = made["predictions"]
    assert made["data"] == {"id": "p1", "text": TEXT}
    assert prediction["score"] == 0.7
    first, second, arrow = prediction["result"]
    assert first == {
        "id": "e0",
        "from_name": "label",
        "to_name": "post",
        "type": "labels",
        "value": {"start": 2, "end": 6, "text": "Acme", "labels": ["TEAM"]},
        "score": 0.9,
    }
    assert second["value"]["labels"] == ["ENTITY"]
    assert "score" not in second
    assert arrow["labels"] == ["sells"]
    assert "1 entity without a type: they become ENTITY (line 1)" in done.output
    back = convert([{"data": made["data"], "annotations": [{"result": prediction["result"]}]}], lines=False)
    (post,) = back.lines()
    assert post["id"] == "p1"
    assert [(entity["start"], entity["end"]) for entity in post["entities"]] == [(2, 6), (17, 23)]
    assert post["relations"] == [{"head": 0, "tail": 1, "type": "sells"}]
