"""Import and export of doccano's JSON lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Convert = Callable[..., Any]
TEXT = "\U0001f600 Acme sells the Zipper in Bern"
# doccano counts UTF-16 units: one more than characters here.
ACME, ZIPPER = [3, 7, "TEAM"], [18, 24, "PRODUCT"]
AS_OBJECTS = [
    {"id": 50 + number, "label": name, "start_offset": start, "end_offset": end}
    for number, (start, end, name) in enumerate([ACME, ZIPPER])
]


def arrow(head: int, tail: int, name: Any = "sells") -> dict[str, Any]:
    return {"id": 7, "from_id": head, "to_id": tail, "type": name}


@pytest.mark.parametrize(
    "marked",
    [
        {"label": [ACME, ZIPPER], "Comments": []},
        {"labels": [ACME, ZIPPER]},
        {"entities": AS_OBJECTS, "relations": [], "Comments": []},
    ],
)
def test_entities_in_all_supported_forms(convert: Convert, marked: dict[str, Any]) -> None:
    (post,) = convert([{"id": 3, "text": TEXT, "image": "a.jpg", **marked}]).lines()
    assert post == {
        "id": 3,
        "text": TEXT,
        "image": "a.jpg",
        "entities": [{"start": 2, "end": 6, "type": "TEAM"}, {"start": 17, "end": 23, "type": "PRODUCT"}],
        "relations": [],
    }


def test_relations_refer_to_ids(convert: Convert) -> None:
    line = {"id": 3, "text": TEXT, "entities": AS_OBJECTS, "relations": [arrow(51, 50), arrow(50, 99)]}
    done = convert([line])
    assert done.lines()[0]["relations"] == [{"head": 1, "tail": 0, "type": "sells"}]
    assert "1 relation whose head or tail is not an entity of the post: left out (line 1)" in done.output


@pytest.mark.parametrize(("unit", "start"), [("characters", 2), ("utf-16", 3), ("graphemes", 2)])
def test_offsets_are_in_the_unit_of_the_project(convert: Convert, unit: str, start: int) -> None:
    (post,) = convert([{"text": TEXT, "label": [[start, start + 4, "TEAM"]]}], "--offsets", unit).lines()
    assert post["entities"] == [{"start": 2, "end": 6, "type": "TEAM"}]


def test_everything_dropped_is_counted_with_its_location(convert: Convert) -> None:
    done = convert(
        [
            {"text": TEXT, "label": [ACME, [1, 7, "TEAM"], [3, 400, "TEAM"], [5, 5, "TEAM"]], "Comments": ["why?"]},
            {"text": "  ", "label": []},
            {"text": TEXT},
        ]
    )
    assert [len(post["entities"]) for post in done.lines()] == [1, 0]
    for line in (
        "3 entities blank, outside the text or ending inside a character: left out (see --offsets) (line 1)",
        "1 post with comments: the comments are left out (line 1)",
        "1 post without text: left out (line 2)",
        "1 post without any of 'label', 'labels', 'entities': taken for posts without entities (line 3)",
    ):
        assert line in done.output.splitlines()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": TEXT, "label": ["good"]}, "'label' holds good: expected [start, end, type]"),
        ({"text": TEXT, "label": [[0, 1]]}, "expected [start, end, type]"),
        ({"text": TEXT, "label": [["0", 1, "A"]]}, "expected [start, end, type]"),
        ({"text": TEXT, "label": [[True, 1, "A"]]}, "expected [start, end, type]"),
        ({"text": TEXT, "label": "good"}, "'label' is 'good': expected a list"),
        ({"text": TEXT, "label": [], "entities": []}, "has 'label' and 'entities'"),
        ({"text": TEXT, "entities": AS_OBJECTS, "relations": [arrow(50, 51, None)]}, "from_id, to_id and type"),
        ({"text": TEXT, "entities": AS_OBJECTS, "relations": ["a"]}, "from_id, to_id and type"),
        ({"data": TEXT, "label": []}, "the text is None"),
        ({"text": "\udc00", "label": []}, "unpaired surrogate"),
    ],
)
def test_malformed_lines_are_refused_in_one_sentence(convert: Convert, line: dict[str, Any], message: str) -> None:
    done = convert([{"text": "a", "label": []}, line], "--from", "doccano")
    assert done.status == 2
    assert "in.json, line 2" in done.errors
    assert message in done.errors
    assert done.errors.count("\n") == 1
    assert not done.file.exists()


def test_predictions_with_relations_match_doccanos_export(convert: Convert) -> None:
    entities = [{"start": 2, "end": 6, "type": "TEAM", "confidence": 0.9}, {"start": 17, "end": 23, "type": "PRODUCT"}]
    relations = [{"label": "sells", "head": 0, "tail": 1, "confidence": 0.8}]
    found = [
        {"id": "p1", "text": TEXT, "entities": entities, "relations": relations, "notes": []},
        {"id": "p2", "text": "nothing", "entities": [], "relations": [], "notes": []},
    ]
    done = convert(found, "--to", "doccano")
    first, second = done.lines()
    assert first["entities"] == [
        {"id": 0, "start_offset": 3, "end_offset": 7, "label": "TEAM"},
        {"id": 1, "start_offset": 18, "end_offset": 24, "label": "PRODUCT"},
    ]
    assert first["relations"] == [{"id": 0, "from_id": 0, "to_id": 1, "type": "sells"}]
    assert (second["entities"], second["relations"]) == ([], [])
    assert "1 post with confidences: the confidences are left out (line 1)" in done.output
    back = convert(done.file.read_text(encoding="utf-8"), name="back.json")
    assert back.lines()[0]["entities"] == [
        {"start": 2, "end": 6, "type": "TEAM"},
        {"start": 17, "end": 23, "type": "PRODUCT"},
    ]
    assert back.lines()[0]["relations"] == [{"head": 0, "tail": 1, "type": "sells"}]


def test_predictions_without_relations_are_lists_of_spans(convert: Convert) -> None:
    found = {"id": "p1", "text": TEXT, "entities": [{"start": 2, "end": 6, "type": None}], "relations": []}
    done = convert([found], "--to", "doccano", "--offsets", "characters")
    assert done.lines() == [{"id": "p1", "text": TEXT, "label": [[2, 6, "ENTITY"]]}]
    assert "1 entity without a type: they become ENTITY (line 1)" in done.output
