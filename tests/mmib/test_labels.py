"""Label sets: validation, serialisation, and argument types of relations."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmib.labels import LabelSet, difference, shown
from mmib.schema import ConfigError

WORKS = LabelSet(
    ("works_for", "no relation", "born_in", "related"),
    "no relation",
    {"works_for": ("PER", "ORG"), "born_in": ("PER", "LOC")},
)
names = st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=12, unique=True)


@st.composite
def label_sets(draw: st.DrawFn) -> LabelSet:
    """Any label set: with or without a negative class and argument types."""
    labels = draw(names)
    negative = draw(st.sampled_from([None, *labels]))
    arguments = draw(st.dictionaries(st.sampled_from(labels), st.tuples(st.text(), st.text())))
    return LabelSet(tuple(labels), negative, arguments)


# Invalid label sets


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "the label set is empty: name at least one label"),
        ({"names": []}, "the label set is empty"),
        (["PER", "LOC", "PER", "ORG", "LOC"], "the label set names LOC, PER more than once: name each label once"),
        (["PER", 3], "the label 3 is no text: quote it, as in '3'"),
        (["PER", None], "the label None is no text"),
        (["PER", False], "the label False is no text"),
        (["PER", ["LOC"]], r"the label \['LOC'\] is no text"),
        (["PER", ""], "the label '' is no text"),
        (["PER", " \t"], "is no text"),
        ({"names": ["PER", "LOC"], "negative": "None"}, "the negative class 'None' is not one of the labels PER, LOC:"),
        ({"names": ["a"], "negative": 0}, "the negative class 0 is not one of the labels a"),
        ({"names": ["a"], "arguments": {"b": ["X", "Y"]}}, "'arguments' names 'b', which is not one of the labels a"),
        ({"names": ["a"], "arguments": {"a": ["X"]}}, r"'arguments' of the label set is \{'a': \['X'\]\}: give"),
        ({"names": ["a"], "arguments": {"a": "XY"}}, "'arguments' of the label set is"),
        ({"names": ["a"], "arguments": {"a": ["X", 2]}}, "'arguments' of the label set is"),
        ({"names": ["a"], "arguments": ["a"]}, "'arguments' of the label set is"),
        ({"names": ["a"], "positive": "a"}, "the label set has the key 'positive': choose from 'names', 'negative'"),
        ({"names": ["a"], b"x": 1, "y": 2, 3: 3}, "the label set has the key 3: choose from 'names', 'negative'"),
        ({"names": "abc"}, "is no label set: give a list of labels, or a mapping with 'names'"),
        ({}, "is no label set"),
        ("PER", "'PER' is no label set"),
        (None, "None is no label set"),
    ],
)
def test_an_invalid_label_set_is_refused_in_one_sentence(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        LabelSet.from_dict(value)
    assert "\n" not in str(error.value)


def test_the_constructor_validates_as_well() -> None:
    for arguments in (((),), (("a", "a"),), ((1,),), (("a",), "b"), (("a",), None, {"b": ("X", "Y")})):
        with pytest.raises(ConfigError):
            LabelSet(*arguments)  # type: ignore[arg-type]


def test_long_lists_of_labels_are_abbreviated() -> None:
    assert shown("abc") == "a, b, c"
    many = [f"l{number}" for number in range(1009)]
    assert shown(many) == "l0, l1, l2, l3, l4, l5, l6, l7 and 1,001 more"
    with pytest.raises(ConfigError, match="l7 and 1,001 more: name one of them") as error:
        LabelSet(tuple(many), "gone")
    assert "l8" not in str(error.value)


# Ids and scored labels


def test_the_position_of_a_label_is_its_id() -> None:
    assert [WORKS.id_of(name) for name in WORKS.names] == [0, 1, 2, 3]
    assert len(WORKS) == 4
    with pytest.raises(KeyError, match="'None'"):
        WORKS.id_of("None")


def test_all_labels_except_the_negative_one_are_scored() -> None:
    assert WORKS.scored == ("works_for", "born_in", "related")
    assert LabelSet(("a", "b")).scored == ("a", "b")
    assert LabelSet(("None", "a")).scored == ("None", "a"), "only what is named is negative"


# Argument types


@pytest.mark.parametrize(
    ("name", "head", "tail", "expected"),
    [
        ("works_for", "PER", "ORG", True),
        ("works_for", "ORG", "PER", False),
        ("works_for", "PER", "LOC", False),
        ("works_for", None, "ORG", True),
        ("works_for", "PER", None, True),
        ("works_for", None, None, True),
        ("works_for", "ORG", None, False),
        ("works_for", None, "PER", False),
        ("related", "ORG", "LOC", True),
        ("no relation", "PER", "ORG", False),
        ("no relation", None, None, False),
    ],
)
def test_a_relation_is_compatible_with_its_argument_types(
    name: str, head: str | None, tail: str | None, expected: bool
) -> None:
    assert WORKS.fits(name, head, tail) is expected


def test_without_argument_types_every_pair_is_a_candidate() -> None:
    labels = LabelSet(("none", "a"), "none")
    types = ("PER", "LOC", "anything", None)
    assert all(labels.may_relate(*pair) for pair in itertools.product(types, types))


def test_with_argument_types_for_all_only_matching_pairs_are_candidates() -> None:
    labels = LabelSet(("none", "a", "b"), "none", {"a": ("PER", "ORG"), "b": ("PER", "LOC")})
    types = ("PER", "ORG", "LOC", "MISC")
    candidates = [pair for pair in itertools.product(types, types) if labels.may_relate(*pair)]
    assert candidates == [("PER", "ORG"), ("PER", "LOC")]
    assert labels.may_relate(None, "ORG")
    assert not labels.may_relate(None, "PER")


def test_a_negative_class_alone_has_no_candidate_pairs() -> None:
    assert not LabelSet(("none",), "none").may_relate("PER", "PER")


@given(label_sets(), st.text(), st.text())
def test_a_pair_is_a_candidate_if_it_fits_some_scored_label(labels: LabelSet, head: str, tail: str) -> None:
    assert labels.may_relate(head, tail) == any(labels.fits(name, head, tail) for name in labels.scored)


# Serialisation


@given(label_sets())
def test_a_label_set_round_trips_through_json(labels: LabelSet) -> None:
    again = LabelSet.from_dict(json.loads(json.dumps(labels.to_dict())))
    assert again == labels
    assert hash(again) == hash(labels)
    assert difference(labels, again) == ""
    assert again.names == labels.names


def test_unset_fields_are_omitted() -> None:
    assert LabelSet(("a", "b")).to_dict() == {"names": ["a", "b"]}
    assert LabelSet.from_dict(["a", "b"]) == LabelSet(("a", "b")) == LabelSet.from_dict({"names": ("a", "b")})


# Differences


@pytest.mark.parametrize(
    ("other", "details"),
    [
        (LabelSet(("b", "a"), "b"), ["in another order"]),
        (LabelSet(("a", "b")), ["another negative class"]),
        (LabelSet(("a", "b"), "a"), ["another negative class"]),
        (LabelSet(("a",)), ["b only in the first", "another negative class"]),
        (LabelSet(("a", "b", "c", "d"), "b"), ["c, d only in the second"]),
        (LabelSet(("a", "c"), "c"), ["b only in the first", "c only in the second", "another negative class"]),
        (LabelSet(("a", "b"), "b", {"a": ("X", "Y")}), ["other argument types"]),
    ],
)
def test_a_difference_shows_both_label_sets_and_the_differing_labels(other: LabelSet, details: list[str]) -> None:
    ours = LabelSet(("a", "b"), "b")
    text = difference(ours, other)
    assert text == f"{ours} against {other}: {'; '.join(details)}"
    assert difference(other, ours), "in both directions"


def test_a_label_set_describes_its_size() -> None:
    assert str(WORKS) == "4 labels, works_for, no relation, born_in, related (negative: no relation)"
    assert str(LabelSet(("PER",))) == "1 label, PER"


@given(label_sets(), label_sets())
def test_label_sets_differ_if_they_are_not_equal(one: LabelSet, other: LabelSet) -> None:
    assert bool(difference(one, other)) == (one != other)
