"""The browsable sample of posts: their selection and their HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmib.charts import number, share
from mmib.charts.markup import Html, element, join
from mmib.datamodules.files import inside
from mmib.datamodules.images import UnreadableImageError, read_image
from mmib.labels import LabelSet
from mmib.records import Answer, Chip, Record
from mmib.schema import DataError, RunError, Task

# Fields that are lists only if there is a label for each word.
BY_WORD = ("gold", "predicted", "confidence")
THUMBNAIL = 240
QUALITY = 62
# Maximum size of all posts of a page in bytes; the rest of a page takes well below one megabyte.
BUDGET = 3_800_000
# An image with more regions is a grid, whose KL is not readable as a list.
MOST_REGIONS = 6
# The strongest shading of a word, at which its text is still readable.
DARKEST = 0.42


@dataclass(frozen=True)
class Post:
    """A post with its prediction.

    Attributes:
        record: the line of the prediction file.
        answer: the prediction as its task interprets it.
    """

    record: Record
    answer: Answer


def read_post(task: Task, labels: LabelSet, record: Record) -> Post:
    """Interpret a prediction.

    Raises:
        RunError: the record lacks fields, or its fields are inconsistent.
    """
    try:
        _check_evidence(record)
        answer = task.answer(record, labels)
        _check_spans(answer, len(record["words"]))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        name = type(error).__name__
        raise RunError(
            f"the prediction of row {record['id']} is damaged ({name}: {error}): score the run again"
        ) from error
    return Post(record, answer)


def _check_evidence(record: Record) -> None:
    """Raise an error if fields are inconsistent, before they are used."""
    words, boxes = len(record["words"]), np.asarray(record.get("boxes") or [], dtype=np.float64).reshape(-1, 4)
    nats = record.get("kl") or [None] * words
    np.asarray([value for value in (*nats, *(record.get("kl_image") or ())) if value is not None], dtype=np.float64)
    if len(nats) != words:
        raise ValueError("'kl' must have one value for each word")
    for weights in record.get("attention") or ():
        if weights is not None and np.asarray(weights, dtype=np.float64).shape != (len(boxes),):
            raise ValueError("'attention' must have one weight for each region")
    for name in BY_WORD:
        if isinstance(record.get(name), list) and len(record[name]) != words:
            raise ValueError(f"{name!r} must have one value for each word")


def _check_spans(answer: Answer, words: int) -> None:
    """Raise a `ValueError` if a span is outside the words of the post."""
    for heading, chips in answer.lines:
        for chip in chips:
            if chip.span is not None and not 0 <= chip.span[0] < chip.span[1] <= words:
                raise ValueError(f"{heading!r} lies outside the words")


def sample(posts: Sequence[Post], size: int) -> list[Post]:
    """Select at most `size` posts: the most confident wrong ones, then right ones from most to least confident."""
    order = sorted(posts, key=lambda post: -post.answer.confidence)
    wrong, right = ([post for post in order if post.answer.right == expected] for expected in (False, True))
    wrong = wrong[: max(size - len(right), (size + 1) // 2)]
    room = min(len(right), size - len(wrong))
    # Spread over all right posts, including both ends: the least confident are as informative as the most confident.
    places: list[int] = np.linspace(0, len(right) - 1, room).round().astype(int).tolist() if room else []
    return wrong + [right[place] for place in places]


def darkest_word(posts: Sequence[Post]) -> float:
    """Return the nats from which a word gets the strongest shade: the 95th percentile over words; 0 without any."""
    values = [value for post in posts for value in post.record.get("kl") or () if value is not None]
    return float(np.percentile(values, 95)) if values else 0.0


class PostWriter:
    """A writer of posts as HTML list items."""

    def __init__(self, classes: Sequence[str], darkest: float, root: Path | None) -> None:
        """Set the classes to filter posts by, the nats of the darkest shade, and the folder of the images."""
        self.classes = {name: place for place, name in enumerate(classes)}
        self.darkest = darkest
        self.root = root
        self.missing = 0

    def within(self, posts: Sequence[Post], budget: int = BUDGET) -> Iterator[Html]:
        """Yield posts as HTML until they exceed the budget in bytes."""
        for post in posts:
            written = self.write(post)
            budget -= len(written.encode())
            if budget < 0:
                return
            yield written

    def write(self, post: Post) -> Html:
        """Return one post as HTML."""
        record, answer = post.record, post.answer
        judged = verdict(answer.right)
        head = element(
            "p",
            element("b", judged, class_=judged),
            f" · confidence {share(answer.confidence)} · row {record['id']}",
            class_="verdict",
        )
        words = element("p", join(self._words(post), " "), class_="words", dir="auto")
        lines = [
            element("div", element("dt", heading), element("dd", _chips(record, chips)))
            for heading, chips in answer.lines
        ]
        return element(
            "li",
            self._picture(record),
            element("div", head, words, element("dl", lines), class_="said"),
            class_="post",
            tabindex="-1",
            data_right=str(int(answer.right)),
            data_classes=" ".join(str(self.classes[name]) for name in dict.fromkeys(answer.classes)),
            aria_label=f"row {record['id']}, {judged}",
        )

    def _words(self, post: Post) -> Iterator[Html]:
        record, answer = post.record, post.answer
        kl = record.get("kl") or []
        for place, word in enumerate(record["words"]):
            nats = kl[place] if kl else None
            unseen = ["unseen"] if kl and nats is None else []
            yield element(
                "span",
                str(word),
                class_=" ".join(["w", *unseen, *answer.word_styles.get(place, ())]),
                tabindex="-1",
                style=f"--k:{self._shade(nats)}" if nats else None,
                data_kl=None if nats is None else number(nats),
                data_a=_weights(record, answer.word_positions.get(place, ())),
            )

    def _shade(self, nats: float) -> float:
        return round(DARKEST * min(1.0, nats / self.darkest), 2) if self.darkest > 0 else 0.0

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
        readout = f"KL of the regions: {', '.join(kl)} nats" if 0 < len(kl) <= MOST_REGIONS else ""
        return element(
            "div",
            shown,
            element("p", readout, class_="readout", aria_live="polite"),
            class_="picture",
            data_most=round(1000 * strongest) if attention else None,
        )

    def _thumbnail(self, name: str) -> tuple[str, tuple[int, int]] | None:
        """Return a thumbnail as a data URL, and its size; None if the image is missing."""
        if self.root is None:
            self.missing += 1
            return None
        try:
            image = read_image(inside(self.root, name, "prediction file"))
        except (DataError, UnreadableImageError):
            self.missing += 1
            return None
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        file = io.BytesIO()
        image.save(file, "WEBP", quality=QUALITY)
        return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode(), image.size


def verdict(right: bool) -> str:
    """Return "right" or "wrong": the word to show, and the CSS class."""
    return "right" if right else "wrong"


def _chips(record: Record, chips: Sequence[Chip]) -> Html:
    return join([_chip(record, chip) for chip in chips], " ") if chips else Html("none")


def _chip(record: Record, chip: Chip) -> Html:
    """Return a button that shows the attention of its words, or a plain label without words."""
    tag = join([" ", element("small", chip.tag)]) if chip.tag else None
    if chip.span is None:
        return element("span", chip.text, tag, class_=f"label {chip.style}".rstrip())
    weights = _weights(record, chip.positions)
    return element(
        "button",
        element("bdi", chip.text),
        tag,
        type="button",
        class_=f"chip {chip.style}".rstrip(),
        tabindex="-1",
        data_a=weights,
    )


def _weights(record: Record, positions: Sequence[int]) -> str | None:
    """Return the mean attention of positions over the regions, in thousandths; None without attention."""
    attention = record.get("attention") or []
    seen = [attention[place] for place in positions if place < len(attention) and attention[place] is not None]
    return " ".join(str(round(1000 * float(weight))) for weight in np.mean(seen, axis=0)) if seen else None


def _region_class(box: Sequence[float]) -> str | None:
    """Return the CSS class of a region that is not a part of the image: the whole image, or an unknown box."""
    if list(box) == [0, 0, 1, 1]:
        return "whole"
    return None if box[2] > box[0] and box[3] > box[1] else "unknown"


def _regions(boxes: Sequence[Sequence[float]], shares: Sequence[float]) -> Html:
    """Draw the regions over the image; their opacity shows their share of the attention."""
    drawn = [
        element(
            "rect",
            x=box[0],
            y=box[1],
            width=round(box[2] - box[0], 4),
            height=round(box[3] - box[1], 4),
            style=f"--a:{weight:.2f}",
            class_=_region_class(box),
        )
        for box, weight in zip(boxes, shares, strict=True)
    ]
    return element("svg", drawn, class_="regions", viewBox="0 0 1 1", preserveAspectRatio="none", aria_hidden="true")
