"""BIO tags: the entities match seqeval, for any type names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, Entities

from mmib.datamodules.labels import label_set
from mmib.records import Entity
from mmib.schema import NO_LABEL
from mmib.tagging import bio_tags, count_mentions, entities, repair, split_tag

TYPES = ("PER", "creative-work", "a-b-c", "产品")
TAGS = bio_tags(TYPES)
tag_lists = st.lists(st.sampled_from(TAGS), max_size=14)


def test_tags_are_o_followed_by_both_tags_of_every_type() -> None:
    tags = bio_tags(label_set("twitter").names)
    assert tags == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-MISC", "I-MISC")
    assert NO_LABEL not in range(len(tags))
    assert bio_tags([]) == ("O",)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("B-PER", ("B", "PER")),
        ("I-creative-work", ("I", "creative-work")),
        ("B--x-", ("B", "-x-")),
        ("O", ("O", "")),
        ("B-", ("B", "")),
        ("", ("", "")),
    ],
)
def test_a_tag_is_split_at_its_first_hyphen(tag: str, expected: tuple[str, str]) -> None:
    assert split_tag(tag) == expected


@pytest.mark.parametrize(
    ("tags", "repaired"),
    [
        ("I-PER I-PER", "B-PER I-PER"),
        ("O I-LOC", "O B-LOC"),
        ("B-PER I-LOC I-LOC", "B-PER B-LOC I-LOC"),
        ("B-PER B-PER I-PER O", "B-PER B-PER I-PER O"),
        ("B-a-b I-a-c I-a-c", "B-a-b B-a-c I-a-c"),
        ("B-a-b I-b I-a-b", "B-a-b B-b B-a-b"),
        ("", ""),
    ],
)
def test_a_stray_inside_tag_starts_an_entity(tags: str, repaired: str) -> None:
    assert " ".join(repair(tags.split())) == repaired


def numbered(tags: list[str]) -> list[str]:
    """The same tags with types that seqeval parses differently: it splits at the last hyphen."""
    return [tag if tag == "O" else f"{tag[0]}-{TYPES.index(tag[2:])}" for tag in tags]


@given(tag_lists)
def test_entities_match_seqevals_default_mode(tags: list[str]) -> None:
    expected = [Entity(TYPES[int(name)], first, last + 1) for name, first, last in get_entities(numbered(tags))]
    assert entities(tags) == expected


@given(tag_lists)
def test_repaired_tags_have_the_same_entities_in_both_modes(tags: list[str]) -> None:
    repaired = repair(tags)
    assert len(repaired) == len(tags)
    assert entities(repaired) == entities(tags)
    assert sum(tag.startswith("B-") for tag in repaired) == len(entities(tags))
    (strict,) = Entities([numbered(repaired)], IOB2).entities
    assert [(entity.start, entity.end) for entity in strict] == [found.span for found in entities(tags)]
    assert repair(repaired) == repaired


@given(tag_lists)
def test_every_word_has_the_index_of_its_mention(tags: list[str]) -> None:
    mentions = count_mentions(repair(tags))
    for number, entity in enumerate(entities(tags), start=1):
        assert [word for word, mention in enumerate(mentions) if mention == number] == list(range(*entity.span))
    assert [mention == 0 for mention in mentions] == [tag == "O" for tag in tags]


def test_no_words_have_no_entities() -> None:
    assert entities([]) == []
    assert repair([]) == []
    assert count_mentions([]) == []
