"""Charts embedded in a page, and charts as files."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from mmib.charts.chart import Chart, key, save, standalone_style, stylesheet
from mmib.charts.markup import element

SVG = "{http://www.w3.org/2000/svg}"
CHART = Chart(
    title="F1 <of> a & b",
    width=360,
    height=220,
    drawing=element("circle", class_="dot", cx=1, cy=2, r=3),
    label="what is seen",
    unit="percent",
    key={"first": "c0", "second": "c1 dashed", "third": "ink stroke", "fourth": "c2 points"},
    note="one more sentence",
)


def saved(path: Path, *charts: Chart) -> ET.Element:
    save(charts, path)
    return ET.fromstring(path.read_text(encoding="utf-8"))


def texts(picture: ET.Element) -> list[str]:
    return [node.text or "" for node in picture.iter(f"{SVG}text")]


def test_a_page_shows_title_unit_legend_and_note() -> None:
    page = CHART.html
    assert "F1 &lt;of&gt; a &amp; b" in page
    for text in ("percent", *CHART.key, CHART.note, CHART.label):
        assert text in page
    assert page.count("<li>") == 4


def test_a_single_series_needs_no_legend(tmp_path: Path) -> None:
    assert key({"alone": "c0"}) is None
    assert "alone" not in texts(saved(tmp_path / "chart.svg", replace(CHART, key={"alone": "c0"})))


def test_a_file_contains_everything_that_a_page_shows(tmp_path: Path) -> None:
    picture = saved(tmp_path / "chart.svg", CHART)
    assert set(texts(picture)) == {CHART.title, CHART.unit, CHART.note, *CHART.key}
    assert len(list(picture.iter(f"{SVG}circle"))) == 2, "the drawing's and the key's"


def test_a_file_is_self_contained_and_has_no_css_variables(tmp_path: Path) -> None:
    saved(tmp_path / "chart.svg", CHART)
    text = (tmp_path / "chart.svg").read_text(encoding="utf-8")
    for unknown in ("var(", "light-dark", "<script", "href", "url("):
        assert unknown not in text
    assert text.count("http") == 1, "the name space"


def test_charts_are_side_by_side_inside_the_figure_and_aligned(tmp_path: Path) -> None:
    long = replace(CHART, key={f"a rather long name of line {number}": "c0" for number in range(5)}, note="")
    picture = saved(tmp_path / "chart.svg", CHART, long)
    moved = [re.findall(r"[\d.]+", node.get("transform", "")) for node in picture.findall(f"{SVG}g")]
    (_, _), (left, top), (_, _), (right, other_top) = [(float(x), float(y)) for x, y in moved]
    assert top == other_top
    assert right >= left + CHART.width
    width, height = (float(part) for part in picture.attrib["viewBox"].split()[2:])
    assert width >= right + long.width
    assert height >= top + CHART.height


def test_legend_entries_do_not_overlap(tmp_path: Path) -> None:
    picture = saved(tmp_path / "chart.svg", replace(CHART, key={"x" * 40: "c0", "y" * 40: "c1"}))
    heights = [node.get("y") for node in picture.iter(f"{SVG}text") if (node.text or "")[:2] in ("xx", "yy")]
    assert len(set(heights)) == 2, "they do not fit side by side"


def test_equal_charts_give_identical_files(tmp_path: Path) -> None:
    for name in ("one", "again"):
        save([CHART], tmp_path / name)
    save([replace(CHART, note="another")], tmp_path / "other")
    one, again, other = ((tmp_path / name).read_bytes() for name in ("one", "again", "other"))
    assert one == again != other


@pytest.mark.parametrize("name", ["ink", "text", "image", "c0", "c7"])
def test_the_colours_of_a_file_are_the_light_palette(name: str) -> None:
    (colour,) = re.findall(rf"--{name}: light-dark\((#\w+),", stylesheet("palette.css"))
    assert f".{name} {{ color: {colour}; }}" in standalone_style()
