"""Sampling of posts: words, gold labels, and the contents of their images, which are painted elsewhere.

Every post has its own random stream, so it does not depend on which other posts are sampled, or in which order. Posts
with entities serve both tasks; chatter has no entities and no pairs, and serves entity recognition only.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from mmib.datamodules.demo.names import draw_names
from mmib.datamodules.demo.settings import SCENE, DemoSettings
from mmib.datamodules.demo.themes import COLOURS, FAMILIES, MEANINGS, THEMES, family_posterior, theme_prior
from mmib.datamodules.demo.wordings import (
    AMBIGUOUS,
    CHATTER,
    DECIDED,
    EMOJI,
    ENDINGS,
    HASHTAGS,
    JOINTS,
    ORDINARY_WORDS,
    POINTERS,
    SPLIT_EMOJI,
)
from mmib.datamodules.released import NO_RELATION

EASY, HARD = "easy", "hard"
LEVELS: tuple[str, ...] = (EASY, HARD)

# Number of people in a hard image, whether it fits its post or not.
PEOPLE_LAW: dict[int, float] = {2: 0.15, 3: 0.5, 4: 0.35}
TWO_OPEN_SHARE = 0.6  # of the hard posts: the image determines both clauses
CROSS_SHARE = 0.15  # of the posts: they have another pair across their clauses
DECIDED_NONE_SHARE = 0.3
CHATTER_SHARE = 0.08  # of all posts
CAPITAL_SHARE = 0.5  # of the ordinary words of chatter
SPLIT_EMOJI_SHARE = 0.3  # of the chatter
DRESSING = {"retweet": 0.12, "hashtag": 0.3, "url": 0.12, "emoji": 0.2}


@dataclass(frozen=True)
class Clause:
    """A part of a post that names two entities.

    Attributes:
        words: its tokens.
        head: span of the head's name in `words`.
        tail: span of the tail's name.
        types: entity types of head and tail.
        relation: its gold relation.
        family: the family of an ambiguous clause; None if the words determine the relation.
        theme: the theme of an ambiguous clause.
        colour: the shirt colour that a hard ambiguous clause refers to.
    """

    words: tuple[str, ...]
    head: tuple[int, int]
    tail: tuple[int, int]
    types: tuple[str, str]
    relation: str
    family: str | None = None
    theme: str | None = None
    colour: str | None = None

    @property
    def ambiguous(self) -> bool:
        """Whether the words leave the relation open."""
        return self.family is not None


@dataclass(frozen=True)
class Picture:
    """The relevant contents of an image: one of a scene, people, or something unrelated.

    Attributes:
        scene: a theme.
        people: (shirt colour, theme of the prop) of each person; their order has no meaning.
        unrelated: a name of `UNRELATED`, for an image without any theme.
    """

    scene: str | None = None
    people: tuple[tuple[str, str], ...] = ()
    unrelated: str | None = None


@dataclass(frozen=True)
class Pair:
    """A pair of entities of a post with their relation; head and tail are indices in `Post.entities`."""

    head: int
    tail: int
    relation: str
    kind: str  # "ambiguous", "text" or "cross"
    clause: int | None  # None for a pair across clauses


@dataclass(frozen=True)
class Post:
    """A post with its ground truth.

    Attributes:
        identity: its id in the files of both data sets.
        split: its split.
        level: its level.
        tokens: its words.
        clauses: its parts that name entities; empty for chatter.
        entities: (start, end, type) of each name; 2 i is the head of clause i, 2 i + 1 its tail.
        pairs: the pairs for relation extraction; empty for chatter.
        picture: contents of its image.
        drawing: identity of the first post that shows this image; often its own.
        noise: kind of an image that fits none of the clauses, from `NOISE_KINDS`; None if the image fits, and for
            chatter.
        missing: whether the image is named but does not exist.
    """

    identity: str
    split: str
    level: str
    tokens: tuple[str, ...]
    clauses: tuple[Clause, ...]
    entities: tuple[tuple[int, int, str], ...]
    pairs: tuple[Pair, ...]
    picture: Picture
    drawing: str
    noise: str | None
    missing: bool

    @property
    def image(self) -> str:
        """File name of the image."""
        return f"{self.identity}.jpg"


def opaque_name(*parts: object) -> str:
    """A name without meaning that is the same in every build."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:12]


def draw_posts(settings: DemoSettings, split: str) -> list[Post]:
    """Sample all posts of a split, with levels in random order and chatter at random places."""
    hard = settings.hard_images(split)
    levels = [HARD] * hard + [EASY] * (settings.images(split) - hard)
    random.Random(f"{settings.seed}/{split}/levels").shuffle(levels)
    posts: list[Post] = []
    for number in range(settings.posts(split)):
        image, place = divmod(number, settings.sharing(split))
        posts.append(draw_post(settings, split, number, levels[image], posts[-place] if place else None))
    rng = random.Random(f"{settings.seed}/{split}/chatter")
    chatter: list[Post] = []
    for number in range(round(len(posts) * CHATTER_SHARE / (1.0 - CHATTER_SHARE))):
        place = number % settings.sharing(split)
        level = chatter[-place].level if place else rng.choice(levels)
        chatter.append(draw_chatter(settings, split, number, level, chatter[-place] if place else None))
        posts.insert(rng.randint(0, len(posts)), chatter[-1])
    return posts


