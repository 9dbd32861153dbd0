"""The report of a real run in a real browser: Debian's chromium, driven through its debugging pipe."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmib.cli import main
from mmib.schema import Task

CHROMIUM = shutil.which("chromium")
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--remote-debugging-pipe"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
KEY_CODES = {"Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13}
PHONE, DESK = 360, 1280

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")


class Browser:
    """One page of a headless chromium, spoken to in JSON messages that end with a zero byte.

    Attributes:
        events: everything that the page reported so far.
    """

    def __init__(self, profile: Path) -> None:
        orders, answers = os.pipe(), os.pipe()
        # The browser reads orders from descriptor 3 and writes to 4; ours are moved out of the way first.
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (orders[0], answers[1])]
        words = [str(CHROMIUM), *SWITCHES, f"--user-data-dir={profile}", "about:blank"]
        line = f"exec {shlex.join(words)} 3<&{theirs[0]} 4>&{theirs[1]}"
        self.process = subprocess.Popen(["bash", "-c", line], pass_fds=theirs, stderr=subprocess.DEVNULL)
        for end in (orders[0], answers[1], *theirs):
            os.close(end)
        self._orders, self._answers = os.fdopen(orders[1], "wb", 0), os.fdopen(answers[0], "rb")
        self._sent = 0
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give an order and wait for its answer."""
        self._sent += 1
        order = {"id": self._sent, "method": method, "params": parameters}
        self._orders.write(json.dumps(order | ({"sessionId": self._session} if self._session else {})).encode() + b"\0")
        while (message := self._read()).get("id") != self._sent:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def _read(self) -> dict[str, Any]:
        message = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "chromium ended"
            message += byte
        return json.loads(message)

    def open(self, path: Path, width: int) -> None:
        """Load a page into a window of a width, and wait until it is there."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def run(self, expression: str) -> Any:
        """The value of an expression in the page, or of what it promises."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            for kind in ("keyDown", "keyUp"):
                self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEY_CODES[key])

    def close(self) -> None:
        """End the browser."""
        self._orders.close()
        self._answers.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def reports(finished_runs: Callable[[Task], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Task], Path]:
    """The report of a task's real run, made once."""

    @functools.cache
    def make(task: Task) -> Path:
        path = tmp_path_factory.mktemp("report") / "report.html"
        assert main(["report", str(finished_runs(task).folder), "--output", str(path)]) == 0
        return path

    return make


@pytest.fixture
def opened(browser: Browser, reports: Callable[[Task], Path], task: Task) -> Callable[[int], Browser]:
    """Opens the report of the test's task in a window of a width."""

    def open_page(width: int) -> Browser:
        browser.open(reports(task), width)
        return browser

    return open_page


@pytest.mark.parametrize("task", ["mre", "mner"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_opens_without_an_error_or_a_request_and_fits(opened: Callable[[int], Browser], width: int) -> None:
    page = opened(width)
    assert page.run("document.querySelectorAll('section').length") == 6
    assert page.run("document.documentElement.scrollWidth") <= width
    page.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.run("document.documentElement.scrollWidth") <= width
    failed = [event for event in page.events if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
    said = [event for event in page.events if event["method"] == "Runtime.consoleAPICalled"]
    assert not failed + said
    asked = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert {url.partition(":")[0] for url in asked} == {"file", "data"}
    assert len([url for url in asked if url.startswith("file:")]) == 1
    assert page.run("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")


@pytest.mark.parametrize("task", ["mre"])
def test_the_policy_keeps_everything_out(opened: Callable[[int], Browser]) -> None:
    page = opened(DESK)
    blocked = page.run(
        "new Promise((done) => { document.addEventListener('securitypolicyviolation', (e) => done(e.blockedURI));"
        " document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/a.png'})); })"
    )
    assert blocked == "http://127.0.0.1:9/a.png"


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_filters_show_what_they_say(opened: Callable[[int], Browser]) -> None:
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
    assert all("0" in own for own in classes)


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_posts_and_their_words_are_reached_with_the_keyboard(opened: Callable[[int], Browser]) -> None:
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
def test_an_entity_shows_where_it_looks(opened: Callable[[int], Browser]) -> None:
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
def test_the_matrix_is_sorted_with_its_counts(opened: Callable[[int], Browser]) -> None:
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
def test_light_and_dark_follow_the_system_and_the_button(opened: Callable[[int], Browser]) -> None:
    page = opened(DESK)
    paper = "getComputedStyle(document.body).backgroundColor"
    seen = []
    for scheme in ("light", "dark"):
        page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        seen.append(page.run(paper))
    page.run("document.getElementById('theme').click()")
    assert seen == ["rgb(252, 251, 248)", "rgb(21, 23, 26)"]
    assert page.run(paper) == seen[0]
    page.send("Emulation.setEmulatedMedia", features=[])
