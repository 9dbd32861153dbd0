"""Extraction by several processes on one machine, one shard each."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from mmib.base.workers import worker_pool
from mmib.extract.shards import Shard, merge, note_file
from mmib.schema import RunError

Extract = Callable[[list[str], Shard, Path], None]


def by_workers(extract: Extract, arguments: list[str], workers: int, output: Path) -> None:
    """Extract into a file with several processes, each with an equal share of the cores.

    The shards are beside the output until all are complete; running the same command again resumes each.

    Args:
        extract: a module-level function of the arguments, a shard and the file to write it to.
        arguments: the arguments of the command.
        workers: number of processes.
        output: the output file.

    Raises:
        MMIBError: a process failed with this error.
        RunError: a process was killed.
    """
    shards = [Shard(number, workers) for number in range(1, workers + 1)]
    parts = [output.with_name(f".{output.name}.{shard.number}-of-{shard.of}") for shard in shards]
    try:
        with worker_pool(workers, partial(_share_cores, workers)) as pool:
            futures = [pool.submit(extract, arguments, shard, part) for shard, part in zip(shards, parts, strict=True)]
            for future in as_completed(futures):
                future.result()
    except BrokenProcessPool as error:
        raise RunError(
            "a process of the extraction was killed, perhaps for lack of memory: run the same command again, which "
            "resumes, or with fewer --workers"
        ) from error
    merge(parts, output)
    for part in parts:
        note_file(part).unlink()
        part.unlink()


def _share_cores(workers: int) -> None:
    """Give this process its share of the cores."""
    import torch  # noqa: PLC0415 - help needs no torch

    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
