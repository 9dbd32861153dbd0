"""Draws the information plane of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mmib.base.files import atomic_file, write_text


def draw_information_plane(points: Sequence[dict[str, float]], folder: Path) -> None:
    """`information_plane.json` and `.png`: rate of each modality against distortion, in nats a post, over training.

    Args:
        points: `step`, `rate_text`, `rate_image` and `distortion` of each validation, in order; where they hold
            `information`, it is a second scale.
        folder: where to write.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second that only a finished run should spend

    write_text(folder / "information_plane.json", json.dumps(points, indent=2) + "\n")
    figure = Figure(figsize=(9, 4), layout="constrained")
    steps = [point["step"] for point in points]
    distortion = [point["distortion"] for point in points]
    for axes, modality in zip(figure.subplots(1, 2, sharey=True), ("text", "image"), strict=True):
        rate = [point[f"rate_{modality}"] for point in points]
        axes.plot(rate, distortion, color="0.7", zorder=1)
        dots = axes.scatter(rate, distortion, c=steps, cmap="viridis", zorder=2)
        axes.set_xlabel(f"rate of {modality}: mean KL, nats a post")
    figure.axes[0].set_ylabel("distortion: task loss, nats a post")
    figure.colorbar(dots, ax=figure.axes, label="optimiser steps")
    if "information" in points[0]:
        entropy = points[0]["information"] + points[0]["distortion"]
        flip = (lambda nats: entropy - nats,) * 2
        axes.secondary_yaxis("right", functions=flip).set_ylabel("H(Y) - distortion, at most I(Z; Y), nats a post")
    with atomic_file(folder / "information_plane.png") as file:
        figure.savefig(file, format="png", dpi=150)
