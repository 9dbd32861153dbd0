"""Charts as SVG, for the pages of a report and as separate files."""

from mmib.charts.chart import Chart, key, save
from mmib.charts.plots import (
    Mark,
    Point,
    Series,
    dot_plot,
    information_plane,
    line_chart,
    reliability,
    scatter,
)
from mmib.charts.scales import number, share

__all__ = [
    "Chart",
    "Mark",
    "Point",
    "Series",
    "dot_plot",
    "information_plane",
    "key",
    "line_chart",
    "number",
    "reliability",
    "save",
    "scatter",
    "share",
]
