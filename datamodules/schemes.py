"""Tag schemes of column files: recognises the scheme of a file and converts its tags to BIO.

BIO is also known as IOB2, BIOES as IOBES and, with other letters, as BILOU; BMES as BMEWO. Bare tags are entity types
without a prefix. Prefix and type are split at the first hyphen, so that a type may contain hyphens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from mmib.schema import DataError
from mmib.tagging import BEGIN, INSIDE, OUTSIDE, split_tag


class Scheme(StrEnum):
    """Tag schemes."""

    BIO = "BIO"
    IOB1 = "IOB1"
    BIOES = "BIOES"
    BMES = "BMES"
    BARE = "BARE"


class ForeignTagError(DataError):
    """A tag that does not belong to its scheme.

    Attributes:
        position: position of the tag in its post, counted from 0.
    """

    def __init__(self, tag: str, position: int, scheme: Scheme) -> None:
        expected = ", ".join(f"{letter}-TYPE" for letter in sorted(LETTERS[scheme]))
        super().__init__(f"the tag {tag!r} is not a {scheme} tag: write {OUTSIDE}, {expected}, or name another scheme")
        self.position = position


# Prefixes of each scheme; those in CONTINUING continue an entity, those in CLOSING end it.
LETTERS = {
    Scheme.BIO: frozenset("BI"),
    Scheme.IOB1: frozenset("BI"),
    Scheme.BIOES: frozenset("BIESLU"),
    Scheme.BMES: frozenset("BMESW"),
}
CONTINUING = frozenset("IMEL")
CLOSING = frozenset("ESLUW")
ALL_LETTERS = frozenset().union(*LETTERS.values())


def recognise(posts: Iterable[Sequence[str]]) -> Scheme:
    """Return the scheme of a whole file, given the tags of its posts.

    It is the scheme with the fewest foreign tags; in case of a tie, the first of BIO, BIOES, BMES and bare tags.
    BIO becomes IOB1 if some entity starts with I- and B- occurs only directly after an entity of the same type, where
    IOB1 needs it: in BIO it occurs elsewhere too. BIO with stray I- tags thus remains BIO.
    """
    letters: Counter[str] = Counter()
    opened_inside = begun_elsewhere = False
    for tags in posts:
        before = ""
        for tag in tags:
            prefix, name = split_tag(tag)
            if tag != OUTSIDE:
                letters[prefix if name and prefix in ALL_LETTERS else ""] += 1
                opened_inside |= prefix == INSIDE and name != before
                begun_elsewhere |= prefix == BEGIN and name != before
            before = name
    schemes = (Scheme.BIO, Scheme.BIOES, Scheme.BMES, Scheme.BARE)
    best = min(schemes, key=lambda scheme: _foreign(letters, scheme))
    return Scheme.IOB1 if best == Scheme.BIO and opened_inside and not begun_elsewhere else best


def to_bio(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """Convert the tags of a post to BIO: BIO tags are unchanged, tags of other schemes have no stray I- afterwards.

    A tag that continues an entity when none of its type is open starts a new one. Consecutive bare tags of one type
    are one entity.

    Raises:
        ForeignTagError: a tag does not belong to the scheme.
    """
    result = []
    open_type = ""
    for position, tag in enumerate(tags):
        if tag == OUTSIDE:
            result.append(tag)
            open_type = ""
            continue
        # Bare tags are treated as if all of them had the prefix I-.
        prefix, name = (INSIDE, tag) if scheme == Scheme.BARE else split_tag(tag)
        if scheme != Scheme.BARE and (not name or prefix not in LETTERS[scheme]):
            raise ForeignTagError(tag, position, scheme)
        goes_on = prefix in CONTINUING and (name == open_type or scheme == Scheme.BIO)
        result.append(f"{INSIDE if goes_on else BEGIN}-{name}")
        open_type = "" if prefix in CLOSING else name
    return result


def converted(tags: Sequence[str], bio: Sequence[str]) -> int:
    """Number of tags of a post that `to_bio` has changed."""
    return sum(before != after for before, after in zip(tags, bio, strict=True))


def _foreign(letters: Mapping[str, int], scheme: Scheme) -> int:
    """Number of tags that do not belong to a scheme; the prefix of a bare tag is empty."""
    known = LETTERS.get(scheme, frozenset({""}))
    return sum(count for letter, count in letters.items() if letter not in known)
