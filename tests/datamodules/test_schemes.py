"""Tag schemes: recognising the scheme of a file, and the entities that tags mark."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval import scheme as seqeval
from seqeval.metrics.sequence_labeling import get_entities

from mmib.datamodules.schemes import Scheme, converted, recognise, to_bio
from mmib.records import Entity
from mmib.schema import DataError
from mmib.tagging import entities, repair

TYPES = ("PER", "creative-work", "E-commerce")
# The tags in each scheme of an entity with the given number of words.
WRITERS = {
    Scheme.BIO: lambda words: "B" + "I" * (words - 1),
    Scheme.BIOES: lambda words: "S" if words == 1 else "B" + "I" * (words - 2) + "E",
    Scheme.BMES: lambda words: "S" if words == 1 else "B" + "M" * (words - 2) + "E",
}


@st.composite
def posts(draw: st.DrawFn) -> tuple[int, list[Entity]]:
    """Number of words, and ordered entities that do not overlap but may be adjacent."""
    found: list[Entity] = []
    word = 0
    for _ in range(draw(st.integers(0, 5))):
        start = word + draw(st.integers(0, 2))
        word = start + draw(st.integers(1, 4))
        found.append(Entity(draw(st.sampled_from(TYPES)), start, word))
    return word + draw(st.integers(0, 2)), found


def written(length: int, found: list[Entity], scheme: Scheme, letters: dict[str, str] | None = None) -> list[str]:
    """The tags of a post according to the definition of a scheme."""
    tags = ["O"] * length
    before: Entity | None = None
    for entity in found:
        touches = before is not None and before.end == entity.start and before.type == entity.type
        for place, word in enumerate(range(entity.start, entity.end)):
            if scheme == Scheme.BARE:
                tags[word] = entity.type
            elif scheme == Scheme.IOB1:
                tags[word] = ("B-" if touches and place == 0 else "I-") + entity.type
            else:
                letter = WRITERS[scheme](entity.end - entity.start)[place]
                tags[word] = f"{(letters or {}).get(letter, letter)}-{entity.type}"
        before = entity
    return tags


BILOU, BMEWO = {"E": "L", "S": "U"}, {"S": "W"}


@pytest.mark.parametrize(
    ("scheme", "letters"),
    [
        (Scheme.BIO, {}),
        (Scheme.IOB1, {}),
        (Scheme.BIOES, {}),
        (Scheme.BIOES, BILOU),
        (Scheme.BMES, {}),
        (Scheme.BMES, BMEWO),
    ],
)
@given(post=posts())
def test_entities_round_trip_in_every_scheme(
    scheme: Scheme, letters: dict[str, str], post: tuple[int, list[Entity]]
) -> None:
    length, found = post
    bio = to_bio(written(length, found, scheme, letters), scheme)
    assert entities(bio) == found
    assert repair(bio) == bio
    assert bio == written(length, found, Scheme.BIO)


@given(posts())
def test_tags_without_prefix_only_merge_adjacent_entities_of_a_type(post: tuple[int, list[Entity]]) -> None:
    length, found = post
    joined: list[Entity] = []
    for entity in found:
        if joined and joined[-1].end == entity.start and joined[-1].type == entity.type:
            joined[-1] = Entity(entity.type, joined[-1].start, entity.end)
        else:
            joined.append(entity)
    assert entities(to_bio(written(length, found, Scheme.BARE), Scheme.BARE)) == joined


@given(st.lists(st.sampled_from(["O", *(f"{letter}-{name}" for letter in "BIES" for name in TYPES)]), max_size=9))
def test_any_tag_sequence_has_the_entities_of_seqevals_default_mode(tags: list[str]) -> None:
    """Including sequences that are invalid in the scheme."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [Entity(name, start, end + 1) for name, start, end in get_entities(tags)]
    assert entities(to_bio(tags, Scheme.BIOES)) == expected


