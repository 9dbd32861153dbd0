"""Where the time of a command goes: seconds by phase, each of them counted in one phase alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SET_UP = "set-up"


class PhaseClock:
    """Counts seconds of wall time in the phase that was entered last; `set-up` is what no other phase claims."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what was counted, and be in no phase but `set-up`."""
        self._seconds: dict[str, float] = {}
        self._phases = [SET_UP]
        self._since = time.perf_counter()

    def enter(self, name: str) -> None:
        """Begin a phase inside the present one, which stands still until `leave`."""
        self._count()
        self._phases.append(name)

    def leave(self) -> None:
        """End the phase that was entered last."""
        self._count()
        self._phases.pop()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens within in a phase."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def seconds(self) -> dict[str, float]:
        """{phase: seconds so far}, in the order in which they began."""
        self._count()
        return dict(self._seconds)

    def _count(self) -> None:
        now = time.perf_counter()
        name = self._phases[-1]
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now


# Of the command that this process runs.
clock = PhaseClock()


def duration(seconds: float) -> str:
    """As `45 s` or `2 min 40 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
