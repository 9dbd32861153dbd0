"""Pools of worker processes that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait


@contextmanager
def worker_pool(processes: int, initializer: Callable[[], None] | None = None) -> Iterator[ProcessPoolExecutor]:
    """Start worker processes, which never outlive this process, even if it is killed.

    If an exception leaves the block, tasks that are running are ended; `ProcessPoolExecutor` alone would wait for them.

    Args:
        processes: number of processes.
        initializer: called once in each process.

    Raises:
        SystemExit: see `end_if_importing_main`.
    """
    end_if_importing_main()
    # Spawned, not forked: a fork copies locks of threads, and those of PyTorch and onnxruntime do not survive it.
    context = multiprocessing.get_context("spawn")
    parent, here = context.Pipe(duplex=False)
    with parent, here, ProcessPoolExecutor(processes, context, _begin, (parent, initializer)) as pool:
        try:
            yield pool
        except BaseException:
            here.close()
            raise


def end_if_importing_main() -> None:
    """End this process if it is a worker process that is importing the script of the process that started it.

    The script would otherwise do all of its work once more in each of its worker processes.
    """
    # `multiprocessing` itself recognises this by the same attribute, and has no public one.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(
            "mmib: a worker process ran the script that started it once more, and stopped here: put the calls of the "
            'script below `if __name__ == "__main__":`'
        )


def _begin(parent: Connection, initializer: Callable[[], None] | None) -> None:
    # Ctrl-C reaches every process of a terminal; it is the parent that ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if initializer is not None:
        initializer()


def _end_with(parent: Connection) -> None:
    """End this process as soon as no process has the other end of the pipe open."""
    wait([parent])
    os._exit(1)
