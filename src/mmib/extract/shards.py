"""Extraction in shards, by several machines or processes, and the command `mmib merge-shards`, which joins them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from mmib.base.argument_parser import CommandParser
from mmib.base.files import atomic_file, check_output, checksum, parse_json, write_text
from mmib.base.wording import counted
from mmib.schema import ConfigError, RunError

SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})", re.ASCII)
AGAIN = "extract that shard again"


class Shard(NamedTuple):
    """A part of the rows of a file.

    Attributes:
        number: number of the shard, from 1.
        of: number of shards.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a shard such as `3/64`, the third of 64.

        Raises:
            ConfigError: the text is not a valid shard.
        """
        found = SHARD.fullmatch(text)
        shard = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= shard.number <= shard.of:
            raise ConfigError(f"--shard is {text!r}: write the number of the shard, from 1, and how many: 3/64")
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def rows(self, total: int, together: int) -> range:
        """Row numbers of this shard, from 1, in a file of `total` rows.

        Groups of `together` rows that form a batch are not split: the last digits of a confidence may depend on the
        other rows of its batch.
        """
        batches = -(-total // together)
        first, end = (number * batches // self.of * together for number in (self.number - 1, self.number))
        return range(first + 1, min(end, total) + 1)


def note_shard(output: Path, shard: Shard, key: dict[str, Any]) -> None:
    """Write a note beside a complete output: which shard of which extraction it is."""
    note = {"shard": list(shard), "of": key, "sha256": checksum(output)}
    write_text(note_file(output), json.dumps(note, sort_keys=True) + "\n")


def is_complete(output: Path, shard: Shard, key: dict[str, Any]) -> bool:
    """Whether an output is this shard of this extraction, complete and undamaged."""
    try:
        return read_note(output) == (shard, json.loads(json.dumps(key)))
    except RunError:
        return False


def read_note(output: Path) -> tuple[Shard, dict[str, Any]]:
    """Read which shard an output is, and the key of its extraction.

    Raises:
        RunError: the output is not a shard, is incomplete, or is damaged.
    """
    try:
        note = parse_json(note_file(output).read_text(encoding="utf-8"))
        shard, key, expected = Shard(*note["shard"]), dict(note["of"]), note["sha256"]
        found = checksum(output)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{output} is no complete shard of mmib extract --shard ({error}): {AGAIN}") from error
    if found != expected:
        raise RunError(f"{output} was changed since it was extracted: {AGAIN}")
    return shard, key


def note_file(output: Path) -> Path:
    """Path of the note that says which shard an output is."""
    return output.with_name(f".{output.name}.shard")


def part_file(output: Path) -> Path:
    """Path of the beginning of an output that is not complete."""
    return output.with_name(f".{output.name}.part")


def settings_file(output: Path) -> Path:
    """Path of what determines the content of an output that is not complete."""
    return output.with_name(f".{output.name}.settings")


def merge(outputs: Sequence[Path], to: Path) -> None:
    """Concatenate the outputs of all shards of one extraction, in row order.

    Raises:
        RunError: the outputs are not all the shards of one extraction, each exactly once.
        OSError: the file cannot be written.
    """
    notes = [(*read_note(output), output) for output in outputs]
    first, first_key, first_output = notes[0]
    for shard, key, output in notes:
        if (shard.of, key) != (first.of, first_key):
            raise RunError(
                f"{output} and {first_output} are shards of different extractions: posts, models, options or number "
                "of shards differ; merge those of one extraction"
            )
    found = sorted(shard.number for shard, _, _ in notes)
    for number in range(1, first.of + 1):
        if found.count(number) != 1:
            problem = "is missing" if number not in found else "was given more than once"
            raise RunError(f"shard {number} of {first.of} {problem}: name each shard once")
    with atomic_file(to) as file:
        for _, _, output in sorted(notes, key=lambda note: note[0]):
            with output.open("rb") as part:
                shutil.copyfileobj(part, file)


def run(arguments: list[str]) -> int:
    """Merge the shards.

    Raises:
        ConfigError: the output is one of the shards.
        RunError: the files are not all the shards of one extraction.
    """
    parser = CommandParser(
        prog="mmib merge-shards",
        description="Merge the outputs of mmib extract --shard into one file, identical to that of an extraction "
        "without shards. Fails if outputs differ in posts, models or options, or if a shard is missing.",
    )
    parser.add_argument("shards", nargs="+", type=Path, metavar="SHARD", help="outputs of all shards, in any order")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="merged file")
    chosen = parser.parse_args(arguments)
    check_output(chosen.output, chosen.shards)
    merge(chosen.shards, chosen.output)
    print(f"{chosen.output}: {counted(len(chosen.shards), 'shards')}")  # noqa: T201
    return 0
