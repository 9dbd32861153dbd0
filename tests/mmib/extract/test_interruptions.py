"""An output is correct and complete or absent, after any sequence of interruptions.

EXAMPLES=500 python -m pytest tests/mmib/extract/test_interruptions.py --hypothesis-seed 0
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from experiments.robustness.tiny_export import write_tiny_export
from mmib.cli import main
from mmib.extract import stream
from mmib.extract.extractor import Extractor
from mmib.extract.rows import read_rows
from mmib.extract.stream import Output, extracted, key_of, line_of

EXAMPLES = int(os.environ.get("EXAMPLES", "60"))
STEPS = 15
# Posts that are read and flushed at a time.
CHUNK = 2
# The fraction of written data that is on disk after a fault.
SHARES = (0.0, 0.4, 0.9, 1.0)
# Two inputs of equal size, and a shorter one; malformed rows count as rows.
INPUTS = [
    "".join(f'{{"text": "anna met {name} in paris", "id": {number}}}\n' for number in range(7)) + "broken\n"
    for name in ("bob", "eva")
]
INPUTS.append('{"id": NaN}\n{"text": "carl"}\n')


class Killed(BaseException):
    """The process was killed without any cleanup."""


class Job(NamedTuple):
    """Everything that determines an output: numbers of input, model and option."""

    posts: int
    model: int
    evidence: bool


@cache
def models() -> list[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mmib-models-"))
    return [write_tiny_export(folder / str(seed), seed) for seed in range(2)]


@cache
def extractors() -> list[Extractor]:
    return [Extractor.from_pretrained(folder) for folder in models()]


@cache
def expected(job: Job) -> bytes:
    """The expected output of a job, without any file."""
    file = io.BufferedReader(io.BytesIO(INPUTS[job.posts].encode()))  # type: ignore[arg-type] - any raw file
    rows = read_rows(file, is_csv=False, folder=Path())
    return "".join(map(line_of, extracted(extractors()[job.model], rows, job.evidence))).encode()


class Extraction(RuleBasedStateMachine):
    """The command, with a model of its files.

    Attributes:
        complete: the job whose output exists; None before the first.
        begun: the unfinished job, if one of its rows exists.
        written: rows that the command wrote.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="mmib-extraction-"))
        self.posts, self.out = self.folder / "posts.jsonl", self.folder / "out.jsonl"
        self.part = self.folder / ".out.jsonl.part"
        self.complete: Job | None = None
        self.begun: Job | None = None
        self.written = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize()
    def first(self) -> None:
        self.job = Job(posts=0, model=0, evidence=False)
        self.replace_input(0)

    @rule(posts=st.integers(0, 2))
    def replace_input(self, posts: int) -> None:
        self.job = self.job._replace(posts=posts)
        self.posts.write_text(INPUTS[posts], encoding="utf-8")

    @rule()
    def replace_model(self) -> None:
        self.job = self.job._replace(model=1 - self.job.model)

    @rule()
    def change_option(self) -> None:
        self.job = self.job._replace(evidence=not self.job.evidence)

    @rule()
    def run(self) -> None:
        self.start()

    @rule(after=st.integers(0, 4), left=st.sampled_from(SHARES))
    def kill(self, after: int, left: float) -> None:
        """Kill the process after a few chunks; a fraction of what it wrote is on disk."""
        calls = iter(range(after))
        read = Extractor.read

        def dying(extractor: Extractor, *arguments: Any) -> Any:
            if next(calls, None) is None:
                raise Killed
            return read(extractor, *arguments)

        self.start(mock.patch.object(Extractor, "read", dying), left)

    @rule()
    def kill_at_the_end(self) -> None:
        """Kill the process after its output was renamed."""
        unlink = Path.unlink

        def dying(path: Path, missing_ok: bool = False) -> None:
            if path.name.endswith(".settings"):
                raise Killed
            unlink(path, missing_ok)

        self.start(mock.patch.object(Path, "unlink", dying))

    @rule(after=st.integers(0, 4), left=st.sampled_from(SHARES))
    def fill_the_disk(self, after: int, left: float) -> None:
        calls = iter(range(after))
        settle = Output._settle

        def full(output: Output) -> None:
            if next(calls, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            settle(output)

        self.start(mock.patch.object(Output, "_settle", full), left, "No space left on device")

    @precondition(lambda self: self.begun in (None, self.job))
    @rule(completes=st.booleans())
    def start_while_another_writes(self, completes: bool) -> None:
        """Another process writes the output, and either completes it after this one was refused, or dies."""
        with self.posts.open("rb") as file:
            key = key_of([models()[self.job.model]], file, self.options())
        done, other = self.rows(), Output(self.out, key)
        assert other.done == done
        self.refused("another process is writing")
        if completes:
            records = map(json.loads, expected(self.job).splitlines())
            other.write(list(records)[done:])
            self.complete, self.begun = self.job, None
        else:
            other.file.close()

    @rule()
    def remove(self) -> None:
        """Remove the files as described by the refusal."""
        self.part.unlink(missing_ok=True)
        self.begun = None

    @invariant()
    def output_is_whole(self) -> None:
        assert (self.out.read_bytes() if self.out.exists() else None) == (self.complete and expected(self.complete))

    @invariant()
    def part_is_a_beginning(self) -> None:
        part = self.part.read_bytes() if self.part.exists() else b""
        if self.begun is None:
            assert b"\n" not in part
        else:
            assert expected(self.begun).startswith(part)

    @invariant()
    def nothing_else_is_left(self) -> None:
        assert {path.name for path in self.folder.iterdir()} <= {
            *(self.posts.name, self.out.name, self.part.name, ".out.jsonl.settings")
        }

    def options(self) -> dict[str, Any]:
        fixed = {"samples": 0, "runtime": "torch", "precision": "float32", "csv": False}
        return {"evidence": self.job.evidence, "images": str(self.folder.resolve()), **fixed}

    def rows(self) -> int:
        return self.part.read_bytes().count(b"\n") if self.part.exists() else 0

    def start(
        self, fault: contextlib.AbstractContextManager[Any] | None = None, left: float = 0, reason: str = ""
    ) -> None:
        """Start the command in the presence of a fault, and compare its results with the expected ones.

        If it fails, it reports the reason, and the fraction `left` of what it wrote is on disk.
        """
        if self.begun not in (None, self.job):
            self.refused("begun with another model, input or options")
            return
        done, lines = self.rows(), expected(self.job).count(b"\n")
        with self.fast(), fault or contextlib.nullcontext():
            status, errors = self.command()
        if status == 0 or not self.part.exists():
            assert status in (0, None)
            assert self.written == lines - done
            self.complete, self.begun = self.job, None
        else:
            assert reason in errors
            with self.part.open("rb+") as file:
                file.truncate(int(left * self.part.stat().st_size))
            self.begun = self.job if self.rows() else None

    def refused(self, reason: str) -> None:
        """The command must report why it does nothing."""
        before = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        with self.fast():
            status, errors = self.command()
        assert status == 2
        assert reason in errors
        assert {path.name: path.read_bytes() for path in self.folder.iterdir()} == before

    def command(self) -> tuple[int | None, str]:
        """Exit status (None if the process was killed) and standard error."""
        self.written = 0
        arguments = ["extract", "--model", str(models()[self.job.model]), str(self.posts), "-o", str(self.out)]
        arguments += ["--evidence"] if self.job.evidence else []
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            try:
                return main(arguments), errors.getvalue()
            except Killed:
                return None, errors.getvalue()

    @contextlib.contextmanager
    def fast(self) -> Iterator[None]:
        """Keep models in memory, and flush rows in small, counted chunks."""

        found = extractors()[self.job.model]

        def counted(record: dict[str, Any]) -> str:
            self.written += 1
            return line_of(record)

        with (
            mock.patch.object(Extractor, "from_pretrained", return_value=found),
            mock.patch.object(stream, "POSTS", CHUNK),
            mock.patch.object(stream, "line_of", counted),
        ):
            yield


def test_an_output_is_correct_or_absent() -> None:
    chosen = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        derandomize="EXAMPLES" not in os.environ,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Extraction, settings=chosen)