def draw_post(settings: DemoSettings, split: str, number: int, level: str, first: Post | None = None) -> Post:
    """Sample a post that names entities, with its own image or that of an earlier post."""
    rng = random.Random(f"{settings.seed}/{split}/{number}/{level}")
    families = _draw_families(rng, level)
    colours: Sequence[str | None] = [None] * len(families)
    if level == HARD:
        colours = rng.sample(sorted(COLOURS), len(families))
    themes = _draw_themes(rng, families)
    # No post fits an unrelated image; a post that shares any other image fits it with p = 1 - hidden_noise.
    fitting = first is None or (rng.random() >= settings.hidden_noise(split) and not first.picture.unrelated)
    if first is not None and fitting:
        families, colours, themes = _ask_about(rng, first.picture, len(families))
    names = draw_names(rng, split, 4)
    clauses = [
        _ambiguous(rng, family, theme, colour, names[2 * index : 2 * index + 2])
        for index, (family, theme, colour) in enumerate(zip(families, themes, colours, strict=True))
    ]
    if len(clauses) < 2:
        clauses.append(_decided(rng, names[2:]))
        rng.shuffle(clauses)
    tokens, offsets = _join(rng, split, [clause.words for clause in clauses])
    identity = f"demo_{opaque_name(settings.seed, split, number)}"
    if first is None:
        fitting = rng.random() >= settings.noise_share(split)
    pairs = _pairs(rng, clauses)
    if first is not None:
        picture = first.picture
    elif fitting:
        picture = _draw_picture(rng, level, dict(zip(colours, themes, strict=True)))
    else:
        picture = _draw_noise(settings, split, random.Random(f"{identity}/noise"), _draw_picture(rng, level, {}))
    return Post(
        identity=identity,
        split=split,
        level=level,
        tokens=tokens,
        clauses=tuple(clauses),
        entities=_entities(clauses, offsets),
        pairs=pairs,
        picture=picture,
        drawing=identity if first is None else first.drawing,
        noise=None if fitting else picture.unrelated or SCENE,
        missing=rng.random() < settings.missing,
    )


def draw_chatter(settings: DemoSettings, split: str, number: int, level: str, first: Post | None = None) -> Post:
    """Sample a post without entities: its image is like any other of its level, but has no clause to fit."""
    rng = random.Random(f"{settings.seed}/{split}/chatter/{number}/{level}")
    words = iter(rng.sample(ORDINARY_WORDS, 4))
    sentences = [
        tuple(_capitalise(rng, next(words)) if piece == "{w}" else piece for piece in wording.split())
        for wording in rng.sample(CHATTER, 2)
    ]
    tokens, _ = _join(rng, split, sentences)
    identity = f"demo_{opaque_name(settings.seed, split, 'chatter', number)}"
    tokens += SPLIT_EMOJI if rng.random() < SPLIT_EMOJI_SHARE else ()
    picture = _draw_picture(rng, level, {}) if first is None else first.picture
    chance = random.Random(f"{identity}/noise")
    if first is None and chance.random() < settings.noise_share(split):
        picture = _draw_noise(settings, split, chance, picture)
    return Post(
        identity=identity,
        split=split,
        level=level,
        tokens=tokens,
        clauses=(),
        entities=(),
        pairs=(),
        picture=picture,
        drawing=identity if first is None else first.drawing,
        noise=None,
        missing=rng.random() < settings.missing,
    )


def _capitalise(rng: random.Random, word: str) -> str:
    return word.capitalize() if rng.random() < CAPITAL_SHARE else word


def _draw_families(rng: random.Random, level: str) -> list[str]:
    count = 2 if level == HARD and rng.random() < TWO_OPEN_SHARE else 1
    return [rng.choice(FAMILIES) for _ in range(count)]


def _draw_themes(rng: random.Random, families: list[str]) -> list[str]:
    """Sample the themes of the ambiguous clauses from the product of their priors, restricted to distinct themes."""
    while True:
        themes = []
        for family in families:
            prior = theme_prior(family)
            themes.append(rng.choices(list(prior), list(prior.values()))[0])
        if len(set(themes)) == len(themes):
            return themes


