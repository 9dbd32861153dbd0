"""Label sets in configurations, and a one-sentence error for each invalid one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmib.datamodules.labels import label_set, unknown_label
from mmib.datamodules.released import KNOWN_LABELS, RELEASED, RELEASED_LABELS
from mmib.labels import LabelSet
from mmib.schema import ConfigError, DataError, MMIBError

REAL = Path(__file__).parents[3] / "shared" / "data"

Write = Callable[[str, Any], str]
WHOLE = {"names": ["a", "no", "b"], "negative": "no", "arguments": {"a": ["PER", "X-Y"]}}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: Any) -> str:
        path = tmp_path / name
        if not isinstance(content, str):
            content = json.dumps(content) if name.lower().endswith(".json") else yaml.safe_dump(content)
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        return str(path)

    return write


def test_known_label_sets_match_the_releases() -> None:
    mnre = label_set("mnre")
    assert len(mnre) == 23
    assert mnre.negative == "None"
    assert mnre.arguments["/per/org/member_of"] == ("PER", "ORG")
    assert set(mnre.arguments) == set(mnre.scored)
    assert label_set("twitter") == LabelSet(("PER", "LOC", "ORG", "MISC"))
    assert RELEASED_LABELS.keys() == RELEASED.keys()
    assert {types for pair in mnre.arguments.values() for types in pair} == set(label_set("twitter").names)


@pytest.mark.skipif(not (REAL / "mnre").is_dir(), reason=f"the real MNRE is not at {REAL}")
def test_real_relation_ids_match_the_known_label_set() -> None:
    assert label_set(str(REAL / "mnre" / "ours_rel2id.json")).names == KNOWN_LABELS["mnre"].names


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rel2id.json", {"b": 2, "a": 0, "no": 1}),
        ("rel2id.json", '\ufeff{"b": 2, "a": 0, "no": 1}'),
        ("rel2id.JSON", ["a", "no", "b"]),
        ("labels.json", {"names": ["a", "no", "b"]}),
        ("labels.yaml", ["a", "no", "b"]),
        ("labels.yml", {"b": 2, "a": 0, "no": 1}),
        ("labels.yml", {"names": ["a", "no", "b"]}),
        ("labels.txt", "a\nno\nb"),
        ("labels.txt", "\ufeffa\r\n\r\n  no \r\nb\r\n"),
    ],
)
def test_label_files_of_all_forms_can_be_read(write: Write, name: str, content: Any) -> None:
    assert label_set(write(name, content)) == LabelSet(("a", "no", "b"))


def test_a_label_may_be_named_names(write: Write) -> None:
    assert label_set(write("rel2id.json", {"names": 1, "negative": 0})).names == ("negative", "names")


@pytest.mark.parametrize("name", ["labels.json", "labels.yaml"])
def test_a_file_may_contain_a_complete_label_set(write: Write, name: str) -> None:
    assert label_set(write(name, WHOLE)) == label_set(WHOLE) == LabelSet(("a", "no", "b"), "no", {"a": ("PER", "X-Y")})


def test_labels_can_be_listed_directly() -> None:
    assert label_set(["a", "b"]) == LabelSet(("a", "b"))
    assert label_set({"names": ["a", "b"], "negative": "a"}) == LabelSet(("a", "b"), "a")
    assert label_set(LabelSet(("a", "b"), "a")) == LabelSet(("a", "b"), "a")


def test_a_file_can_replace_the_names(write: Write) -> None:
    ids = write("rel2id.json", {"b": 2, "a": 0, "no": 1})
    assert label_set({"file": ids, "negative": "no", "arguments": {"a": ["PER", "X-Y"]}}) == label_set(WHOLE)
    whole = write("labels.json", WHOLE)
    assert label_set({"file": whole, "negative": None}) == LabelSet(("a", "no", "b"), None, {"a": ("PER", "X-Y")})
    assert label_set({"file": "mnre", "negative": None}).scored == KNOWN_LABELS["mnre"].names


BAD_FILES = {
    "no JSON": ("l.json", "{'a': 0}", "l.json cannot be read as JSON"),
    "no YAML": ("l.yaml", "[a", "l.yaml cannot be read as YAML"),
    "no text": ("l.json", "\ud800", "l.json cannot be read as JSON"),
    "no text in lines": ("l.txt", "\ud800", "l.txt:1 is not UTF-8"),
    "a number": ("l.json", "3", r"l.json: 3 is no label set"),
    "nothing in YAML": ("l.yaml", "", r"l.yaml: None is no label set"),
    "an empty list": ("l.json", [], "l.json: the label set is empty"),
    "an empty table": ("l.json", {}, "l.json: the label set is empty"),
    "no lines": ("l.txt", "\n \n", "l.txt holds no labels: write one a line"),
    "ids from 1": ("l.json", {"a": 1, "b": 2}, r"l.json: the 2 labels do not have the ids 0 to 1, .* no label has 0"),
    "a gap": ("l.json", {"a": 0, "b": 2}, "no label has 1"),
    "an id of two": ("l.json", {"a": 0, "b": 0}, "no label has 1"),
    "an id that is none": ("l.json", {"a": 0, "b": True}, "l.json: the id of the label 'b' is True"),
    "ids as text": ("l.yaml", {"a": "0"}, "l.yaml: the id of the label 'a' is '0'"),
    "a label that is none": ("l.yaml", "[yes, a]", "l.yaml: the label True is no text: quote it"),
    "a table's label that is none": ("l.yaml", "{1: 0}", "l.yaml: the label 1 is no text"),
    "a list's twin": ("l.json", ["a", "a"], "l.json: the label set names a more than once"),
    "a line's twin": ("l.txt", "a\n\nb\na \n", "l.txt:4: the label 'a' is in line 1 already: remove one"),
    "a negative of its own": ("l.json", {**WHOLE, "negative": "x"}, "l.json: the negative class 'x' is not one of"),
    "a configuration": (
        "l.yaml",
        {"include": ["base.yaml"], "data": {}, "model": {}},
        "l.yaml is a configuration: name",
    ),
    "another key": ("l.yaml", {**WHOLE, "color": 1}, "l.yaml: the label set has the key 'color'"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_without_a_valid_label_set_is_named(write: Write, name: str, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        label_set(write(name, content))
    assert "\n" not in str(error.value)


def test_labels_may_have_the_names_of_configuration_sections(write: Write) -> None:
    assert label_set(write("l.yaml", {"data": 0, "model": 1})).names == ("data", "model")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("labels.json", "labels.txt", "labels.yaml"):
        with pytest.raises(DataError, match=f"{name} does not exist; data.labels names"):
            label_set(str(tmp_path / name))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("MNRE", "the label set 'MNRE' is neither a known one .mnre, twitter. nor a file that ends in .json"),
        ("labels.csv", "the label set 'labels.csv' is neither"),
        ("", "the label set '' is neither"),
        ([], "the label set is empty"),
        ([1], "the label 1 is no text"),
        ({}, "is no label set"),
        ({"a": 0}, "is no label set"),
        ({"file": "l.json", "names": ["a"]}, "give the path of a file behind 'file', or the labels behind 'names'"),
        ({"file": 3}, "give the path of a file"),
        ({"file": "mnre", "negative": "no_relation"}, "the negative class 'no_relation' is not one of the labels None"),
        ({"file": "mnre", "colour": 3}, "has the key 'colour'"),
    ],
)
def test_an_invalid_source_is_a_settings_error(source: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        label_set(source)


def test_an_unknown_label_error_names_location_and_remedy() -> None:
    error = unknown_label("train.txt:3", "GPE", label_set("twitter"))
    assert isinstance(error, MMIBError)
    for part in ("train.txt:3: the label 'GPE'", "the 4 of data.labels (PER, LOC, ORG, MISC)", "add it", "check-data"):
        assert part in str(error)
