"""Pictures of the page and of a report for the README, made by a headless Chromium.

    python -m experiments.screenshots --model exports --run runs/mre-demo/...

The post and the image on the page are the service's first example, drawn as the demo corpus is. Nothing of a real data
set may get into a picture: runs on other data than the demo corpus are refused.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from experiments.benchmarks.serving import service
from experiments.chromium import CHROMIUM, MISSING, Browser
from experiments.demo import EXPERIMENTS, newest_run
from mmib.base.files import atomic_file
from mmib.runs.reader import FinishedRun, read_run
from mmib.schema import MMIBError, RunError

WIDTH, REPORT_HEIGHT = 1100, 900
MARGIN = 24
MOST_BYTES = 200_000
COLOURS = 256
DRAWN = "demo-"  # how corpora begin that are drawn


def shrink(png: bytes) -> bytes:
    """The same picture, in fewer colours where it would be too large otherwise.

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


def page(browser: Browser, address: str, example: int) -> bytes:
    """The page with the result of an example, its first relation chosen."""
    browser.open(address, WIDTH)
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
    return browser.screenshot((0, 0, WIDTH, bottom + MARGIN))


def report(browser: Browser, run: FinishedRun) -> bytes:
    """The top of a run's report."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        command = [sys.executable, "-m", "mmib", "report", str(run.folder), "--output", str(path)]
        subprocess.run(command, check=True)
        browser.open(path.as_uri(), WIDTH)
        return browser.screenshot((0, 0, WIDTH, REPORT_HEIGHT))


def drawn_run(folder: Path | None, runs: Path) -> FinishedRun:
    """The run to show: the one named, else the newest demo run.

    Raises:
        RunError: there is none, or it has seen other data than drawn ones.
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
    """Write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, nargs="+", default=[Path("exports")], help="as for mmib serve")
    parser.add_argument("--run", type=Path, help="for the report (default: the newest demo run)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs lie (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("docs/figures"), help="folder (default: %(default)s)")
    parser.add_argument("--example", type=int, default=2, help="which of the page's examples (default: %(default)s)")
    parser.add_argument("--colours", choices=["light", "dark"], default="light")
    chosen = parser.parse_args(arguments)
    if CHROMIUM is None:
        raise SystemExit(MISSING)
    run = drawn_run(chosen.run, chosen.runs)
    with tempfile.TemporaryDirectory() as profile, service(chosen.model) as (place, _):
        browser = Browser(Path(profile))
        try:
            browser.colours(chosen.colours)
            pictures = {
                "page.png": page(browser, f"http://{place}/", chosen.example),
                "report.png": report(browser, run),
            }
        finally:
            browser.close()
    for name, png in pictures.items():
        with atomic_file(chosen.output / name) as file:
            file.write(shrink(png))
        print(f"{chosen.output / name}: {(chosen.output / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    try:
        main()
    except MMIBError as error:
        raise SystemExit(f"screenshots: {error}") from error
