"""Labels of the data sets as released, and the counts that identify a complete copy."""

from __future__ import annotations

from mmib.labels import LabelSet

NO_RELATION = "None"


def _types_in_name(relation: str) -> tuple[str, str]:
    """Return PER and ORG for `/per/org/member_of`."""
    _, head, tail, _ = relation.split("/")
    return head.upper(), tail.upper()


# Relations of MNRE, version 2, in the order of its ours_rel2id.json.
_RELATIONS = (
    "/per/per/parent",
    "/per/per/siblings",
    "/per/per/couple",
    "/per/per/neighbor",
    "/per/per/peer",
    "/per/per/charges",
    "/per/per/alumi",
    "/per/per/alternate_names",
    "/per/org/member_of",
    "/per/loc/place_of_residence",
    "/per/loc/place_of_birth",
    "/org/org/alternate_names",
    "/org/org/subsidiary",
    "/org/loc/locate_at",
    "/loc/loc/contain",
    "/per/misc/present_in",
    "/per/misc/awarded",
    "/per/misc/race",
    "/per/misc/religion",
    "/per/misc/nationality",
    "/misc/misc/part_of",
    "/misc/loc/held_on",
)
MNRE = LabelSet((NO_RELATION, *_RELATIONS), NO_RELATION, {name: _types_in_name(name) for name in _RELATIONS})
TWITTER = LabelSet(("PER", "LOC", "ORG", "MISC"))

# By the name that a configuration can use.
KNOWN_LABELS: dict[str, LabelSet] = {"mnre": MNRE, "twitter": TWITTER}
# By corpus.
RELEASED_LABELS: dict[str, LabelSet] = {"mnre": MNRE, "twitter2015": TWITTER, "twitter2017": TWITTER}
# By task, for runs of version 0.1, which recorded no labels.
LABELS_BEFORE_0_2: dict[str, LabelSet] = {"mre": MNRE, "mner": TWITTER}


def _rows(rows: int, negative: int) -> dict[str, int]:
    """Numbers of all rows and of rows of the negative class."""
    return {"rows": rows, "negative": negative}


def _posts(posts: int, entities: int, entities_strict: int) -> dict[str, int]:
    """Numbers of posts, and of entities in seqeval's default mode and in strict IOB2."""
    return {"posts": posts, "entities": entities, "entities_strict": entities_strict}


TITLES = {"mnre": "MNRE", "twitter2015": "Twitter-2015", "twitter2017": "Twitter-2017"}
# The counts of `mmib.datamodules.check` for each split.
RELEASED: dict[str, dict[str, dict[str, int]]] = {
    "mnre": {"train": _rows(12_247, 7_744), "val": _rows(1_624, 1_000), "test": _rows(1_614, 974)},
    "twitter2015": {
        "train": _posts(4_000, 6_352, 6_166),
        "val": _posts(1_000, 1_594, 1_541),
        "test": _posts(3_257, 5_207, 5_072),
    },
    "twitter2017": {
        "train": _posts(3_373, 6_049, 6_049),
        "val": _posts(723, 1_324, 1_324),
        "test": _posts(723, 1_351, 1_351),
    },
}

# Number of texts that are in both the training and the validation split as released.
SHARED_TEXTS = {"mnre": 5, "twitter2015": 2, "twitter2017": 1}
