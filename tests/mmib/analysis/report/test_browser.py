"""The report of a real run in a real browser."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.chromium import CHROMIUM, MISSING, Browser
from mmib.cli import main
from mmib.schema import Task

PHONE, DESK = 360, 1280

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)


@pytest.fixture(scope="module")
def reports(finished_runs: Callable[[Task], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Task], Path]:
    """The report of a task's real run, generated once."""

    @functools.cache
    def make(task: Task) -> Path:
        path = tmp_path_factory.mktemp("report") / "report.html"
        assert main(["report", str(finished_runs(task).folder), "--output", str(path)]) == 0
        return path

    return make


@pytest.fixture
def opened(browser: Browser, reports: Callable[[Task], Path], task: Task) -> Callable[[int], Browser]:
    """Opens the report of the test's task in a window of the given width."""

    def open_page(width: int) -> Browser:
        browser.open(reports(task).as_uri(), width)
        return browser

    return open_page


@pytest.mark.parametrize("task", ["mre", "mner"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_opens_without_errors_or_requests_and_fits(opened: Callable[[int], Browser], width: int) -> None:
    page = opened(width)
    assert page.run("document.querySelectorAll('section').length") == 7
    assert page.run("document.documentElement.scrollWidth") <= width
    page.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.run("document.documentElement.scrollWidth") <= width
    failed = [event for event in page.events if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
    console_events = [event for event in page.events if event["method"] == "Runtime.consoleAPICalled"]
    assert not failed + console_events
    asked = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert {url.partition(":")[0] for url in asked} == {"file", "data"}
    assert len([url for url in asked if url.startswith("file:")]) == 1
    assert page.run("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")


@pytest.mark.parametrize("task", ["mre"])
def test_the_security_policy_blocks_external_content(opened: Callable[[int], Browser]) -> None:
    page = opened(DESK)
    blocked = page.run(
        "new Promise((done) => { document.addEventListener('securitypolicyviolation', (e) => done(e.blockedURI));"
        " document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/a.png'})); })"
    )
    assert blocked == "http://127.0.0.1:9/a.png"


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_filters_show_the_described_posts(opened: Callable[[int], Browser]) -> None:
    page = opened(DESK)
    posts = page.run("document.querySelectorAll('.post').length")
    shown = "[...document.querySelectorAll('.post')].filter((post) => post.offsetParent)"
    assert posts == page.run(f"{shown}.length") > 0
    page.run("document.querySelector('[data-show=\"0\"]').click()")
    wrong = page.run(f"{shown}.map((post) => post.dataset.right)")
    assert wrong
    assert set(wrong) == {"0"}
    assert page.run("document.getElementById('post-count').textContent") == f"{len(wrong)} of {posts} posts"
    page.run("document.querySelector('[data-show=\"\"]').click()")
    page.run(
        "{ const choice = document.getElementById('post-class'); choice.value = '0';"
        " choice.dispatchEvent(new Event('change')); }"
    )
    classes = page.run(f"{shown}.map((post) => post.dataset.classes.split(' '))")
    assert 0 < len(classes) <= posts
    assert all("0" in names for names in classes)


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_posts_and_their_words_can_be_reached_with_the_keyboard(opened: Callable[[int], Browser]) -> None:
    page = opened(DESK)
    page.run("document.getElementById('post-class').focus()")
    place = "[...document.querySelectorAll('.post')].indexOf(document.activeElement.closest('.post'))"
    page.press("Tab")
    assert page.run(place) == 0
    page.press("ArrowDown", "ArrowDown", "ArrowUp")
    assert page.run(place) == 1
    readout = "document.activeElement.closest('.post').querySelector('.readout').textContent"
    page.press("ArrowRight", "ArrowRight")
    assert page.run("document.activeElement === document.querySelectorAll('.post')[1].querySelectorAll('.w')[1]")
    word = page.run("document.activeElement.textContent")
    assert page.run(readout).startswith(f"“{word}”: KL ")
    page.press("Escape")
    assert page.run("document.activeElement.classList.contains('post')")


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_an_entity_shows_its_attention(opened: Callable[[int], Browser]) -> None:
    page = opened(DESK)
    part = ".post .picture:has(.regions) ~ .said .chip[data-a]"
    post = "document.activeElement.closest('.post')"
    page.run(f"document.querySelector('{part}').focus()")
    weights = [int(weight) for weight in page.run("document.activeElement.dataset.a").split()]
    most = page.run(f"+{post}.querySelector('.picture').dataset.most")
    opaque = page.run(f"[...{post}.querySelectorAll('rect')].map((region) => +region.style.getPropertyValue('--a'))")
    assert opaque == pytest.approx([weight / most for weight in weights], abs=0.006)
    assert sum(weights) == pytest.approx(1000, abs=len(weights))


@pytest.mark.parametrize("task", ["mre"])
def test_the_confusion_matrix_is_sorted_with_its_counts(opened: Callable[[int], Browser]) -> None:
    page = opened(DESK)
    read = (
        "(() => { const rows = [...document.querySelectorAll('.matrix tbody tr')];"
        " const heads = [...document.querySelectorAll('.matrix thead th')].slice(1, -1);"
        " return rows.flatMap((row) => [...row.cells].slice(1, -1).map((cell, place) =>"
        " [row.cells[0].textContent, heads[place].textContent, cell.textContent])); })()"
    )
    before = page.run(read)
    page.run("document.querySelector('[data-order=frequent]').click()")
    after = page.run(read)
    assert sorted(before) == sorted(after)
    sums = page.run("[...document.querySelectorAll('.matrix .sum')].map((cell) => +cell.textContent)")
    assert sums == sorted(sums, reverse=True)
    rows, columns = list(dict.fromkeys(cell[0] for cell in after)), [cell[1] for cell in after[: len(sums)]]
    assert rows == columns
    page.run("document.querySelector('[data-order=name]').click()")
    assert page.run(read) == before


@pytest.mark.parametrize("task", ["mre"])
def test_light_and_dark_mode_follow_the_system_and_the_button(opened: Callable[[int], Browser]) -> None:
    page = opened(DESK)
    paper = "getComputedStyle(document.body).backgroundColor"
    seen = []
    for scheme in ("light", "dark"):
        page.colours(scheme)
        seen.append(page.run(paper))
    page.run("document.getElementById('theme').click()")
    assert seen == ["rgb(252, 251, 248)", "rgb(21, 23, 26)"]
    assert page.run(paper) == seen[0]
    page.colours("")
