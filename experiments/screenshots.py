"""Screenshots of the page, a report and the review page for the documentation, taken with a headless Chromium.

    python -m experiments.screenshots --model exports --run runs/mre-demo/...

Each is taken in desktop and phone size, and in dark colours. The post and the image on the page are an example of the
service, generated like the demo corpus. No real data may appear in a screenshot: runs on other data than the demo
corpus are refused.
"""

from __future__ import annotations

import argparse
import io
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from experiments.benchmarks.serving import service, started
from experiments.chromium import CHROMIUM, MISSING, Browser
from experiments.demo import EXPERIMENTS, newest_run
from mmib.base.files import atomic_file
from mmib.runs.reader import FinishedRun, read_run
from mmib.schema import MMIBError, RunError

HEIGHT = 900  # for a report and the review page
MARGIN = 24
MOST_BYTES = 200_000
COLOURS = 256
DRAWN = "demo-"  # prefix of the names of generated corpora


class View(NamedTuple):
    """How a page is viewed.

    Attributes:
        suffix: suffix of the file name.
        width: width of the window, in pixels.
        colours: `light` or `dark`.
    """

    suffix: str
    width: int
    colours: str


VIEWS = (View("", 1100, "light"), View("-phone", 390, "light"), View("-dark", 1100, "dark"))


def shrink(png: bytes) -> bytes:
    """Return the image, with fewer colours if it would otherwise be too large.

    Raises:
        SystemExit: it is still too large for a repository.
    """
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for candidate in (image, image.quantize(COLOURS, dither=Image.Dither.NONE)):
        file = io.BytesIO()
        candidate.save(file, "PNG", optimize=True)
        if len(file.getvalue()) <= MOST_BYTES:
            return file.getvalue()
    raise SystemExit(f"the picture has {len(file.getvalue()):,} bytes: {MOST_BYTES:,} at most are kept")


def page(browser: Browser, address: str, width: int, example: int) -> bytes:
    """Screenshot of the page with the result of an example, its first relation selected."""
    browser.open(address, width)
    browser.wait("document.getElementById('models').textContent.includes('This model finds')")
    chosen = f"#examples li:nth-child({example}) button"
    browser.wait(f"document.querySelector({chosen!r})")
    browser.click(chosen)
    browser.click("#extract")
    browser.wait("document.getElementById('status').textContent.startsWith('Found')", seconds=120)
    browser.run("(document.querySelector('#relations .chip') ?? document.querySelector('#entities .chip'))?.focus()")
    browser.wait("[...document.images].every((image) => image.hidden || image.complete)")
    # From the title to the end of the tables.
    bottom = browser.run("document.querySelector('.found').getBoundingClientRect().bottom + scrollY")
    return browser.screenshot((0, 0, width, bottom + MARGIN))


def review(browser: Browser, address: str, width: int) -> bytes:
    """Screenshot of the review page with the least certain post that has an image."""
    browser.open(address, width)
    browser.wait("document.getElementById('place').textContent.startsWith('Post')")
    for number in itertools.count(2):
        if browser.run("document.getElementById('seen').hasAttribute('src')"):
            break
        browser.press("n")
        browser.wait(f"document.getElementById('place').textContent.startsWith('Post {number} of')")
    browser.wait("!document.getElementById('picture').hidden")
    return browser.screenshot((0, 0, width, HEIGHT))


def report(browser: Browser, address: str, width: int) -> bytes:
    """Screenshot of the top of a report."""
    browser.open(address, width)
    return browser.screenshot((0, 0, width, HEIGHT))


def write_report(run: FinishedRun, path: Path) -> str:
    """Write a run's report, and return its address."""
    subprocess.run([sys.executable, "-m", "mmib", "report", str(run.folder), "--output", str(path)], check=True)
    return path.as_uri()


def pictures(run: FinishedRun, models: Sequence[Path], example: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of all screenshots."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "profile").mkdir()
        asked = stack.enter_context(service(models)).place
        predictions = str(run.predictions_file("test").resolve())
        images = ["--images", str(Path(run.image_root or ".").resolve())]
        reviewed = stack.enter_context(started(["review", predictions, *images, "-o", "corrected.jsonl"], folder)).place
        address = write_report(run, folder / "report.html")
        taken: dict[str, Callable[[int], bytes]] = {
            "page": lambda width: page(browser, f"http://{asked}/", width, example),
            "review": lambda width: review(browser, f"http://{reviewed}/", width),
            "report": lambda width: report(browser, address, width),
        }
        browser = Browser(folder / "profile")
        stack.callback(browser.close)
        for view in VIEWS:
            browser.colours(view.colours)
            for name, take in taken.items():
                yield f"{name}{view.suffix}.png", shrink(take(view.width))


def drawn_run(folder: Path | None, runs: Path) -> FinishedRun:
    """Return the run to show: the given one, or else the newest demo run.

    Raises:
        RunError: there is none, or it has seen other data than generated data.
    """
    if folder is None:
        found = next((run for name in EXPERIMENTS if (run := newest_run(runs, name))), None)
        if found is None:
            raise RunError(f"there is no demo run below {runs}: name one with --run, or make one with make train-mre")
    else:
        found = read_run(folder)
    if not str(found.summary.get("corpus", "")).startswith(DRAWN):
        raise RunError(f"{found.folder} was not trained on a drawn corpus: its posts may not be shown")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Write all screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, nargs="+", default=[Path("exports")], help="as for mmib serve")
    parser.add_argument("--run", type=Path, help="for the report (default: the newest demo run)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs lie (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("docs/figures"), help="folder (default: %(default)s)")
    parser.add_argument("--example", type=int, default=2, help="which of the page's examples (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    if CHROMIUM is None:
        raise SystemExit(MISSING)
    for name, png in pictures(drawn_run(chosen.run, chosen.runs), chosen.model, chosen.example):
        with atomic_file(chosen.output / name) as file:
            file.write(png)
        print(f"{chosen.output / name}: {len(png):,} bytes", flush=True)


if __name__ == "__main__":
    try:
        main()
    except MMIBError as error:
        raise SystemExit(f"screenshots: {error}") from error
