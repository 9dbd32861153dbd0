"""Names do not leak from one split to another."""

from __future__ import annotations

import itertools
import random

from mmib.datamodules.demo.names import draw_names, name_pool
from mmib.datamodules.demo.settings import SPLITS
from mmib.datamodules.demo.wordings import AMBIGUOUS, CHATTER, DECIDED, ORDINARY_WORDS, POINTERS


def test_pools_share_no_token() -> None:
    for one, other in itertools.combinations(SPLITS, 2):
        assert not set(name_pool(one)) & set(name_pool(other))
    assert all(len(name_pool(split)) > 1000 for split in SPLITS)


def test_names_do_not_occur_among_the_words_of_wordings() -> None:
    wordings = itertools.chain(*AMBIGUOUS.values(), *POINTERS.values(), *DECIDED.values(), CHATTER, ORDINARY_WORDS)
    words = {word.lower() for wording in wordings for word in wording.split()}
    assert not words & {name.lower() for split in SPLITS for name in name_pool(split)}


def test_names_of_a_post_share_no_token() -> None:
    rng = random.Random(0)
    for _ in range(200):
        tokens = [token for name in draw_names(rng, "val", 4) for token in name]
        assert len(tokens) == len(set(tokens)) >= 4
