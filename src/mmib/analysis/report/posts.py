"""The browsable sample of posts: which ones, and what is shown of each."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmib.analysis.calibration import Entity, Record, entities, entity_confidence, relation_confidence
from mmib.charts import number, share
from mmib.charts.markup import Html, element, join
from mmib.datamodules.files import inside
from mmib.datamodules.images import UnreadableImageError, read_image
from mmib.schema import RunError, Task

THUMBNAIL = 240
QUALITY = 62
# Bytes that all posts of a page may take; the rest of a page takes well below one megabyte.
BUDGET = 3_800_000
# An image of more regions is a grid, whose KL nobody would read as a list.
MOST_REGIONS = 6
# The strongest shading of a word: its text keeps its contrast.
DARKEST = 0.42


@dataclass(frozen=True)
class Post:
    """A prediction with what the model did for it.

    Attributes:
        record: the line of the prediction file.
        right: whether everything predicted is right and nothing is missing.
        confidence: of the relation (mre); the least of the predicted entities or, where there is none, of all words.
        gold, predicted: entities; for mre head and tail, named so, in both.
        classes: gold and predicted relations, or types.
    """

    record: Record
    right: bool
    confidence: float
    gold: list[Entity]
    predicted: list[Entity]
    classes: list[str]


def read_post(task: Task, record: Record) -> Post:
    """What a prediction says of its post.

    Raises:
        RunError: the record lacks fields, or they do not fit each other.
    """
    try:
        _check_evidence(record)
        return _relation_post(record) if task == "mre" else _entity_post(record)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        name = type(error).__name__
        raise RunError(
            f"the prediction of row {record['id']} is damaged ({name}: {error}): score the run again"
        ) from error


def _check_evidence(record: Record) -> None:
    """Refuse fields that do not fit each other before anything is made of them."""
    words, boxes = len(record["words"]), np.asarray(record.get("boxes") or [], dtype=np.float64).reshape(-1, 4)
    nats = record.get("kl") or [None] * words
    np.asarray([value for value in (*nats, *(record.get("kl_image") or ())) if value is not None], dtype=np.float64)
    if len(nats) != words:
        raise ValueError("'kl' has not one value for each word")
    for weights in record.get("attention") or ():
        if weights is not None and np.asarray(weights, dtype=np.float64).shape != (len(boxes),):
            raise ValueError("'attention' has not one weight for each region")
    for name in ("head", "tail"):
        if name in record and not 0 <= record[name][0] < record[name][1] <= words:
            raise ValueError(f"{name!r} lies outside the words")
    for name in ("gold", "predicted", "confidence"):
        if isinstance(record.get(name), list) and len(record[name]) != words:
            raise ValueError(f"{name!r} has not one value for each word")


def _relation_post(record: Record) -> Post:
    pair = [Entity(name, *record[name]) for name in ("head", "tail")]
    labels = [str(record[name]) for name in ("gold", "predicted")]
    return Post(record, labels[0] == labels[1], relation_confidence(record), pair, pair, labels)


def _entity_post(record: Record) -> Post:
    gold, predicted = entities(record["gold"]), entities(record["predicted"])
    confidence = [entity_confidence(entity, record["confidence"]) for entity in predicted]
    words = [value for value in record["confidence"] if value is not None]
    classes = sorted({entity.type for entity in (*gold, *predicted)})
    return Post(record, set(gold) == set(predicted), min(confidence or words or [0.0]), gold, predicted, classes)


def sample(posts: Sequence[Post], size: int) -> list[Post]:
    """At most `size` posts: the surest of the wrong, then right ones from the surest to the least sure."""
    order = sorted(posts, key=lambda post: -post.confidence)
    wrong, right = ([post for post in order if post.right == kind] for kind in (False, True))
    wrong = wrong[: max(size - len(right), (size + 1) // 2)]
    room = min(len(right), size - len(wrong))
    # Spread over all right posts, both ends included: the least sure tell as much as the surest.
    places: list[int] = np.linspace(0, len(right) - 1, room).round().astype(int).tolist() if room else []
    return wrong + [right[place] for place in places]


def darkest_word(posts: Sequence[Post]) -> float:
    """Nats from which a word gets the strongest shade: the 95th percentile of the words shown; 0 without any."""
    values = [value for post in posts for value in post.record.get("kl") or () if value is not None]
    return float(np.percentile(values, 95)) if values else 0.0


class PostWriter:
    """Writes posts as list items."""

    def __init__(self, task: Task, classes: Sequence[str], darkest: float, root: Path | None) -> None:
        """With the classes that posts can be filtered by, the darkest shade, and the folder that holds the images."""
        self.task = task
        self.classes = {name: place for place, name in enumerate(classes)}
        self.darkest = darkest
        self.root = root
        self.missing = 0

    def within(self, posts: Sequence[Post], budget: int = BUDGET) -> Iterator[Html]:
        """The posts, one after the other, until they would take more bytes than the budget."""
        for post in posts:
            written = self.write(post)
            budget -= len(written.encode())
            if budget < 0:
                return
            yield written

    def write(self, post: Post) -> Html:
        """One post."""
        record = post.record
        judged = verdict(post.right)
        head = element(
            "p",
            element("b", judged, class_=judged),
            f" · confidence {share(post.confidence)} · row {record['id']}",
            class_="verdict",
        )
        words = element("p", join(self._words(post), " "), class_="words", dir="auto")
        labels = self._relation(post) if self.task == "mre" else self._entities(post)
        return element(
            "li",
            self._picture(record),
            element("div", head, words, labels, class_="said"),
            class_="post",
            tabindex="-1",
            data_right=str(int(post.right)),
            data_classes=" ".join(str(self.classes[name]) for name in dict.fromkeys(post.classes)),
            aria_label=f"row {record['id']}, {judged}",
        )

    def _words(self, post: Post) -> Iterator[Html]:
        record = post.record
        kl = record.get("kl") or []
        marks = {word: entity.type for entity in post.predicted for word in range(*entity.span)}
        gold = {word for entity in post.gold for word in range(*entity.span)}
        for place, word in enumerate(record["words"]):
            nats = kl[place] if kl else None
            classes = ["w"]
            if kl and nats is None:
                classes.append("unseen")
            if self.task == "mre":
                classes += [entity.type for entity in post.gold if entity.start <= place < entity.end]
            else:
                classes += ["entity"] * (place in marks) + ["gold"] * (place in gold)
            yield element(
                "span",
                str(word),
                class_=" ".join(classes),
                tabindex="-1",
                style=f"--k:{self._shade(nats)}" if nats else None,
                data_kl=None if nats is None else number(nats),
                data_a=_weights(record, [place]) if self.task == "mner" else self._pair_weights(post, place),
            )

    def _shade(self, nats: float) -> float:
        return round(DARKEST * min(1.0, nats / self.darkest), 2) if self.darkest > 0 else 0.0

    def _pair_weights(self, post: Post, place: int) -> str | None:
        """Of the shorter of head and tail, where a word belongs to both."""
        inside_of = [number for number, entity in enumerate(post.gold) if entity.start <= place < entity.end]
        if not inside_of:
            return None
        return _weights(post.record, [min(inside_of, key=lambda n: post.gold[n].end - post.gold[n].start)])

    def _relation(self, post: Post) -> Html:
        record = post.record
        entries = [
            ("head", _entity_button(record, post.gold[0], _weights(record, [0]), "head")),
            ("tail", _entity_button(record, post.gold[1], _weights(record, [1]), "tail")),
            ("gold", element("span", str(record["gold"]), class_="label")),
            ("predicted", element("span", str(record["predicted"]), class_=f"label {verdict(post.right)}")),
        ]
        return element("dl", [element("div", element("dt", name), element("dd", shown)) for name, shown in entries])

    def _entities(self, post: Post) -> Html:
        rows = []
        for name, own, others in (("gold", post.gold, post.predicted), ("predicted", post.predicted, post.gold)):
            chips = [self._typed_chip(post.record, entity, entity in others, name) for entity in own]
            shown = join(chips, " ") if chips else "none"
            rows.append(element("div", element("dt", name), element("dd", shown)))
        return element("dl", rows)

    def _typed_chip(self, record: Record, entity: Entity, right: bool, side: str) -> Html:
        sure = f" {share(entity_confidence(entity, record['confidence']))}" if side == "predicted" else ""
        weights = _weights(record, range(*entity.span))
        return _entity_button(record, entity, weights, verdict(right), f"{entity.type}{sure}")

    def _picture(self, record: Record) -> Html:
        name, boxes = record.get("image"), record.get("boxes") or []
        attention = [weights for weights in record.get("attention") or [] if weights is not None]
        mean = np.mean(attention, axis=0) if attention else np.zeros(len(boxes))
        strongest = max(float(np.max(attention)), 1e-9) if attention else 1.0
        picture = None if name is None else self._thumbnail(str(name))
        if name is None:
            shown = element("p", "no image", class_="absent")
        elif picture is None:
            shown = element("p", "image not found", class_="absent")
        else:
            source, (width, height) = picture
            image = element("img", src=source, alt=f"image of row {record['id']}", width=width, height=height)
            shown = element("div", image, _regions(boxes, (mean / strongest).tolist()), class_="frame")
        kl = ["unknown" if value is None else number(value) for value in record.get("kl_image") or []]
        says = f"KL of the regions: {', '.join(kl)} nats" if 0 < len(kl) <= MOST_REGIONS else ""
        return element(
            "div",
            shown,
            element("p", says, class_="readout", aria_live="polite"),
            class_="picture",
            data_most=round(1000 * strongest) if attention else None,
        )

    def _thumbnail(self, name: str) -> tuple[str, tuple[int, int]] | None:
        """A small picture as a data address, and its size; None where it is not there."""
        if self.root is None:
            self.missing += 1
            return None
        try:
            image = read_image(inside(self.root, name, "prediction file"))
        except UnreadableImageError:
            self.missing += 1
            return None
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        file = io.BytesIO()
        image.save(file, "WEBP", quality=QUALITY)
        return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode(), image.size


def verdict(right: bool) -> str:
    """The word, and the class of the style sheet, for right and wrong."""
    return "right" if right else "wrong"


def _entity_button(record: Record, entity: Entity, weights: str | None, style: str, tag: str = "") -> Html:
    text = " ".join(str(word) for word in record["words"][slice(*entity.span)])
    label = join([" ", element("small", tag)]) if tag else None
    return element(
        "button", element("bdi", text), label, type="button", class_=f"chip {style}", tabindex="-1", data_a=weights
    )


def _weights(record: Record, positions: Sequence[int]) -> str | None:
    """Attention of positions over the regions in thousandths, averaged; None where there is none."""
    attention = record.get("attention") or []
    seen = [attention[place] for place in positions if place < len(attention) and attention[place] is not None]
    return " ".join(str(round(1000 * float(weight))) for weight in np.mean(seen, axis=0)) if seen else None


def _kind(box: Sequence[float]) -> str | None:
    """Class of a region that is no part of the image: the whole of it, or unknown."""
    if list(box) == [0, 0, 1, 1]:
        return "whole"
    return None if box[2] > box[0] and box[3] > box[1] else "unknown"


def _regions(boxes: Sequence[Sequence[float]], shares: Sequence[float]) -> Html:
    """The regions over the picture; how opaque one is tells how much of the attention it gets."""
    drawn = [
        element(
            "rect",
            x=box[0],
            y=box[1],
            width=round(box[2] - box[0], 4),
            height=round(box[3] - box[1], 4),
            style=f"--a:{weight:.2f}",
            class_=_kind(box),
        )
        for box, weight in zip(boxes, shares, strict=True)
    ]
    return element("svg", drawn, class_="regions", viewBox="0 0 1 1", preserveAspectRatio="none", aria_hidden="true")
