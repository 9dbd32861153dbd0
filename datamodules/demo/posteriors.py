"""Exact posteriors of a post under the generating process, by enumeration.

The unknowns are the themes of the ambiguous clauses and whether the image fits its post. Wordings, names, extra tokens
and the drawing itself are independent of both given the contents of the image, so they cancel.

An unrelated image fits no post, so that only the words are informative. Any other image is irrelevant with the prior
probability `noise`, an argument of these functions: `DemoSettings.hidden_noise` of the post's split.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import defaultdict
from typing import Literal

from mmib.datamodules.demo.posts import EASY, HARD, Clause, Post
from mmib.datamodules.demo.themes import COLOURS, MEANINGS, THEMES, Meaning, theme_prior

# The view of the image: nothing; everything; or its contents without who holds what. The last is the most that a
# description of the whole image without regions can contain on the hard level.
View = Literal["text", "multimodal", "unbound"]

Belief = dict[tuple[str, ...], float]


def relation_posteriors(post: Post, view: View, noise: float) -> list[dict[str, float]]:
    """p(relation | words and view), without zeros, for each of the post's pairs.

    Args:
        post: the post.
        view: the view of its image.
        noise: p(irrelevant | an image that is not unrelated).
    """
    belief = theme_belief(post, view, noise)
    return [
        {pair.relation: 1.0} if pair.clause is None else _clause_posterior(post, pair.clause, "relation", belief)
        for pair in post.pairs
    ]


def entity_posteriors(post: Post, view: View, noise: float) -> list[dict[str, float]]:
    """p(type | words and view), without zeros, for each of the post's entities.

    Their spans are certain: names come from known pools, and no wording has two adjacent names.

    Args: see `relation_posteriors`.
    """
    belief = theme_belief(post, view, noise)
    return [
        _clause_posterior(post, index, part, belief)
        for index in range(len(post.clauses))
        for part in ("head_type", "tail_type")
    ]


def _clause_posterior(post: Post, index: int, part: str, belief: Belief) -> dict[str, float]:
    """p(an attribute of the clause's `Meaning`) under a belief about the post's themes."""
    clause = post.clauses[index]
    if not clause.ambiguous:
        return {getattr(Meaning(clause.relation, *clause.types), part): 1.0}
    place = _open_clauses(post).index(index)
    meanings = MEANINGS[str(clause.family)]
    mass: dict[str, float] = defaultdict(float)
    for themes, probability in belief.items():
        mass[getattr(meanings[themes[place]], part)] += probability
    return {label: p for label, p in sorted(mass.items()) if p > 0.0}


def theme_belief(post: Post, view: View, noise: float) -> Belief:
    """Joint p(themes of the ambiguous clauses | words and view), in the order of the clauses."""
    prior = _joint_prior(post)
    if view == "text" or post.missing or post.picture.unrelated:
        return prior
    fitting, irrelevant = _image_likelihoods(post, view, noise)
    return _normalise({themes: p * (fitting[themes] + irrelevant) for themes, p in prior.items()})


def relevance_posterior(post: Post, noise: float) -> float | None:
    """p(the image fits | words and image), which ranks images optimally; None without an image or a clause to fit.

    Args: see `relation_posteriors`.
    """
    if post.missing or not post.clauses:
        return None
    if post.picture.unrelated:
        return 0.0
    fitting, irrelevant = _image_likelihoods(post, "multimodal", noise)
    relevant = sum(p * fitting[themes] for themes, p in _joint_prior(post).items())
    return relevant / (relevant + irrelevant)


def image_likelihood(post: Post, noise: float) -> float:
    """p(contents of the image | words), up to a factor that depends only on the image.

    Args: see `relation_posteriors`.
    """
    if post.picture.unrelated or not post.clauses:
        return 1.0
    level = HARD if post.picture.people else EASY
    if level != post.level:
        return 0.0
    fitting, irrelevant = _image_likelihoods(post, "multimodal", noise)
    return irrelevant + sum(p * fitting[themes] for themes, p in _joint_prior(post).items())


def _image_likelihoods(post: Post, view: View, noise: float) -> tuple[Belief, float]:
    """p(image, it fits | themes) by themes, and p(image, it is irrelevant), which does not depend on themes."""
    clauses = [post.clauses[index] for index in _open_clauses(post)]
    likelihood = _people_likelihood if post.level == HARD else _scene_likelihood
    fitting = {themes: (1.0 - noise) * likelihood(post, clauses, themes, view) for themes in _joint_prior(post)}
    return fitting, noise * likelihood(post, [], (), view)


def _open_clauses(post: Post) -> list[int]:
    return [index for index, clause in enumerate(post.clauses) if clause.ambiguous]


def _joint_prior(post: Post) -> Belief:
    """p(themes of the ambiguous clauses | the words)."""
    return dict(_prior_of(tuple(str(post.clauses[index].family) for index in _open_clauses(post))))


@functools.cache
def _prior_of(families: tuple[str, ...]) -> Belief:
    """The product of the priors, restricted to distinct themes: two clauses of a post never share a theme."""
    priors = [theme_prior(family) for family in families]
    return _normalise(
        {
            themes: math.prod(prior[theme] for prior, theme in zip(priors, themes, strict=True))
            for themes in itertools.product(THEMES, repeat=len(families))
            if len(set(themes)) == len(themes)
        }
    )


def _normalise(weights: Belief) -> Belief:
    total = sum(weights.values())
    return {themes: weight / total for themes, weight in weights.items()}


def _scene_likelihood(post: Post, clauses: list[Clause], themes: tuple[str, ...], view: View) -> float:
    """p(scene | themes); without clauses, p(scene) of an irrelevant image."""
    if not clauses:
        return 1.0 / len(THEMES)
    return float(post.picture.scene == themes[0])


def _people_likelihood(post: Post, clauses: list[Clause], themes: tuple[str, ...], view: View) -> float:
    """p(people | their number, themes), for either view of the image; without clauses, that of an irrelevant image.

    The clauses fix some pairs of colour and prop; the other people have any of the remaining colours and props. In the
    unbound view, colours and props are two sets: all matchings of the remaining people give the same two sets.
    """
    people = post.picture.people
    wanted = [(str(clause.colour), theme) for clause, theme in zip(clauses, themes, strict=True)]
    colours, props = ({person[part] for person in people} for part in (0, 1))
    if view == "unbound":
        seen = all(colour in colours and theme in props for colour, theme in wanted)
    else:
        seen = set(wanted) <= set(people)
    rest = len(people) - len(wanted)
    matchings = 1 if view == "unbound" else math.factorial(rest)
    ways = math.comb(len(COLOURS) - len(wanted), rest) * math.comb(len(THEMES) - len(wanted), rest) * matchings
    return float(seen) / ways
