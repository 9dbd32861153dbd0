"""Every regular expression takes linear rather than quadratic time."""

from __future__ import annotations

import ast
import gc
import itertools
import re
import time
from collections.abc import Callable, Iterator

import pytest

from mmib.crop_objects import phrases
from mmib.datamodules import words
from tests.test_architecture import modules

# In modules that read configurations and posts; the others read files of this project or its libraries.
READ_BY_USERS = ("mmib.datamodules", "mmib.crop_objects", "mmib.extract", "mmib.analysis.report", "mmib.search")
READ_BY_USERS += ("mmib.configs", "mmib.options", "mmib.base")
ALPHABET = "a0 _-.:/@#'\t漢๑"
CHARACTERS, TIMES = 1_000, 8
# CPU time for this many characters; a quadratic scan takes longer.
SHORT_S = 0.0002


def constant_patterns() -> Iterator[tuple[str, str]]:
    """(module, pattern) of each call of `re` with a constant pattern."""
    for module, path in modules():
        if not module.startswith(READ_BY_USERS):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re.") and node.args:
                pattern = node.args[0]
                if isinstance(pattern, ast.Constant) and isinstance(pattern.value, str):
                    yield module, pattern.value


PATTERNS = sorted({*constant_patterns(), ("mmib.datamodules.words", words._WORD.pattern)})


def pumped(pattern: str) -> Iterator[str]:
    """Texts that repeat one or two parts: characters, and words at the start of or inside the pattern."""
    literals = re.findall(r"[\w:/'#( ]{3,}", pattern.replace("\\", ""))[:4]
    parts = [*ALPHABET, *literals, *(set(re.sub(r"\\.|\w|\s", "", pattern)) - set(ALPHABET))][:24]
    for first, second in itertools.product(parts, repeat=2):
        unit = first if first == second else first + second
        yield (unit * CHARACTERS)[:CHARACTERS]


def processor_time(work: Callable[[], object]) -> float:
    """Seconds of this thread without garbage collection, which objects of other tests make slow."""
    gc.disable()
    try:
        began = time.thread_time()
        work()
        return time.thread_time() - began
    finally:
        gc.enable()


def growth(pattern: re.Pattern[str]) -> tuple[float, str]:
    """Factor by which the time for the slowest texts grows if they are eight times as long; 64 for a quadratic scan."""

    def seconds(text: str) -> float:
        return processor_time(lambda: [None for _ in pattern.finditer(text)])

    found = (0.0, "")
    for text in sorted(pumped(pattern.pattern), key=seconds, reverse=True)[:3]:
        short = min(seconds(text) for _ in range(5))
        if short > SHORT_S:
            longer = min(seconds(text * TIMES) for _ in range(2))
            found = max(found, (longer / short, text[:20]))
    return found


@pytest.mark.parametrize(("module", "pattern"), PATTERNS, ids=lambda value: value[:40])
def test_time_grows_linearly_with_the_text(module: str, pattern: str) -> None:
    times, text = growth(re.compile(pattern))
    assert times < 3 * TIMES, f"{pattern!r} of {module} takes {times:.0f} times longer for {TIMES} times {text!r}"


@pytest.mark.parametrize("pattern", [r"[\w.+-]+@[\w-]+", r"\d+%", r"keys \((.*)\)"])
def test_the_measurement_detects_a_quadratic_pattern(pattern: str) -> None:
    assert growth(re.compile(pattern))[0] > 3 * TIMES


def test_words_and_phrases_of_a_long_text_are_found_quickly() -> None:
    """20,000 characters used to take two seconds."""
    for unit in ("_.", "a.", "๑", "1", "a@", "http://", "A'"):
        text = unit * (20_000 // len(unit))
        assert processor_time(lambda text=text: (words.tokenize(text), phrases._WORD.findall(text))) < 0.5
