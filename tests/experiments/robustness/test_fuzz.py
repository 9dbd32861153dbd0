"""A few hundred inputs of the fuzzer, and proof that it detects faults."""

from __future__ import annotations

import random
import signal
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.robustness import fuzz
from experiments.robustness.fuzz import ACCEPTED, REFUSED, HangError, draw, outcomes, try_input
from experiments.robustness.fuzz_targets import targets
from experiments.robustness.mutations import bomb, mutate_bytes, mutate_tree
from experiments.robustness.target import Target, WrongError
from mmib.schema import DataError

TARGETS = targets()
INPUTS = 25


@pytest.fixture(autouse=True)
def _alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGPROF, fuzz.hang)
    yield
    signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("name", TARGETS)
def test_valid_inputs_are_accepted(name: str, tmp_path: Path) -> None:
    for seed in range(5):
        assert try_input(TARGETS[name], TARGETS[name].sound(random.Random(seed)), tmp_path) == ACCEPTED


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore")
def test_damaged_inputs_end_in_a_typed_error_or_a_correct_result(name: str, tmp_path: Path) -> None:
    seen = {try_input(TARGETS[name], draw(name, TARGETS[name], 1, number), tmp_path) for number in range(INPUTS)}
    assert REFUSED in seen


def test_an_input_is_determined_by_its_seed_and_number() -> None:
    for name, target in TARGETS.items():
        there = [draw(name, target, 0, number) for number in range(20)]
        back = [draw(name, target, 0, number) for number in reversed(range(20))]
        assert there == back[::-1]
        assert len(set(there)) > 5
        assert there != [draw(name, target, 1, number) for number in range(20)]


def test_mutations_do_not_change_the_original() -> None:
    tree = {"a": [1, {"b": "c"}], "d": None}
    assert any(mutate_tree(random.Random(seed), tree) != tree for seed in range(9))
    assert tree == {"a": [1, {"b": "c"}], "d": None}
    assert any(mutate_bytes(random.Random(seed), b"abc") != b"abc" for seed in range(9))


def test_a_nesting_bomb_is_small_and_expands() -> None:
    assert len(str(bomb(3))) < len(str(bomb(4))) / 1.9
    assert len({id(level) for level in _levels(bomb())}) == 31


def _levels(tree: Any) -> Iterator[Any]:
    while isinstance(tree, list):
        yield tree
        tree = tree[0]


# Judging


def judged(read: Any, tmp_path: Path) -> str:
    return try_input(Target("x", lambda rng: b"", lambda rng: b"", read), b"", tmp_path)


def test_kinds_of_errors_are_distinguished(tmp_path: Path) -> None:
    def refuse(_: Path) -> None:
        raise DataError("x is no y")

    def refuse_silently(_: Path) -> None:
        raise DataError("")

    def fail(_: Path) -> None:
        raise KeyError("x")

    assert judged(lambda folder: None, tmp_path) == ACCEPTED
    assert judged(refuse, tmp_path) == REFUSED
    with pytest.raises(KeyError):
        judged(fail, tmp_path)
    with pytest.raises(AssertionError, match="without a text"):
        judged(refuse_silently, tmp_path)


def test_a_hang_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "LONGEST_S", 0.2)

    def swallow(_: Path) -> None:
        try:
            while True:
                pass
        except Exception:
            pytest.fail("a reader took the alarm for an error of its own")

    with pytest.raises(HangError):
        judged(swallow, tmp_path)


def test_results_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that accepts a box out of range is detected."""
    monkeypatch.setattr("experiments.robustness.fuzz_targets.read_boxes", lambda path: {"a": (0, 0, 2, 1)})
    with pytest.raises(WrongError, match="the box of 'a'"):
        try_input(TARGETS["crop boxes"], b"{}", tmp_path)


# Processes


def worker(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Replace the readers' process by a script: `number` is the input's, `say` prints its outcome."""
    script = textwrap.dedent("""
        import json, os, sys
        def say(outcome, lines=()):
            print(json.dumps({"outcome": outcome, "traceback": "", "lines": list(lines)}), flush=True)
        for number in range(int(sys.argv[1]), int(sys.argv[2])):
            print(json.dumps({"number": number}), flush=True)
    """) + textwrap.indent(textwrap.dedent(body), "    ")
    monkeypatch.setattr(
        fuzz, "worker_command", lambda seed, name, start, end: [sys.executable, "-c", script, str(start), str(end)]
    )


def test_a_crashed_process_is_a_failure_and_the_next_one_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    worker(
        monkeypatch,
        """
        if number == 2:
            sys.stderr.write("segmentation fault")
            sys.stderr.flush()
            os._exit(3)
        say("accepted")
        """,
    )
    found = list(outcomes(0, "t", 0, 5))
    assert [(outcome.number, outcome.outcome) for outcome in found] == [
        *((0, ACCEPTED), (1, ACCEPTED), (2, "died with status 3"), (3, ACCEPTED), (4, ACCEPTED))
    ]
    assert found[2].traceback == "segmentation fault"


def test_a_target_continues_until_its_inputs_reach_no_new_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines 0 to 4 are first reached by the inputs 0, 10, 20, 30 and 40."""
    worker(monkeypatch, 'say("KeyError" if number == 7 else "refused", [f"a.py:{min(number // 10, 4)}"])')
    tally = fuzz.fuzz("t", seed=0, least=20, quiet=15)
    assert (tally.last_new, tally.counts.total(), len(tally.lines)) == (41, 56, 5)
    assert tally.failures == {"KeyError": 1}
    assert fuzz.fuzz("t", seed=0, least=100, quiet=15).counts.total() == 100


@pytest.mark.slow
def test_coverage_is_that_of_the_reader() -> None:
    reached = set().union(*(outcome.lines for outcome in outcomes(0, "crop boxes", 0, 30)))
    assert {line.rpartition(":")[0].rpartition("/")[2] for line in reached} >= {"files.py", "crops.py"}
    assert len(reached) > 10
