"""Extraction by several processes on one machine, in shards beside the output."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from mmib.base.workers import worker_pool
from mmib.extract.shards import Shard, merge, part_file, settings_file
from mmib.schema import RunError

Extract = Callable[[list[str], Shard, Path], None]


def by_workers(extract: Extract, arguments: list[str], workers: int, output: Path) -> None:
    """Extract into a file with several processes, each with an equal share of the cores.

    There is one shard for each process. The shards are beside the output until all are complete; running the same
    command again resumes each. An output that was begun keeps its shards, whatever the number of processes then.

    Args:
        extract: a module-level function of the arguments, a shard and the file to write it to.
        arguments: the arguments of the command.
        workers: number of processes.
        output: the output file.

    Raises:
        MMIBError: a process failed with this error.
        RunError: a process was killed, or the output was begun in one piece.
    """
    output = Path(os.path.realpath(output))
    whole = part_file(output)
    if whole.is_file() and whole.stat().st_size:
        raise RunError(f"{whole} was begun without --workers: continue without, or remove this file to begin again")
    number = shards_begun(output) or workers
    if number < workers:
        print(f"{output} was begun by {number} processes: no more than these can continue it", file=sys.stderr)  # noqa: T201
    shards = [Shard(place, number) for place in range(1, number + 1)]
    outputs = [output.with_name(f".{output.name}.{shard.number}-of-{shard.of}") for shard in shards]
    processes = min(workers, number)
    try:
        with worker_pool(processes, partial(_share_cores, processes)) as pool:
            futures = [pool.submit(extract, arguments, shard, to) for shard, to in zip(shards, outputs, strict=True)]
            for future in as_completed(futures):
                future.result()
    except BrokenProcessPool as error:
        raise RunError(
            "a process of the extraction was killed, perhaps for lack of memory: run the same command again, which "
            "resumes, or with fewer --workers"
        ) from error
    merge(outputs, output)
    for path in (*_files_of_shards(output), whole, settings_file(output)):
        path.unlink(missing_ok=True)


def shards_begun(output: Path) -> int:
    """Return the number of shards in which an output was begun, finished or not; 0 if it was not."""
    numbers = Counter(_files_of_shards(Path(os.path.realpath(output))).values())
    return max(numbers, key=numbers.__getitem__, default=0)


def _files_of_shards(output: Path) -> dict[Path, int]:
    """Return the files of the shards of an output, and of how many shards each is one."""
    name = re.compile(rf"\.{{1,3}}{re.escape(output.name)}\.[0-9]{{1,9}}-of-([0-9]{{1,9}})(\..*)?")
    found = ((path, name.fullmatch(path.name)) for path in output.parent.glob(".*"))
    return {path: int(match[1]) for path, match in found if match}


def _share_cores(processes: int) -> None:
    """Give this process its share of the cores."""
    import torch  # noqa: PLC0415 - help needs no torch

    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