@pytest.mark.parametrize(
    ("scheme", "letters", "reading"),
    [
        (Scheme.BIO, {}, seqeval.IOB2),
        (Scheme.IOB1, {}, seqeval.IOB1),
        (Scheme.BIOES, {}, seqeval.IOBES),
        (Scheme.BIOES, BILOU, seqeval.BILOU),
    ],
)
@given(post=posts())
def test_a_valid_file_has_the_entities_of_seqevals_strict_mode(
    scheme: Scheme, letters: dict[str, str], reading: type, post: tuple[int, list[Entity]]
) -> None:
    length, found = post
    tags = written(length, found, scheme, letters)
    strict = [entity for sequence in seqeval.Entities([tags], reading).entities for entity in sequence]
    assert entities(to_bio(tags, scheme)) == [Entity(entity.tag, entity.start, entity.end) for entity in strict]


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        (["B-PER I-PER O", "O B-LOC"], Scheme.BIO),
        (["O O", "O"], Scheme.BIO),
        (["B-PER O B-PER"], Scheme.BIO),
        (["B-PER I-PER B-PER I-PER O I-LOC"], Scheme.BIO),  # a stray I- tag does not make it IOB1
        (["I-PER I-PER B-PER O I-LOC"], Scheme.IOB1),
        (["I-PER O", "I-LOC B-LOC"], Scheme.IOB1),
        (["I-PER I-PER O I-LOC I-PER"], Scheme.IOB1),  # without any B-
        (["I-LOC B-PER O"], Scheme.BIO),  # in IOB1 the B- would be an I-
        (["B-PER E-PER O S-LOC"], Scheme.BIOES),  # also BMES: without longer entities they are identical
        (["S-PER O"], Scheme.BIOES),
        (["B-PER I-PER L-PER U-LOC"], Scheme.BIOES),
        (["B-PER M-PER E-PER S-LOC"], Scheme.BMES),
        (["W-LOC O B-PER M-PER E-PER"], Scheme.BMES),
        (["PER PER O LOC"], Scheme.BARE),
        (["creative-work O person"], Scheme.BARE),
        (["B-creative-work I-creative-work O"], Scheme.BIO),
        (["B-PER I-PER O PER B-LOC"], Scheme.BIO),  # one mistake does not make them tags without prefix
        (["product E-commerce product O"], Scheme.BARE),  # nor does one type that looks like a BIOES tag
        (["B-PER I-PER O B-LOC I-LOC W-PER"], Scheme.BIO),
    ],
)
def test_recognised(tags: list[str], scheme: Scheme) -> None:
    assert recognise(post.split() for post in tags) == scheme


@pytest.mark.parametrize("scheme", [Scheme.IOB1, Scheme.BIOES, Scheme.BMES, Scheme.BARE])
def test_the_scheme_of_a_written_file_is_recognised(scheme: Scheme) -> None:
    found = [Entity("PER", 0, 3), Entity("PER", 3, 5), Entity("creative-work", 6, 7)]
    tags = written(8, found, scheme)
    assert recognise([["O"], tags]) == scheme


@pytest.mark.parametrize(
    ("tags", "scheme", "bio"),
    [
        ("I-PER I-PER B-PER O I-LOC I-PER", Scheme.IOB1, "B-PER I-PER B-PER O B-LOC B-PER"),
        ("B-PER E-PER S-PER S-PER O E-LOC", Scheme.BIOES, "B-PER I-PER B-PER B-PER O B-LOC"),
        ("B-PER L-PER I-PER", Scheme.BIOES, "B-PER I-PER B-PER"),
        ("B-NS M-NS M-NS E-NS W-NR O", Scheme.BMES, "B-NS I-NS I-NS I-NS B-NR O"),
        ("PER PER LOC O LOC creative-work", Scheme.BARE, "B-PER I-PER B-LOC O B-LOC B-creative-work"),
        ("O I-PER I-PER B-LOC I-PER", Scheme.BIO, "O I-PER I-PER B-LOC I-PER"),
    ],
)
def test_known_answers(tags: str, scheme: Scheme, bio: str) -> None:
    assert to_bio(tags.split(), scheme) == bio.split()


def test_only_changed_tags_are_counted() -> None:
    tags = ["B-PER", "I-PER", "E-PER", "S-LOC", "O"]
    assert converted(tags, to_bio(tags, Scheme.BIOES)) == 2


@pytest.mark.parametrize(
    ("tag", "scheme"),
    [("PER", Scheme.BIO), ("B-", Scheme.BIO), ("B", Scheme.BIOES), ("M-PER", Scheme.BIOES), ("I-PER", Scheme.BMES)],
)
def test_tags_of_another_scheme_are_refused(tag: str, scheme: Scheme) -> None:
    with pytest.raises(DataError, match=rf"the tag '{tag}' is not a {scheme} tag: write O, B-TYPE"):
        to_bio(["O", tag], scheme)
