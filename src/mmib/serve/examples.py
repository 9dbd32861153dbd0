"""Example posts, generated like the demo corpus: names, texts and images are made up."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Container

from mmib.datamodules.demo import DemoSettings
from mmib.datamodules.demo.pictures import draw_picture
from mmib.datamodules.demo.posts import Post, draw_post
from mmib.serve.messages import Example, GivenEntity

# Numbers beyond the posts of every corpus; in the hard ones, the text selects one of several people in the image.
SPLIT = "test"
POSTS = (
    *(("easy", 900_001), ("hard", 900_005), ("hard", 900_008)),
    *(("easy", 900_004), ("hard", 900_006), ("easy", 900_007)),
)


@functools.cache
def generate_examples(types: frozenset[str] | None = None) -> list[Example]:
    """Generate the posts at the first call; see `example_of` for the types."""
    settings = DemoSettings()
    return [example_of(draw_post(settings, SPLIT, number, level), settings.seed, types) for level, number in POSTS]


def example_of(post: Post, seed: int, types: Container[str] | None = None) -> Example:
    """Convert a generated post to a request with crops and entities; types of entities not in `types` are dropped."""
    drawing = draw_picture(post, seed)
    file = io.BytesIO()
    drawing.image.save(file, "JPEG", quality=90)
    spans, start = [], 0
    for token in post.tokens:
        spans.append((start, start + len(token)))
        start += len(token) + 1
    entities = [
        {"start": spans[first][0], "end": spans[last - 1][1], "type": name if types is None or name in types else None}
        for first, last, name in post.entities
    ]
    return Example(
        text=" ".join(post.tokens),
        image=base64.b64encode(file.getvalue()).decode(),
        crops=[list(box) for box in drawing.boxes.values()],
        entities=[GivenEntity.model_validate(entity) for entity in entities],
    )
