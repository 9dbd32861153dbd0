"""Tag schemes of column files: which one a file uses, and what its tags are in BIO.

BIO is also known as IOB2, BIOES as IOBES and, with other letters, as BILOU; BMES as BMEWO. Bare tags are the types
themselves, without a prefix. Prefix and type are split at the first hyphen, so that a type may hold one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from mmib.schema import DataError
from mmib.tagging import BEGIN, INSIDE, OUTSIDE, split_tag


class Scheme(StrEnum):
    """How tags mark entities."""

    BIO = "BIO"
    IOB1 = "IOB1"
    BIOES = "BIOES"
    BMES = "BMES"
    BARE = "BARE"


class ForeignTagError(DataError):
    """A tag that is none of its scheme.

    Attributes:
        position: of the tag in its post, counted from 0.
    """

    def __init__(self, tag: str, position: int, scheme: Scheme) -> None:
        expected = ", ".join(f"{letter}-TYPE" for letter in sorted(LETTERS[scheme]))
        super().__init__(f"the tag {tag!r} is none of {scheme}: write {OUTSIDE}, {expected}, or name another scheme")
        self.position = position


# Prefixes of the tags that words have; of those in the second set an entity goes on, after those in the third it ends.
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
    """The scheme of a whole file, given the tags of its posts.

    It is the scheme that the fewest tags do not belong to; of several, the first of BIO, BIOES, BMES and bare tags.
    What would be BIO is IOB1 where some entity opens with I- and B- stands only directly behind an entity of its type:
    there IOB1 needs it, and BIO has it elsewhere too. So BIO with stray I- tags stays BIO.
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
    """Tags of a post in BIO: those of BIO as they are, those of other schemes without stray I- tags.

    A tag that would go on with an entity where none of its type is open opens one. Bare tags of one type that follow
    each other are one entity.

    Raises:
        ForeignTagError: a tag is none of the scheme.
    """
    result = []
    open_type = ""
    for position, tag in enumerate(tags):
        if tag == OUTSIDE:
            result.append(tag)
            open_type = ""
            continue
        # Bare tags behave as if all had I-.
        prefix, name = (INSIDE, tag) if scheme == Scheme.BARE else split_tag(tag)
        if scheme != Scheme.BARE and (not name or prefix not in LETTERS[scheme]):
            raise ForeignTagError(tag, position, scheme)
        goes_on = prefix in CONTINUING and (name == open_type or scheme == Scheme.BIO)
        result.append(f"{INSIDE if goes_on else BEGIN}-{name}")
        open_type = "" if prefix in CLOSING else name
    return result


def converted(tags: Sequence[str], bio: Sequence[str]) -> int:
    """How many tags of a post `to_bio` has changed."""
    return sum(before != after for before, after in zip(tags, bio, strict=True))


def _foreign(letters: Mapping[str, int], scheme: Scheme) -> int:
    """How many tags do not belong to a scheme; the prefix of a bare tag is empty."""
    known = LETTERS.get(scheme, frozenset({""}))
    return sum(count for letter, count in letters.items() if letter not in known)
