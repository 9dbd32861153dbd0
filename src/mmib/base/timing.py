"""Time of a command by phase; phases do not overlap."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SET_UP = "set-up"


class PhaseClock:
    """Counts seconds of wall time for the phase that was entered last, and for `set-up` outside of all others."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Clear all counts, and enter `set-up`."""
        self._seconds: dict[str, float] = {}
        self._phases = [SET_UP]
        self._since = time.perf_counter()

    def enter(self, name: str) -> None:
        """Enter a phase; the current one is paused until `leave`."""
        self._count()
        self._phases.append(name)

    def leave(self) -> None:
        """Leave the phase that was entered last."""
        self._count()
        self._phases.pop()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Return a context that is counted as a phase."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def seconds(self) -> dict[str, float]:
        """Return {phase: seconds so far}, in the order of first use."""
        self._count()
        return dict(self._seconds)

    def _count(self) -> None:
        now = time.perf_counter()
        name = self._phases[-1]
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now


# Clock of the command that this process runs.
clock = PhaseClock()


def duration(seconds: float) -> str:
    """Format seconds, as in `45 s` or `2 min 40 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
