"""The review page in a real browser, controlled by its keyboard shortcuts."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from experiments.chromium import CHROMIUM, MISSING, Browser, accessibility_problems
from mmib.review.app import create_app
from mmib.review.corrections import Corrections
from mmib.review.predictions import read_predictions
from mmib.serve.guard import allowed_hosts
from tests.mmib.review.conftest import TEXT, MakePredictions

PHONE, DESK = 360, 1280
MakePage = Callable[..., tuple[Browser, Path]]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)


@pytest.fixture
def review(browser: Browser, start_app: Callable[[Any], str], tmp_path: Path) -> MakePage:
    """Opens the page for predictions; returns it with the file of corrections."""

    def make(path: Path, width: int = DESK, images: Path | None = None) -> tuple[Browser, Path]:
        predictions = read_predictions(path)
        output = tmp_path / "corrections.jsonl"
        app = create_app(Corrections(output, predictions), images or predictions.root, allowed_hosts("127.0.0.1"))
        browser.open(start_app(app), width)
        browser.wait("document.getElementById('place').textContent.startsWith('Post')")
        return browser, output

    return make


def saved(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def text_of(page: Browser, selector: str) -> str:
    found: str = page.run(f"document.querySelector({json.dumps(selector)}).textContent")
    return found


def test_entities_are_corrected_by_keyboard_and_the_next_post_is_shown(
    review: MakePage, make_predictions: MakePredictions
) -> None:
    page, output = review(make_predictions("mner"))
    assert text_of(page, "#place") == "Post 1 of 3"
    assert "30 %" in text_of(page, "#certainty")
    assert text_of(page, "#looks") == (
        "“Ada Lovelace” looks at the left 70 %, the whole image 30 %. Similarity of text and image: 0.25."
    )
    page.press("2", "ArrowDown", "Delete", *["ArrowRight"] * 4, "Shift+ArrowRight")
    assert text_of(page, "#status") == "“Foo United” is selected."
    page.press("2", "Enter")
    page.wait("document.getElementById('place').textContent === 'Post 2 of 3'")
    assert text_of(page, "#progress") == "1 of 3 posts are reviewed."
    teams = [{"start": 1, "end": 3, "type": "TEAM"}, {"start": 4, "end": 6, "type": "TEAM"}]
    assert [(line["row"], line["entities"]) for line in saved(output)] == [(1, teams)]


def test_relations_are_corrected_by_keyboard_and_resumed(review: MakePage, make_predictions: MakePredictions) -> None:
    path = make_predictions("mre")
    page, output = review(path)
    assert text_of(page, "#entities tbody td:nth-child(2)") == "given"
    page.press("3", "ArrowDown", "2", "Enter")  # leaves; the opposite direction plays for
    page.wait("document.getElementById('place').textContent === 'Post 2 of 2'")
    (line,) = saved(output)
    assert [link["type"] for link in line["relations"]] == ["leaves", "plays_for"]
    page.press("Delete", "Enter")
    page.wait("document.getElementById('status').textContent === 'All posts are reviewed.'")
    assert saved(output)[1]["relations"] == [{"head": 0, "tail": 1, "type": "none"}]
    page.click("#takeback")
    page.wait("document.getElementById('status').textContent.startsWith('Taken back')")
    assert [line["row"] for line in saved(output)] == [0]


def hold(page: Browser) -> Callable[[int], None]:
    """Hold all requests of the page in `held`, like a slow network; the function releases one of them."""
    page.run(
        "(() => { const real = fetch; window.held = []; window.fetch = (...asked) => "
        "new Promise((go) => held.push(go)).then(() => real(...asked)); })()"
    )
    return lambda number: page.run(f"held[{number}]()")


def test_displayed_posts_are_saved_correctly_at_any_typing_speed(
    review: MakePage, make_predictions: MakePredictions
) -> None:
    page, output = review(make_predictions("mner"))
    let_go = hold(page)
    place = "document.getElementById('place').textContent"
    page.press("2", "n", "n", "Enter", "Delete")  # the first post is still displayed, but about to be replaced
    assert page.run("held.length") == 2
    let_go(1)
    page.wait(f"{place} === 'Post 3 of 3'")
    let_go(0)  # the outdated answer arrives last
    page.press("p")
    let_go(2)
    page.wait(f"{place} === 'Post 2 of 3'")
    assert not output.exists()
    page.press("2", "Enter", "Enter", "n", "1")
    assert page.run("held.length") == 4
    let_go(3)
    page.wait("held.length === 5")
    let_go(4)
    page.wait(f"{place} === 'Post 3 of 3'")
    for repeat in (False, True):  # holding a key saves once
        page.send("Input.dispatchKeyEvent", type="keyDown", key="Enter", windowsVirtualKeyCode=13, autoRepeat=repeat)
    let_go(5)
    page.wait("held.length === 7")
    let_go(6)
    page.wait(f"{place} === 'Post 1 of 3'")
    page.send("Input.dispatchKeyEvent", type="keyDown", key="Enter", windowsVirtualKeyCode=13, autoRepeat=True)
    assert page.run("held.length") == 7
    assert text_of(page, "#problem") == ""
    assert [(line["row"], [entity["type"] for entity in line["entities"]]) for line in saved(output)] == [
        (0, ["PERSON", "TEAM"]),
        (2, ["TEAM", "TEAM"]),
    ]
    assert page.run("document.querySelector('#entities select').value") == "TEAM", "the edit of the first post is kept"


def test_edits_survive_a_closed_tab_and_two_windows_lose_nothing(
    review: MakePage, make_predictions: MakePredictions
) -> None:
    page, output = review(make_predictions("mner"))
    page.press("2")
    page.reload()
    page.wait("document.getElementById('status')?.textContent.startsWith('Edits that were not saved')")
    other = {"method": "PUT", "headers": {"Content-Type": "application/json"}}
    body = json.dumps({"version": 0, "text": TEXT, "entities": []})
    status = page.run(
        f"fetch('/api/posts/1', {{...{json.dumps(other)}, body: {json.dumps(body)}}}).then((a) => a.status)"
    )
    assert status == 200
    page.press("Enter")
    page.wait("document.getElementById('problem').textContent.includes('saved in another window')")
    assert saved(output)[0]["entities"] == []
    page.press("Enter")
    page.wait("document.getElementById('place').textContent === 'Post 2 of 3'")
    assert [entity["type"] for entity in saved(output)[0]["entities"]] == ["TEAM", "TEAM"]


def test_words_and_relations_can_be_marked_with_the_mouse(review: MakePage, extracted: Path) -> None:
    page, output = review(extracted)
    page.run(
        "(() => { const word = document.querySelector('.w[data-word=\"1\"]').firstChild;"
        " const range = document.createRange(); range.setStart(word, 1); range.setEnd(word, 3);"
        " getSelection().removeAllRanges(); getSelection().addRange(range); })()"
    )
    page.click("#marking button")
    page.run("document.getElementById('tail').selectedIndex = 1")
    page.click("#add")
    page.click("#save")
    page.wait("document.getElementById('place').textContent === 'Post 2 of 2'")
    (line,) = saved(output)
    assert [(entity["start"], entity["end"]) for entity in line["entities"]] == [(0, 3), (4, 10), (11, 19)]
    assert line["relations"] == [
        {"head": 0, "tail": 2, "type": "plays_for"},
        {"head": 0, "tail": 1, "type": "plays_for"},
    ]


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_is_accessible_makes_no_external_request_and_fits(
    review: MakePage, make_predictions: MakePredictions, width: int
) -> None:
    page, _ = review(make_predictions("mner"), width)
    page.wait("!document.getElementById('picture').hidden")
    page.click("#shade")
    assert page.run("document.documentElement.scrollWidth") <= width
    troubles = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    assert not [event for event in page.events if event["method"] in troubles]
    asked = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert all(url.startswith((page.run("location.origin"), "data:")) for url in asked)
    if find_spec("axe_core_python") is None:
        pytest.skip("axe-core is not installed: pip install axe-core-python")
    assert accessibility_problems(page) == []


def test_post_text_is_escaped(review: MakePage, extracted: Path) -> None:
    content = extracted.read_text(encoding="utf-8").replace("Ada joined Foo Town", "<img src=x> Foo Town")
    extracted.write_text(content, encoding="utf-8")
    page, _ = review(extracted)
    assert page.run("document.querySelectorAll('#words img').length") == 0
