"""The page in a real browser, with randomly initialised models."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from experiments.chromium import CHROMIUM, MISSING, Browser, accessibility_problems
from mmib.export.model import TrainedModel
from mmib.extract.extractor import Extractor
from mmib.labels import LabelSet
from mmib.plugins import import_plugins
from mmib.serve.app import create_app
from mmib.serve.guard import allowed_hosts
from mmib.serve.limits import Limits

PHONE, DESK = 360, 1280
TEXT = "🙂 anna and bob meets carl in the paris head"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)


@pytest.fixture
def serve(start_app: Callable[[Any], str]) -> Callable[..., str]:
    """Serves an extractor in a thread; returns the address."""
    return lambda extractor, **limits: start_app(create_app(extractor, Limits(**limits), allowed_hosts("127.0.0.1")))


@pytest.fixture
def page(browser: Browser, serve: Callable[..., str], extractor: Extractor) -> Browser:
    """The page of a service of both tasks, in a desktop window."""
    return opened(browser, serve(extractor))


def opened(browser: Browser, address: str, width: int = DESK) -> Browser:
    browser.open(address, width)
    browser.wait("document.getElementById('models').textContent.includes('This model finds')")
    return browser


def value(page: Browser, selector: str, name: str = "textContent") -> Any:
    return page.run(f"document.querySelector({json.dumps(selector)}).{name}")


def extract(page: Browser, text: str = TEXT) -> None:
    """Enter a post as a user would, and wait for the result."""
    page.click("#text")
    page.run("document.getElementById('text').select()")
    page.type(text)
    page.click("#extract")
    page.wait("document.getElementById('status').textContent.startsWith('Found')")


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_makes_no_external_request_reports_no_error_and_fits(
    browser: Browser, serve: Callable[..., str], extractor: Extractor, width: int
) -> None:
    address = serve(extractor)
    page = opened(browser, address, width)
    page.wait("document.querySelector('#examples button')")
    page.click("#examples button")
    page.wait("document.getElementById('text').value !== ''")
    page.click("#extract")
    page.wait("document.getElementById('status').textContent.startsWith('Found')")
    page.run("document.querySelector('details').open = true")
    assert page.run("document.documentElement.scrollWidth") <= width
    troubles = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    assert not [event for event in page.events if event["method"] in troubles]
    asked = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert f"{address}/api/extract" in asked
    assert all(url.startswith((f"{address}/", "data:", f"blob:{address}/")) for url in asked)
    assert page.run("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")


def test_only_one_request_is_sent_at_a_time(page: Browser) -> None:
    page.run(f"document.getElementById('text').value = {json.dumps(TEXT)}")
    page.run("for (const _ of [1, 2]) document.getElementById('form').requestSubmit()")  # triggered by Ctrl+Enter
    page.wait("document.getElementById('status').textContent.startsWith('Found')")
    asked = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert [url.rpartition("/")[2] for url in asked].count("extract") == 1


def test_a_post_with_an_image_is_shown_with_its_results(
    page: Browser, extractor: Extractor, picture: bytes, tmp_path: Path
) -> None:
    (tmp_path / "photo.png").write_bytes(picture)
    page.choose_file("#image", tmp_path / "photo.png")
    extract(page)
    found = extractor.extract(TEXT, picture, evidence=True)
    assert found.entities
    assert found.relations
    marks = page.run(
        "[...document.querySelectorAll('#words mark')].map((mark) => mark.innerText.replaceAll('\\n', ''))"
    )
    assert marks == [f"{entity.text}{entity.type}" for entity in found.entities]
    read = "document.getElementById('words').cloneNode(true)"
    page.run(f"window.copy = {read}; copy.querySelectorAll('small').forEach((part) => part.remove())")
    assert page.run("copy.textContent") == TEXT
    rows = page.run("[...document.querySelectorAll('#relations tbody tr')].map((row) => row.innerText)")
    assert len(rows) == len(found.relations)
    for row, relation in zip(rows, found.relations, strict=True):
        assert relation.label in row
        assert f"{found.entities[relation.head].text} → {found.entities[relation.tail].text}" in row
        assert f"{round(100 * relation.confidence)} %" in row.replace("\xa0", " ")
    assert page.run("document.querySelectorAll('#arcs g').length") == len(found.relations)
    assert json.loads(value(page, "#json")) == json.loads(json.dumps(found.to_dict()))


def test_hovering_or_focusing_an_item_shows_its_attention_over_regions(
    page: Browser, extractor: Extractor, picture: bytes, tmp_path: Path
) -> None:
    (tmp_path / "photo.png").write_bytes(picture)
    page.choose_file("#image", tmp_path / "photo.png")
    extract(page)
    relation = extractor.extract(TEXT, picture, evidence=True).relations[0]
    assert relation.evidence
    page.run("document.querySelector('#relations .chip').focus()")
    head, tail = relation.evidence.attention
    assert head
    assert tail
    weights = [(a + b) / 2 for a, b in zip(head, tail, strict=True)]
    shown = page.run(
        "[...document.querySelectorAll('#regions rect')].map((part) => +part.style.getPropertyValue('--a'))"
    )
    assert shown == pytest.approx([weight / max(weights) for weight in weights], abs=0.006)
    boxes = page.run(
        "[...document.querySelectorAll('#regions rect')].map((part) => "
        "['x', 'y', 'width', 'height'].map((name) => +part.getAttribute(name)))"
    )
    expected = [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in relation.evidence.regions]
    assert boxes == [pytest.approx(box) for box in expected]
    assert page.run("document.querySelector('#arcs g').classList.contains('lit')")
    assert "looks at" in value(page, "#looks")
    page.run("document.querySelector('#words mark').focus()")
    page.press("Enter")
    assert page.run("document.activeElement.getAttribute('aria-pressed')") == "true"


def test_words_are_shaded_on_demand(page: Browser, extractor: Extractor) -> None:
    extract(page)
    shade = "[...document.querySelectorAll('#words .w')].map((word) => +word.style.getPropertyValue('--k'))"
    assert not page.run("document.getElementById('words').classList.contains('shaded')")
    page.click("#shade")
    evidence = extractor.extract(TEXT, evidence=True).evidence
    assert evidence
    kl = [nats for nats in evidence.kl if nats is not None]
    assert max(kl) > min(kl) + 0.1
    assert page.run(shade) == pytest.approx([(nats - min(kl)) / (max(kl) - min(kl)) for nats in kl], abs=0.01)
    assert "nats" in value(page, "#shade-note")
    page.click("#shade")
    assert not page.run("document.getElementById('words').classList.contains('shaded')")


def test_given_entities_after_an_emoji_follow_edits_of_the_text_and_are_used_unchanged(page: Browser) -> None:
    page.click("#text")
    page.type(TEXT)
    page.run(f"document.getElementById('text').setSelectionRange({len('🙂 ') + 1}, {len('🙂 anna') + 1})")
    page.click("[data-mark=ORG]")
    page.run("document.getElementById('text').setSelectionRange(0, 0)")
    page.run("document.getElementById('text').focus()")
    page.type("so ")
    page.click("#extract")
    page.wait("document.getElementById('status').textContent.startsWith('Found')")
    found = json.loads(value(page, "#json"))
    assert [(entity["text"], entity["start"], entity["type"]) for entity in found["entities"]] == [("anna", 5, "ORG")]
    page.click("#given button")
    assert page.run("document.querySelectorAll('#given li').length") == 0


def test_everything_can_be_reached_with_the_keyboard(page: Browser) -> None:
    page.press("Tab")
    assert page.run("document.activeElement.className") == "skip"
    page.press("Enter")
    assert page.run("location.hash") == "#text"
    page.press("Tab")
    page.run("document.getElementById('text').focus()")
    page.type(TEXT)
    for _ in range(12):
        page.press("Tab")
        if page.run("document.activeElement.id") == "extract":
            break
    page.press("Enter")
    page.wait("document.getElementById('status').textContent.startsWith('Found')")
    names = page.run(
        "[...document.querySelectorAll('button, input, textarea, mark, svg:not([aria-hidden])')].filter((part) => "
        "!(part.labels?.length || part.getAttribute('aria-label') || part.textContent.trim())).map((part) => part.id)"
    )
    assert names == []
    assert value(page, "#status", "getAttribute('role')") == "status"


def test_errors_are_shown_in_plain_words(browser: Browser, serve: Callable[..., str], extractor: Extractor) -> None:
    page = opened(browser, serve(extractor, characters=60))
    page.click("#text")
    page.type(" ")
    page.click("#extract")
    page.wait("!document.getElementById('problem').hidden")
    assert "The post is empty" in value(page, "#problem")
    page.type("bob " * 20)
    page.click("#extract")
    page.wait("document.getElementById('problem').textContent.includes('at most 60 are accepted')")
    page.click("[data-mark=PER]")
    page.wait("document.getElementById('problem').textContent.includes('Select some words')")
    extract(page, "bob")
    assert page.run("document.getElementById('problem').hidden")


def test_an_image_that_the_service_would_refuse_is_refused_by_the_page(
    browser: Browser, serve: Callable[..., str], extractor: Extractor
) -> None:
    """In base64 an image is a third larger than its file."""
    page = opened(browser, serve(extractor, body=50_000))
    page.run(
        "for (const [name, bytes] of [['large', 40000], ['small', 30000]]) window[name] = () => {"
        "  const files = new DataTransfer(); files.items.add(new File([new Uint8Array(bytes)], 'a.png'));"
        "  document.querySelector('input[type=file]').files = files.files;"
        "  document.querySelector('input[type=file]').dispatchEvent(new Event('change', {bubbles: true})); }"
    )
    page.click("#text")
    page.type("bob")
    page.run("large()")
    page.click("#extract")
    page.wait("document.getElementById('problem').textContent.includes('too large: 37,')")
    page.run("small()")
    page.click("#extract")
    page.wait("document.getElementById('problem').textContent.includes('expected a file of')")


def test_a_model_of_relations_alone_explains_itself(
    browser: Browser, serve: Callable[..., str], make_trained: Callable[..., TrainedModel]
) -> None:
    page = opened(browser, serve(Extractor([make_trained("mre")])))
    assert "entities that you mark" in value(page, "#marking-note")
    assert "finds no entities itself" in value(page, "#explain", "innerText")
    page.click("#text")
    page.type("anna meets bob")
    page.click("#extract")
    page.wait("document.getElementById('problem').textContent.includes('at least two')")
    page.wait("document.querySelector('#examples button')")
    page.click("#examples button")
    page.wait("document.querySelectorAll('#given li').length > 1")
    page.click("#extract")
    page.wait("document.getElementById('status').textContent.startsWith('Found')")
    assert "given" in value(page, "#entities")


def test_types_to_choose_from_are_those_of_the_model(
    browser: Browser, serve: Callable[..., str], make_trained: Callable[..., TrainedModel]
) -> None:
    types = [f"type-{number}" for number in range(50)]
    page = opened(browser, serve(Extractor([make_trained("mner", LabelSet(tuple(types)))])))
    marks = "[...document.querySelectorAll('#marking button')].map((button) => button.textContent)"
    assert page.run(marks) == types
    page.click("#text")
    page.type("bob anna")
    page.run("document.getElementById('text').setSelectionRange(0, 3)")
    page.click("[data-mark=type-7]")
    page.click("#extract")
    page.wait("document.getElementById('status').textContent.startsWith('Found')")
    assert "type-7" in value(page, "#entities")
    assert page.run("document.querySelector('#words mark').className") == "type1"
    assert "looks for entities alone" in value(page, "#relations")


def test_relations_without_argument_types_accept_marks_without_type(
    browser: Browser, serve: Callable[..., str], make_trained: Callable[..., TrainedModel]
) -> None:
    page = opened(browser, serve(Extractor([make_trained("mre", LabelSet(("made by", "sells")))])))
    page.click("#text")
    page.type("bob anna")
    for start, end in ((0, 3), (4, 8)):
        page.run(f"document.getElementById('text').setSelectionRange({start}, {end})")
        page.click("#marking button")
    page.click("#extract")
    page.wait("document.getElementById('status').textContent.startsWith('Found 2 entities and 1 relation')")
    assert value(page, "#marking button") == "entity"
    assert value(page, "#words mark", "className") == "untyped"
    assert "not given" in value(page, "#entities")


def test_post_labels_are_shown_with_their_attention(
    browser: Browser,
    serve: Callable[..., str],
    make_trained: Callable[..., TrainedModel],
    relevance: str,
    picture: bytes,
    tmp_path: Path,
) -> None:
    import_plugins([relevance])
    extractor = Extractor([make_trained("relevance", LabelSet(("related", "unrelated"), "unrelated"))])
    page = opened(browser, serve(extractor))
    assert "the label of posts for image-text relevance" in value(page, "#models")
    assert page.run("['marking', 'entities-part'].every((id) => document.getElementById(id).hidden)")
    (tmp_path / "photo.png").write_bytes(picture)
    page.choose_file("#image", tmp_path / "photo.png")
    extract(page)
    label = extractor.extract(TEXT, picture, evidence=True).labels["relevance"]
    assert value(page, "#status").startswith("Found 1 label in")
    row = page.run("document.querySelector('#labels tbody tr').innerText").replace("\xa0", " ")
    for part in ("image-text relevance", label.label, f"{round(100 * label.confidence)} %"):
        assert part in row
    page.run("document.querySelector('#labels .chip').focus()")
    assert label.evidence
    (weights,) = label.evidence.attention
    assert weights
    shown = page.run(
        "[...document.querySelectorAll('#regions rect')].map((part) => +part.style.getPropertyValue('--a'))"
    )
    assert shown == pytest.approx([weight / max(weights) for weight in weights], abs=0.006)
    assert value(page, "#looks").startswith(f"“{label.label}” looks at")


def test_post_text_is_escaped(page: Browser) -> None:
    extract(page, "<img src=x onerror=alert(1)> anna <script>bob</script>")
    assert page.run("document.querySelectorAll('#result script, #words img').length") == 0


def test_images_can_be_pasted_and_dropped(page: Browser, picture: bytes) -> None:
    page.run(
        f"window.content = Uint8Array.from({list(picture)}); window.filesOf = (type) => {{"
        " const files = new DataTransfer(); files.items.add(new File([content], 'a.png', { type })); return files; }"
    )
    page.run("document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: filesOf('image/png') }))")
    page.wait("document.getElementById('preview').naturalWidth === 48")
    page.click("#remove")
    drop = "new DragEvent('{event}', {{ dataTransfer: filesOf('{type}'), bubbles: true, cancelable: true }})"
    page.run(f"document.body.dispatchEvent({drop.format(event='dragover', type='image/png')})")
    assert value(page, "#drop", "className") == "over"
    page.run(f"document.body.dispatchEvent({drop.format(event='drop', type='image/png')})")
    page.wait("!document.getElementById('preview').hidden")
    page.run(f"document.body.dispatchEvent({drop.format(event='drop', type='text/plain')})")
    assert "no image file" in value(page, "#problem")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_code_examples_send_the_same_request(
    page: Browser, extractor: Extractor, picture: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "it's.png").write_bytes(picture)
    page.choose_file("#image", tmp_path / "it's.png")
    extract(page, '@anna\'s "bob" $PATH 🙂 meets paris')
    expected = json.loads(value(page, "#json"))
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(["sh", "-c", value(page, "#curl") + " -s"], capture_output=True, check=True, text=True)
    assert json.loads(done.stdout) == expected
    monkeypatch.setattr("mmib.Extractor.from_pretrained", lambda model: extractor)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(value(page, "#python"))
    assert json.loads(json.dumps(ast.literal_eval(printed.getvalue()))) == expected
    assert value(page, "#image-file") == "it's.png"


def test_facts_about_models_come_from_their_cards(
    browser: Browser, serve: Callable[..., str], make_trained: Callable[..., TrainedModel]
) -> None:
    trained = {"corpus": "posts", "seed": 3, "ended": "2026-01-02", "test": {"f1": 0.5}, "settings": {"gamma": 2.0}}
    model = dataclasses.replace(make_trained("mner"), card=trained)
    page = opened(browser, serve(Extractor([model])))
    page.wait("!document.getElementById('facts').hidden")
    assert value(page, "#facts summary") == "named entity recognition: posts; F1 50.0 % on test"
    page.run("document.querySelector('#facts details').open = true")
    for part in ("2026-01-02", "gamma", "f1 0.5000"):
        assert part in value(page, "#facts", "innerText")


@pytest.mark.skipif(find_spec("axe_core_python") is None, reason="axe-core is missing: pip install axe-core-python")
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_page_is_accessible(page: Browser, colours: str) -> None:
    page.colours(colours)
    try:
        page.wait("document.querySelector('#examples button')")
        page.click("#examples button")
        page.wait("document.getElementById('text').value !== ''")
        page.click("#extract")
        page.wait("document.getElementById('status').textContent.startsWith('Found')")
        page.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        assert accessibility_problems(page) == []
    finally:
        page.colours("")


def test_without_javascript_the_page_shows_a_message(
    browser: Browser, serve: Callable[..., str], extractor: Extractor
) -> None:
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(serve(extractor), DESK)
        root = browser.send("DOM.getDocument", depth=-1)["root"]["nodeId"]
        node = browser.send("DOM.querySelector", nodeId=root, selector="noscript .missing")["nodeId"]
        assert "needs JavaScript" in browser.send("DOM.getOuterHTML", nodeId=node)["outerHTML"]
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)
