"""Draws the information plane of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mmib import charts
from mmib.base.files import write_text


def draw_information_plane(points: Sequence[Mapping[str, float]], folder: Path) -> None:
    """Write `information_plane.json` and `.svg`: rate of each modality against distortion, in nats per post.

    Args:
        points: `step`, `rate_text`, `rate_image`, `distortion` and possibly `information`, whose first and last value
            are then noted, of each validation in order. Points that are not finite are left out.
        folder: folder to write to; nothing is written without points.
    """
    points = [point for point in points if all(map(math.isfinite, point.values()))]
    if not points:
        return
    write_text(folder / "information_plane.json", json.dumps(points, indent=2) + "\n")
    text, image = charts.information_plane(points)
    if "information" in points[0]:
        first, last = (charts.number(point["information"]) for point in (points[0], points[-1]))
        text = replace(text, note=f"H(Y) - distortion, at most I(Z; Y): {first} to {last} nats a post.")
    charts.save([text, image], folder / "information_plane.svg")
