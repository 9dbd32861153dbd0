"""Control one page of a headless Chromium through its debugging pipe; needs nothing but Debian's chromium."""

from __future__ import annotations

import base64
import fcntl
import importlib.resources
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
MISSING = "chromium is not installed: apt-get install chromium"
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--remote-debugging-pipe"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
KEY_CODES = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
KEY_CODES |= {"Delete": 46}
TEXTS = {"Enter": "\r"}
SHIFT = 8
HEIGHT = 800


class Browser:
    """One page, controlled by JSON messages that end with a zero byte.

    Args:
        profile: an empty folder for the browser's profile.

    Attributes:
        events: all events that the page has reported.
    """

    def __init__(self, profile: Path) -> None:
        orders, answers = os.pipe(), os.pipe()
        # The browser reads commands from descriptor 3 and writes to 4; move our ends away from these first.
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
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer.

        Raises:
            RuntimeError: the browser rejects the command, or has ended.
        """
        self._sent += 1
        order = {"id": self._sent, "method": method, "params": parameters}
        self._orders.write(json.dumps(order | ({"sessionId": self._session} if self._session else {})).encode() + b"\0")
        while (message := self._read()).get("id") != self._sent:
            self.events.append(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        result: dict[str, Any] = message["result"]
        return result

    def _read(self) -> dict[str, Any]:
        message = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("chromium ended")
            message += byte
        answer: dict[str, Any] = json.loads(message)
        return answer

    def resize(self, width: int, height: int = HEIGHT) -> None:
        """Set the size of the window, in pixels."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, address: str, width: int) -> None:
        """Load a page in a window of this width, and wait until it has loaded."""
        self.resize(width)
        self._load("Page.navigate", url=address)

    def reload(self) -> None:
        """Reload the page, and wait until it has loaded."""
        self._load("Page.reload")

    def _load(self, method: str, **parameters: Any) -> None:
        self.events.clear()
        self.send(method, **parameters)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def run(self, expression: str) -> Any:
        """Evaluate an expression in the page, and return its value or that of its promise.

        Raises:
            RuntimeError: the evaluation fails.
        """
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> None:
        """Wait until an expression is true in the page.

        Raises:
            RuntimeError: it does not become true in time.
        """
        watch = (
            f"new Promise((done) => {{ const end = performance.now() + {1000 * seconds}; const look = () => "
            f"({expression}) ? done(true) : performance.now() > end ? done(false) : setTimeout(look, 20); look(); }})"
        )
        if not self.run(watch):
            raise RuntimeError(f"not within {seconds:g} s: {expression}")

    def click(self, selector: str) -> None:
        """Scroll to an element, and click at its centre."""
        place = (
            f"(() => {{ const part = document.querySelector({json.dumps(selector)}); "
            "part.scrollIntoView({block: 'center', behavior: 'instant'}); const box = part.getClientRects()[0]; "
            "return [box.left + box.width / 2, box.top + box.height / 2]; })()"
        )
        x, y = self.run(place)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Type text into the focused element."""
        self.send("Input.insertText", text=text)

    def press(self, *keys: str) -> None:
        """Press keys one after the other: names of `KEY_CODES`, optionally prefixed with `Shift+`, or characters."""
        for combination in keys:
            key = combination.removeprefix("Shift+")
            text = {"text": TEXTS.get(key, key)} if key in TEXTS or len(key) == 1 else {}
            code = KEY_CODES[key] if len(key) > 1 else ord(key.upper())
            pressed: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
            pressed["modifiers"] = SHIFT if key != combination else 0
            for kind, options in (("keyDown", text), ("keyUp", {})):
                self.send("Input.dispatchKeyEvent", type=kind, **pressed, **options)

    def choose_file(self, selector: str, file: Path) -> None:
        """Choose a file in a file input."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def colours(self, scheme: str) -> None:
        """Emulate the system's colour scheme: `light` or `dark`; an empty string ends the emulation."""
        features = [{"name": "prefers-color-scheme", "value": scheme}] if scheme else []
        self.send("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, clip: tuple[float, float, float, float] | None = None) -> bytes:
        """Return a PNG of the window, or of a part of the page: left, top, width, height in pixels."""
        part: dict[str, Any] = {}
        if clip is not None:
            box = dict(zip(("x", "y", "width", "height"), clip, strict=True))
            part = {"clip": {**box, "scale": 1}, "captureBeyondViewport": True}
        return base64.b64decode(self.send("Page.captureScreenshot", format="png", **part)["data"])

    def close(self) -> None:
        """End the browser."""
        self._orders.close()
        self._answers.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def accessibility_problems(page: Browser) -> list[str]:
    """List the problems of a page that axe-core rates serious or critical, each with the elements concerned.

    Raises:
        ModuleNotFoundError: axe-core is not installed.
    """
    script = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    page.run(f"{script}; 0")
    found = page.run("axe.run().then((result) => result.violations)")
    return [
        f"{rule['id']}: {'; '.join(str(node['target']) for node in rule['nodes'])}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]
