"""What is known of the real data sets as they were released, to tell whether a copy is whole."""

from __future__ import annotations

# Posts, entities in seqeval's default reading and in strict IOB2 (Twitter); rows and those that are None (MNRE).
RELEASED: dict[str, dict[str, tuple[int, ...]]] = {
    "mnre": {"train": (12_247, 7_744), "val": (1_624, 1_000), "test": (1_614, 974)},
    "twitter2015": {"train": (4_000, 6_352, 6_166), "val": (1_000, 1_594, 1_541), "test": (3_257, 5_207, 5_072)},
    "twitter2017": {"train": (3_373, 6_049, 6_049), "val": (723, 1_324, 1_324), "test": (723, 1_351, 1_351)},
}

# Texts that stand in the training and in the validation split as released.
SHARED_TEXTS = {"mnre": 5, "twitter2015": 2, "twitter2017": 1}
