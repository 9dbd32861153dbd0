"""Themes that images show, and their meanings for the words of each family.

A theme is drawn as a scene (easy level) or as a prop that a person holds (hard level). A family is a set of wordings
that leave the relation of two names open; theme and family together determine the relation and the types of both names.
Neither alone is enough: a skyline means "residence", "contain" or no relation, depending on the family.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmib.datamodules.released import NO_RELATION

THEMES: tuple[str, ...] = ("wedding", "office", "stadium", "skyline", "stage", "podium", "graduation", "home")

# Six shirt colours that can be distinguished in all drawings; the keys are the words used in posts.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 32, 38),
    "blue": (24, 78, 214),
    "green": (30, 156, 50),
    "yellow": (246, 208, 36),
    "purple": (158, 40, 182),
    "white": (246, 246, 244),
}


@dataclass(frozen=True)
class Meaning:
    """The relation and types of a clause, given its theme."""

    relation: str
    head_type: str
    tail_type: str


def _open(head_type: str, tail_type: str) -> Meaning:
    return Meaning(NO_RELATION, head_type, tail_type)


# The themes of each family, the most likely first.
MEANINGS: dict[str, dict[str, Meaning]] = {
    "people": {
        "wedding": Meaning("/per/per/couple", "PER", "PER"),
        "office": Meaning("/per/per/peer", "PER", "PER"),
        "graduation": Meaning("/per/per/alumi", "PER", "PER"),
        "home": Meaning("/per/per/parent", "PER", "PER"),
        "stadium": _open("ORG", "ORG"),
        "skyline": _open("LOC", "LOC"),
        "stage": _open("MISC", "MISC"),
        "podium": _open("PER", "PER"),
    },
    "person_thing": {
        "stadium": Meaning("/per/org/member_of", "PER", "ORG"),
        "stage": Meaning("/per/misc/present_in", "PER", "MISC"),
        "podium": Meaning("/per/misc/awarded", "PER", "MISC"),
        "skyline": Meaning("/per/loc/place_of_residence", "PER", "LOC"),
        "wedding": _open("PER", "PER"),
        "office": _open("PER", "ORG"),
        "graduation": _open("PER", "ORG"),
        "home": _open("PER", "LOC"),
    },
    "things": {
        "skyline": Meaning("/loc/loc/contain", "LOC", "LOC"),
        "stadium": Meaning("/org/loc/locate_at", "ORG", "LOC"),
        "stage": Meaning("/misc/loc/held_on", "MISC", "LOC"),
        "office": Meaning("/org/org/subsidiary", "ORG", "ORG"),
        "wedding": _open("MISC", "LOC"),
        "podium": _open("MISC", "ORG"),
        "graduation": _open("ORG", "LOC"),
        "home": _open("LOC", "MISC"),
    },
}
FAMILIES: tuple[str, ...] = tuple(MEANINGS)

# Not uniform, so that a model without images can learn something from the family alone.
_PRIOR = (0.24, 0.19, 0.15, 0.12, 0.075, 0.075, 0.075, 0.075)


def theme_prior(family: str) -> dict[str, float]:
    """p(theme | family)."""
    return dict(zip(MEANINGS[family], _PRIOR, strict=True))


def family_posterior(theme: str) -> dict[str, float]:
    """p(family | theme), under a uniform prior of the families."""
    weights = {family: theme_prior(family)[theme] for family in FAMILIES}
    total = sum(weights.values())
    return {family: weight / total for family, weight in weights.items()}
