"""The curves of a run: charts of the scalars that the method logs, and of all other logged scalars."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from mmib.analysis.report.history import Curves, scalar_of
from mmib.analysis.report.page import grid, note
from mmib.charts import Chart, Point, Series, line_chart
from mmib.charts.markup import Html, element, join
from mmib.runs.reader import FinishedRun

GRADIENTS = {
    "grad/task": ("task", "ink"),
    "grad/kl_text": ("KL of text", "text"),
    "grad/kl_image": ("KL of image", "image"),
    "grad/align": ("alignment", "c2"),
}
OTHERS = "further loss terms"
OTHER_GRADIENTS = ("c3", "c4", "c5", "c6", "c7")


def training(run: FinishedRun) -> tuple[str, Html]:
    """Return a note on how to read the curves, and the curves.

    Raises:
        RunError: the log is damaged.
    """
    charts = TrainingCharts(Curves(run))
    shown = grid(*charts.method)
    if shown is None:
        return "", note("This run logged no curve: it did not train.")
    reading = "Solid lines are means over an epoch of training, dashed ones validation, faint ones single steps."
    selected = run.summary.get("selected")
    if selected:
        reading += f" Validation selected the checkpoint after epoch {selected['epoch']}, counted from 0."
    groups = [
        join([element("h3", prefix or OTHERS), grid(*(charts.of_scalar(name) for name in names)) or Html()])
        for prefix, names in groupby(charts.rest, key=lambda name: name.rpartition("/")[0])
    ]
    return reading, join([shown, *groups])


class TrainingCharts:
    """Charts of the curves of a run.

    Attributes:
        method: charts of the scalars that the method logs; None for those that this run did not log.
        rest: names of the scalars in none of these charts, such as those of a custom fusion, grouped by prefix.
    """

    def __init__(self, curves: Curves) -> None:
        self.curves = curves
        self._drawn: set[str] = set()
        self.method = self._method()
        self.rest = sorted(set(curves.scalars()) - self._drawn, key=lambda name: name.rpartition("/"))

    def of_scalar(self, name: str) -> Chart | None:
        """Return a chart of any scalar, titled by its name."""
        return _chart(name.rpartition("/")[2], self._both(name, "ink"))

    def _method(self) -> list[Chart | None]:
        return [
            _chart("F1, validation", self._scores(), "percent"),
            _chart("Loss, all terms", self._both("loss", "ink"), "nats a post"),
            _chart("Loss of the task", self._both("task", "ink"), "nats a post"),
            _chart("KL", self._by_modality("ib/kl"), "nats a word piece, nats a region"),
            _chart("Standard deviation of the KL", self._by_modality("ib/kl_std"), "nats a word piece, nats a region"),
            _chart("Loss of the alignment", self._both("align/loss", "c2")),
            _chart("Temperature of the alignment", self._both("align/temperature", "c2")),
            _chart("Bound on I(text; image)", self._both("align/mi_bound", "c2"), "nats"),
            _chart("Bound on the Jensen-Shannon divergence", self._both("align/jsd_bound", "c2")),
            _chart("Retrieval within a batch", self._retrieval(), "percent"),
            _chart("Modality gap", self._both("align/gap", "ink"), "distance of the centres"),
            _chart("Cosine of text and image", self._both("align/cosine", "ink")),
            # A variance over the few posts of a single batch is too noisy.
            _chart("Active latent units", self._by_modality("ib/active", of_steps=False), "of the latent width"),
            _chart("Mean cosine of different posts", self._by_modality("latent/cosine"), "1 is collapse"),
            _chart("Effective rank", self._by_modality("latent/effective_rank"), "directions in use"),
            _chart("Rank of a post's own image", self._both("latent/own_image_rank", "ink"), "median over posts"),
            _chart("... of the candidates", self._own_image_share(), "percent"),
            _chart("Posterior standard deviation", self._by_modality("ib/std")),
            _chart("Weight of the KL, beta", _varying(self._by_modality("ib/beta"))),
            _chart("... as in Alemi et al. 2017", _varying(self._by_modality("ib/beta_vib"))),
            _chart("Rate of a post", self._by_modality("ib/rate"), "nats a post"),
            _chart("Share of beta times KL in the loss", self._by_modality("ib/share")),
            _chart("Gradient of beta times KL to the task's", self._by_modality("ib/gradient_ratio")),
            _chart("Gradient norms", self._gradients()),
        ]

    def _points(self, name: str) -> list[Point]:
        self._drawn.add(scalar_of(name))
        return self.curves[name]

    def _both(self, name: str, style: str, label: str = "") -> list[Series]:
        """Return a scalar by step, by epoch and in validation."""
        training = self._points(name) or self._points(f"train/{name}")
        steps = self._points(f"{name}_step") or self._points(f"train/{name}_step")
        return [
            Series(f"{label}training, by step", steps, f"{style} faint", dots=False),
            Series(f"{label}training", training, style),
            Series(f"{label}validation", self._points(f"val/{name}"), f"{style} dashed"),
        ]

    def _by_modality(self, name: str, of_steps: bool = True) -> list[Series]:
        lines = []
        for modality in ("text", "image"):
            step, epoch, validation = self._both(f"{name}_{modality}", modality, f"{modality}, ")
            lines += [step if of_steps and step.points else epoch, validation]
        return lines

    def _scores(self) -> list[Series]:
        styles = {"F1": ("f1", "ink"), "precision": ("precision", "c2 faint"), "recall": ("recall", "c3 faint")}
        return [Series(name, _percents(self._points(f"val/{key}")), style) for name, (key, style) in styles.items()]

    def _retrieval(self) -> list[Series]:
        return [
            Series(f"{name}, {stage}", _percents(self._points(f"{prefix}align/accuracy_{key}")), style)
            for key, name, colour in (("t2i", "text to image", "text"), ("i2t", "image to text", "image"))
            for stage, prefix, style in (("training", "", colour), ("validation", "val/", f"{colour} dashed"))
        ]

    def _own_image_share(self) -> list[Series]:
        return [Series("validation", _percents(self._points("val/latent/own_image_share")), "ink dashed")]

    def _gradients(self) -> list[Series]:
        others = sorted(name for name in self.curves.scalars() if name.startswith("grad/") and name not in GRADIENTS)
        last = len(OTHER_GRADIENTS) - 1
        custom = {
            name: (name.removeprefix("grad/"), OTHER_GRADIENTS[min(place, last)]) for place, name in enumerate(others)
        }
        return [Series(title, self._points(name), style) for name, (title, style) in (GRADIENTS | custom).items()]


def _chart(title: str, lines: Sequence[Series], unit: str = "") -> Chart | None:
    return line_chart(title, lines, "optimiser steps", unit)


def _varying(lines: Sequence[Series]) -> list[Series]:
    """Return the training curves if any of them is not constant; otherwise none."""
    training = [line for line in lines if line.name.endswith("training")]
    return training if any(len({value for _, value in line.points}) > 1 for line in training) else []


def _percents(points: Sequence[Point]) -> list[Point]:
    return [(step, 100 * value) for step, value in points]
