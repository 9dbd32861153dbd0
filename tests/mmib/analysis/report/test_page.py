"""The frame of the page: it requests nothing external, and its colours have enough contrast."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from mmib.analysis.report.page import POLICY, Section, page
from mmib.analysis.report.posts import DARKEST
from mmib.charts.markup import Html

STYLE = "".join(
    resources.files(package).joinpath(name).read_text(encoding="utf-8")
    for package, name in (
        ("mmib.charts", "palette.css"),
        ("mmib.charts", "charts.css"),
        ("mmib.analysis.report", "base.css"),
        ("mmib.analysis.report", "page.css"),
    )
)
COLOURS = dict(re.findall(r"--([\w-]+): light-dark\((#\w{6}, #\w{6})\)", STYLE))
# WCAG 2.2: text (1.4.3), and elements needed to understand a graphic (1.4.11).
FOR_TEXT, FOR_GRAPHICS = 4.5, 3.0
CELL_SHADE = 0.45


def channels(colour: str) -> list[float]:
    return [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]


def luminance(parts: list[float]) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: list[float], second: list[float]) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def shade(over: str, under: str, weight: float) -> list[float]:
    return [weight * a + (1 - weight) * b for a, b in zip(channels(over), channels(under), strict=True)]


def colour(name: str, scheme: int) -> str:
    return COLOURS[name].split(", ")[scheme]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["ink", "muted", "text", "image", "right", "wrong"])
def test_text_contrasts_with_the_background(name: str, scheme: int) -> None:
    assert contrast(channels(colour(name, scheme)), channels(colour("paper", scheme))) >= FOR_TEXT


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("number", range(8))
def test_lines_contrast_with_the_background(number: int, scheme: int) -> None:
    assert contrast(channels(colour(f"c{number}", scheme)), channels(colour("paper", scheme))) >= FOR_GRAPHICS


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("name", "weight"), [("text", DARKEST), ("right", CELL_SHADE), ("wrong", CELL_SHADE)])
def test_text_contrasts_with_the_darkest_shade(name: str, weight: float, scheme: int) -> None:
    background = shade(colour(name, scheme), colour("paper", scheme), weight)
    assert contrast(channels(colour("ink", scheme)), background) >= FOR_TEXT


def test_the_policy_blocks_everything_and_the_page_contains_no_address() -> None:
    text = page("a title", "a subtitle", [Section("one", "One", "", Html("<p>text</p>"))])
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    assert POLICY.startswith("default-src 'none'")
    assert f'content="{POLICY}"'.replace("'", "&#x27;") in text
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)


def test_browser_preferences_are_respected() -> None:
    for feature in ("prefers-reduced-motion", "@media print", "color-scheme: light dark", ":focus-visible"):
        assert feature in STYLE


def test_sections_can_be_reached_from_the_top() -> None:
    text = page("t", "s", [Section(name, name, "how to read it", Html("")) for name in ("one", "two")])
    assert re.findall(r'href="#(\w+)"', text) == ["content", "one", "two"]
    assert re.findall(r'<section id="(\w+)"', text) == ["one", "two"]


def test_the_style_sheets_are_embedded_unchanged() -> None:
    """Escaped quotes would break the rules that contain them."""
    assert f"<style>{STYLE}</style>" in page("a", "b", [])
