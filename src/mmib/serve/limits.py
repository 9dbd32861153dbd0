"""Limits of requests to the service."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from mmib.schema import ConfigError


@dataclass(frozen=True)
class Limits:
    """Limits of the service; each is an option of `mmib serve`.

    Attributes:
        body: bytes of a request, image included.
        characters: characters of a post's text.
        pixels: pixels of an image, and of all images that are in memory for one pass through the models.
        entities: entities given with a post.
        samples: samples of the latents, for the spread of confidence.
        posts: posts per request, and per pass through the models.
        waiting: posts being received, waiting or processed at a time; further ones are refused.
        client: posts of one client among these; a client is an address, so behind a proxy all share one.
        connections: connections per client.
        seconds: timeout of a request.
    """

    body: int = 8_000_000
    characters: int = 10_000
    pixels: int = 25_000_000
    entities: int = 50
    samples: int = 50
    posts: int = 32
    waiting: int = 128
    client: int = 64
    connections: int = 64
    seconds: float = 60.0

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            ConfigError: a limit that no request can meet, or fewer slots, in total or per client, than a request takes.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            # Requests without entities or samples are valid, so these limits may be 0.
            enough = value >= 0 if field.name in ("entities", "samples") else value > 0
            enough &= (field.name, value) != ("samples", 1)  # which have no spread
            if not enough or not math.isfinite(value):
                raise ConfigError(f"--{field.name} is {value}: with this limit nothing can be served")
        for name, slots in (("waiting", self.waiting), ("client", self.client)):
            if slots < self.posts:
                raise ConfigError(f"--{name} is {slots}: a request of --posts {self.posts} would never be accepted")