def _ask_about(rng: random.Random, picture: Picture, count: int) -> tuple[list[str], Sequence[str | None], list[str]]:
    """Sample families, colours and themes of clauses that fit an image: distinct contents, families by posterior."""
    shown: list[tuple[str | None, str]] = [*picture.people] if picture.scene is None else [(None, picture.scene)]
    colours, themes = zip(*rng.sample(shown, count), strict=True)
    posteriors = [family_posterior(theme) for theme in themes]
    families = [rng.choices(list(posterior), list(posterior.values()))[0] for posterior in posteriors]
    return families, colours, list(themes)


def _draw_picture(rng: random.Random, level: str, wanted: dict[str | None, str]) -> Picture:
    """Sample an image that shows `wanted`, themes by colour; everything else is uniform."""
    if level == EASY:
        return Picture(scene=next(iter(wanted.values()), None) or rng.choice(THEMES))
    count = rng.choices(list(PEOPLE_LAW), list(PEOPLE_LAW.values()))[0] - len(wanted)
    colours = rng.sample(sorted(set(COLOURS) - set(wanted)), count)
    themes = rng.sample(sorted(set(THEMES) - set(wanted.values())), count)
    people = [*((str(colour), theme) for colour, theme in wanted.items()), *zip(colours, themes, strict=True)]
    rng.shuffle(people)
    return Picture(people=tuple(people))


def _draw_noise(settings: DemoSettings, split: str, rng: random.Random, scene: Picture) -> Picture:
    """Sample an irrelevant image, `scene` or an unrelated one; a separate `rng` leaves the post's stream unchanged."""
    shares = settings.kind_shares(split)
    name = rng.choices(list(shares), list(shares.values()))[0]
    return scene if name == SCENE else Picture(unrelated=name)


def _ambiguous(rng: random.Random, family: str, theme: str, colour: str | None, names: list[tuple[str, ...]]) -> Clause:
    meaning = MEANINGS[family][theme]
    wording = rng.choice(AMBIGUOUS[family])
    if colour is not None:
        wording = wording.replace("{h}", rng.choice(POINTERS[family]).replace("{c}", colour))
    words, head, tail = _fill(wording, names)
    types = (meaning.head_type, meaning.tail_type)
    return Clause(words, head, tail, types, meaning.relation, family, theme, colour)


def _decided(rng: random.Random, names: list[tuple[str, ...]]) -> Clause:
    none = rng.random() < DECIDED_NONE_SHARE
    relation, *types = rng.choice([key for key in DECIDED if (key[0] == NO_RELATION) == none])
    words, head, tail = _fill(rng.choice(DECIDED[relation, types[0], types[1]]), names)
    return Clause(words, head, tail, (types[0], types[1]), relation)


def _fill(wording: str, names: list[tuple[str, ...]]) -> tuple[tuple[str, ...], tuple[int, int], tuple[int, int]]:
    words: list[str] = []
    spans: dict[str, tuple[int, int]] = {}
    slots = dict(zip(("{h}", "{t}"), names, strict=True))
    for piece in wording.split():
        filled = slots.get(piece, (piece,))
        spans[piece] = (len(words), len(words) + len(filled))
        words.extend(filled)
    return tuple(words), spans["{h}"], spans["{t}"]


def _join(rng: random.Random, split: str, sentences: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], list[int]]:
    """Return the tokens of a post with extra tokens, and the start of each sentence in them."""
    handle = draw_names(rng, split, 1)[0][0].lower()
    wears = {name: rng.random() < share for name, share in DRESSING.items()}
    tokens = ["RT", f"@{handle}", ":"] if wears["retweet"] else []
    offsets = []
    for index, sentence in enumerate(sentences):
        tokens.extend([rng.choice(JOINTS)] if index else [])
        offsets.append(len(tokens))
        tokens.extend(sentence)
    tail = [rng.choice(ENDINGS)]
    tail += [rng.choice(EMOJI)] if wears["emoji"] else []
    tail += [rng.choice(HASHTAGS)] if wears["hashtag"] else []
    tail += [f"https://t.co/{opaque_name(rng.random())[:4]}"] if wears["url"] else []
    return tuple(tokens + [token for token in tail if token]), offsets


def _entities(clauses: list[Clause], offsets: list[int]) -> tuple[tuple[int, int, str], ...]:
    """Head and tail of each clause, in the order of `Post.entities`."""
    return tuple(
        (start + offset, end + offset, entity_type)
        for clause, offset in zip(clauses, offsets, strict=True)
        for (start, end), entity_type in zip((clause.head, clause.tail), clause.types, strict=True)
    )


def _pairs(rng: random.Random, clauses: list[Clause]) -> tuple[Pair, ...]:
    pairs = [
        Pair(2 * index, 2 * index + 1, clause.relation, "ambiguous" if clause.ambiguous else "text", index)
        for index, clause in enumerate(clauses)
    ]
    if rng.random() < CROSS_SHARE:
        one, other = rng.sample(range(len(clauses)), 2)
        pairs.append(Pair(2 * one, 2 * other + 1, NO_RELATION, "cross", None))
    return tuple(pairs)
