"""The generating process: levels, mixture, and wordings that do not leak labels."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict

import pytest

from mmib.datamodules.demo.posts import CHATTER_SHARE, EASY, HARD, LEVELS, Post, draw_chatter, draw_post, draw_posts
from mmib.datamodules.demo.settings import NOISE_KINDS, SPLITS, UNRELATED, DemoSettings
from mmib.datamodules.demo.themes import COLOURS, FAMILIES, MEANINGS, THEMES, theme_prior
from mmib.datamodules.demo.wordings import AMBIGUOUS, CHATTER, DECIDED, JOINTS, POINTERS
from mmib.datamodules.released import MNRE, NO_RELATION, TWITTER
from mmib.schema import ConfigError

SETTINGS = DemoSettings()


@pytest.fixture(scope="module")
def train() -> list[Post]:
    """Posts with entities."""
    return [post for post in draw_posts(SETTINGS, "train") if post.pairs]


@pytest.fixture(scope="module")
def chatter() -> list[Post]:
    """Posts without entities."""
    return [draw_chatter(SETTINGS, "train", number, LEVELS[number % 2]) for number in range(1000)]


def test_the_test_split_has_a_thousand_rows_of_each_level() -> None:
    rows = Counter(post.level for post in draw_posts(SETTINGS, "test") for _ in post.pairs)
    assert min(rows[level] for level in LEVELS) >= 1000


def test_training_mixes_easy_and_hard_posts_three_to_one(train: list[Post]) -> None:
    rows = Counter(post.level for post in train for _ in post.pairs)
    assert rows[EASY] / rows[HARD] == pytest.approx(3.0, rel=0.1)


def test_enough_rows_need_the_image(train: list[Post]) -> None:
    for level in LEVELS:
        kinds = Counter(pair.kind for post in train if post.level == level for pair in post.pairs)
        assert kinds["ambiguous"] / kinds.total() > 0.45
        assert min(kinds[kind] for kind in ("text", "cross")) > 0


def test_the_seed_determines_the_posts() -> None:
    tiny = DemoSettings(size="tiny")
    assert draw_posts(tiny, "val") == draw_posts(tiny, "val")
    assert draw_posts(tiny, "val") != draw_posts(DemoSettings(size="tiny", seed=1), "val")


def test_a_post_depends_only_on_the_first_post_with_its_image(train: list[Post]) -> None:
    first = {post.identity: post for post in train}
    for number, post in enumerate(train):
        shown = None if post.drawing == post.identity else first[post.drawing]
        assert post == draw_post(SETTINGS, "train", number, post.level, shown)


def test_only_training_posts_share_images(train: list[Post], chatter: list[Post]) -> None:
    showing: dict[str, list[Post]] = defaultdict(list)
    for post in train:
        showing[post.drawing].append(post)
    assert {len(posts) for posts in showing.values()} == {SETTINGS.posts_per_image}
    assert all(len({(post.level, post.picture) for post in posts}) == 1 for posts in showing.values())
    assert len(showing) == SETTINGS.images("train")
    for split in ("val", "test"):
        assert all(post.drawing == post.identity for post in draw_posts(SETTINGS, split))


def test_posts_with_the_same_image_ask_about_different_things(train: list[Post]) -> None:
    asked = defaultdict(set)
    for post in train:
        if post.level == HARD and not post.noise:
            asked[post.drawing] |= {(clause.family, clause.colour) for clause in post.clauses if clause.ambiguous}
    assert sum(map(len, asked.values())) / len(asked) > 3


def test_themes_of_a_family_follow_their_prior_whether_or_not_images_are_shared(train: list[Post]) -> None:
    for unshared in (True, False):
        for family in FAMILIES:
            themes = Counter(
                clause.theme
                for post in train
                if (post.drawing == post.identity) == unshared and post.level == EASY
                for clause in post.clauses
                if clause.family == family
            )
            for theme, probability in theme_prior(family).items():
                assert themes[theme] / themes.total() == pytest.approx(probability, abs=0.05)


@pytest.mark.parametrize("split", SPLITS)
def test_chatter_has_its_rate_and_occurs_at_both_levels(split: str) -> None:
    posts = draw_posts(SETTINGS, split)
    places = [place for place, post in enumerate(posts) if not post.entities]
    assert len(places) / len(posts) == pytest.approx(CHATTER_SHARE, abs=0.002)
    assert sum(places) / len(places) == pytest.approx(len(posts) / 2, rel=0.2)
    hard = [posts[place].level == HARD for place in places]
    assert sum(hard) / len(hard) == pytest.approx(SETTINGS.hard_images(split) / SETTINGS.images(split), abs=0.13)


def test_chatter_has_no_names_and_no_relations(chatter: list[Post]) -> None:
    for post in chatter:
        assert (post.entities, post.pairs, post.clauses, post.noise) == ((), (), (), None)
        assert all(token and not any(map(str.isspace, token)) for token in post.tokens)
        assert not any("{" in token for token in post.tokens)


def test_chatter_has_the_same_decorations_as_other_posts(train: list[Post], chatter: list[Post]) -> None:
    for mark in ("@", "#", "https://", "RT"):
        shares = [
            sum(any(t.startswith(mark) for t in post.tokens) for post in group) / len(group)
            for group in (train, chatter)
        ]
        assert 0.05 < shares[0] == pytest.approx(shares[1], abs=0.05)
    lengths = [sum(len(post.tokens) for post in group) / len(group) for group in (train, chatter)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.25)


def test_capitals_do_not_reveal_names(chatter: list[Post]) -> None:
    """In most chatter, ordinary words occur within sentences with and without a capital."""
    capitals = [sum(token.istitle() for token in post.tokens[1:]) for post in chatter]
    assert sum(count > 0 for count in capitals) / len(chatter) > 0.7
    words = {token for post in chatter for token in post.tokens}
    assert {"coffee", "Coffee", "weekend", "Weekend"} <= words


def test_chatter_has_images_like_other_posts(chatter: list[Post]) -> None:
    scenes = Counter(post.picture.scene for post in chatter if post.level == EASY)
    assert set(scenes) == set(THEMES)
    for post in chatter:
        assert (post.picture.scene is None) == (post.level == HARD)
        assert len(post.picture.people) in ((0,) if post.level == EASY else (2, 3, 4))
    assert sum(post.missing for post in chatter) / len(chatter) == pytest.approx(SETTINGS.missing, abs=0.03)


def test_some_chatter_contains_a_split_emoji(chatter: list[Post]) -> None:
    split = [post for post in chatter if "\ufe0f" in post.tokens]
    assert 0.2 < len(split) / len(chatter) < 0.4
    assert all(post.tokens[post.tokens.index("\ufe0f") - 1] == "\u2764" for post in split)


def test_spans_are_unambiguous(train: list[Post]) -> None:
    """No two names are adjacent: a run of name tokens is one name, so ceilings need not model uncertain spans."""
    for post in train:
        spans = sorted((start, end) for start, end, _ in post.entities)
        assert all(end < start for (_, end), (start, _) in itertools.pairwise(spans))
    pointed = [w.replace("{h}", p) for family in FAMILIES for w in AMBIGUOUS[family] for p in POINTERS[family]]
    for wording in itertools.chain(pointed, *AMBIGUOUS.values(), *DECIDED.values()):
        assert not any({one, other} <= {"{h}", "{t}"} for one, other in itertools.pairwise(wording.split()))
    assert all(JOINTS)


def test_each_wording_belongs_to_one_family() -> None:
    """So a wording determines its types, or reveals no more than its family."""
    wordings = [*itertools.chain(*AMBIGUOUS.values(), *DECIDED.values()), *CHATTER]
    assert len(set(wordings)) == len(wordings)


def test_spans_are_inside_the_post_and_contain_names(train: list[Post]) -> None:
    for post in train:
        assert len(post.entities) == 4
        for start, end, entity_type in post.entities:
            name = post.tokens[start:end]
            assert 1 <= len(name) <= 2
            assert all(token.istitle() for token in name)
            assert entity_type in TWITTER.names
        covered = [place for start, end, _ in post.entities for place in range(start, end)]
        assert len(covered) == len(set(covered))


def test_identities_are_unique() -> None:
    identities = [post.identity for split in SPLITS for post in draw_posts(SETTINGS, split)]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("level", LEVELS)
def test_words_of_an_ambiguous_clause_are_independent_of_its_theme(level: str) -> None:
    """Chi-square of wording against theme within a family, bounded by 5 standard deviations above its mean."""
    counts: dict[str, Counter[tuple[str, str]]] = {family: Counter() for family in FAMILIES}
    for number in range(6000):
        for clause in draw_post(SETTINGS, "train", number, level).clauses:
            if clause.family is not None:
                counts[clause.family][wording_of(clause.words, clause.head, clause.tail), str(clause.theme)] += 1
    for table in counts.values():
        statistic, freedom = chi_square(table)
        assert statistic < freedom + 5 * (2 * freedom) ** 0.5


def wording_of(words: tuple[str, ...], head: tuple[int, int], tail: tuple[int, int]) -> str:
    names = set(range(*head)) | set(range(*tail))
    return " ".join("_" if i in names else "COLOUR" if word in COLOURS else word for i, word in enumerate(words))


def chi_square(table: Counter[tuple[str, str]]) -> tuple[float, int]:
    rows, columns = Counter[str](), Counter[str]()
    for (row, column), count in table.items():
        rows[row] += count
        columns[column] += count
    expected = {(row, column): rows[row] * columns[column] / table.total() for row in rows for column in columns}
    statistic = sum((table[cell] - value) ** 2 / value for cell, value in expected.items())
    return statistic, (len(rows) - 1) * (len(columns) - 1)


def test_a_relevant_image_shows_what_the_words_refer_to(train: list[Post]) -> None:
    for post in train:
        if post.noise:
            continue
        for clause in post.clauses:
            if clause.ambiguous and post.level == EASY:
                assert post.picture.scene == clause.theme
            elif clause.ambiguous:
                assert (clause.colour, clause.theme) in post.picture.people


def test_people_of_an_image_differ_in_shirt_and_prop(train: list[Post]) -> None:
    for post in train:
        if post.level == HARD:
            colours, props = zip(*post.picture.people, strict=True)
            assert 2 <= len(colours) <= 4
            assert len(set(colours)) == len(set(props)) == len(colours)


def test_noise_and_missing_images_have_their_rates() -> None:
    posts = [post for post in draw_posts(DemoSettings(noise=0.3, missing=0.2), "train") if post.pairs]
    assert sum(post.noise == "scene" for post in posts) / len(posts) == pytest.approx(0.3, abs=0.03)
    assert sum(post.missing for post in posts) / len(posts) == pytest.approx(0.2, abs=0.03)


MIXED = DemoSettings(
    size="study", noise=0.4, noise_kinds={"scene": 1.0, "meme": 2.0, "food": 1.0}, test_noise_kinds={"pattern": 1.0}
)


@pytest.fixture(scope="module")
def mixed() -> dict[str, list[Post]]:
    """Posts with several kinds of irrelevant images, and different kinds in the test split."""
    return {split: draw_posts(MIXED, split) for split in SPLITS}


def test_kinds_of_noise_follow_their_weights_even_for_shared_images(mixed: dict[str, list[Post]]) -> None:
    train = [post for post in mixed["train"] if post.pairs]
    for first in (True, False):
        posts = [post for post in train if (post.drawing == post.identity) == first]
        shares = {name: count / len(posts) for name, count in Counter(post.noise for post in posts).items()}
        assert shares == pytest.approx({None: 0.6, "scene": 0.1, "meme": 0.2, "food": 0.1}, abs=0.04)


def test_an_unrelated_image_is_irrelevant_to_every_post_that_shows_it(mixed: dict[str, list[Post]]) -> None:
    for post in mixed["train"]:
        if post.pairs:
            assert (post.noise in UNRELATED) == (post.picture.unrelated is not None)
        if post.picture.unrelated:
            assert (post.picture.scene, post.picture.people) == (None, ())


def test_the_noise_of_the_test_split_may_differ_and_validation_is_like_training(mixed: dict[str, list[Post]]) -> None:
    seen = {split: {post.noise for post in mixed[split] if post.pairs} for split in SPLITS}
    assert seen["train"] == seen["val"] == {None, "scene", "meme", "food"}
    assert seen["test"] == {None, "pattern"}
    clean = DemoSettings(size="study", noise=0.0, test_noise=1.0)
    assert {split: clean.noise_share(split) for split in SPLITS} == {"train": 0.0, "val": 0.0, "test": 1.0}
    assert {post.noise for split in ("train", "val") for post in draw_posts(clean, split)} == {None}
    assert all(post.noise == "scene" for post in draw_posts(clean, "test") if post.pairs)


def test_kinds_of_noise_change_only_images() -> None:
    """For posts with their own images; the words of posts that share an image depend on its content."""
    plain = DemoSettings(size="study", noise=0.4)
    for post, other in zip(draw_posts(plain, "test"), draw_posts(MIXED, "test"), strict=True):
        assert (post.tokens, post.pairs, post.missing) == (other.tokens, other.pairs, other.missing)
        assert (post.noise is None) == (other.noise is None)
        assert post.picture == other.picture or other.picture.unrelated


def test_chatter_has_unrelated_images_as_often_as_other_posts(mixed: dict[str, list[Post]]) -> None:
    chatter = [draw_chatter(MIXED, "train", number, EASY) for number in range(1000)]
    unrelated = [
        sum(bool(post.picture.unrelated) for post in posts) / len(posts) for posts in (chatter, mixed["train"])
    ]
    assert unrelated[0] == pytest.approx(unrelated[1], abs=0.05)
    assert not any(post.picture.unrelated for post in draw_posts(DemoSettings(noise=0.9), "val"))


def test_the_order_of_the_kinds_does_not_matter() -> None:
    weights = dict.fromkeys(NOISE_KINDS, 1.0)
    one, other = (
        DemoSettings(size="tiny", noise=0.8, noise_kinds=kinds) for kinds in (weights, dict(reversed(weights.items())))
    )
    assert draw_posts(one, "train") == draw_posts(other, "train")


def test_neither_the_image_nor_the_words_alone_determine_the_answer() -> None:
    for family in FAMILIES:
        assert set(MEANINGS[family]) == set(THEMES)
        relations = [meaning.relation for meaning in MEANINGS[family].values()]
        assert relations.count(NO_RELATION) == 4
        assert len(set(relations)) == 5
    for theme in THEMES:
        assert len({MEANINGS[family][theme].relation for family in FAMILIES}) > 1


def test_wordings_are_numerous_and_complete() -> None:
    assert all(len(set(AMBIGUOUS[family])) >= 6 for family in FAMILIES)
    assert all("{c}" in pointer for pointers in POINTERS.values() for pointer in pointers)
    relations = {meaning.relation for meanings in MEANINGS.values() for meaning in meanings.values()}
    for relation in relations:
        assert relation in MNRE.names
        assert sum(len(wordings) for key, wordings in DECIDED.items() if key[0] == relation) >= 3
    for wording in [w for group in (*AMBIGUOUS.values(), *DECIDED.values()) for w in group]:
        assert wording.split().count("{h}") == wording.split().count("{t}") == 1


@pytest.mark.parametrize(
    ("hard_share", "expected"), [(0.0, [0, 0, 0]), (0.25, [5, 5, 10]), (1.0, [20, 20, 20])], ids=str
)
def test_a_test_split_has_both_levels_in_equal_parts_if_training_has_both(
    hard_share: float, expected: list[int]
) -> None:
    settings = DemoSettings(size="tiny", hard_share=hard_share)
    assert [settings.hard_images(split) for split in SPLITS] == expected


@pytest.mark.parametrize(
    "wrong",
    [
        *({"size": "huge"}, {"noise": -0.1}, {"test_noise": 1.5}, {"missing": 1.5}, {"hard_share": 2.0}),
        *({"posts_per_image": 0}, {"noise_kinds": {"meme": -1.0}}, {"noise_kinds": {"meme": 0.0}}, {"noise_kinds": {}}),
        *({"test_noise_kinds": {"food": float("nan")}}, {"test_noise_kinds": {"food": float("inf")}}),
    ],
    ids=str,
)
def test_invalid_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=re.escape(str(next(iter(wrong.values()))))):
        DemoSettings(**wrong)  # type: ignore[arg-type]


def test_an_unknown_kind_of_noise_error_lists_the_choices() -> None:
    with pytest.raises(
        ConfigError, match=r"test_noise_kinds has the unknown kinds cats, dogs; there are scene, screen"
    ):
        DemoSettings(test_noise_kinds={"dogs": 1.0, "meme": 1.0, "cats": 1.0})
