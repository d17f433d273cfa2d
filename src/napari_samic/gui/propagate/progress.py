"""How fast a run over images goes, and how long it will take. Plain Python: knows no Qt."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 20
"""Images that the rate is taken from: a slow first one is forgotten."""


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes
    ----------
    done, total : int
        Images, with those that were done before and those that failed.
    skipped, failed : int
        Of `done`.
    rate : float or None
        Images a second; None until two are done.
    """

    done: int = 0
    total: int = 0
    skipped: int = 0
    failed: int = 0
    rate: float | None = None

    @property
    def left_s(self) -> float | None:
        """Seconds to go."""
        return (self.total - self.done) / self.rate if self.rate else None

    @property
    def text(self) -> str:
        """For the user.

        >>> Progress(120, 500, rate=2.5).text
        '120 of 500 images, 2.5 images/s, 2 min 32 s left'
        """
        parts = [f"{self.done} of {self.total} images"]
        if self.rate and self.done < self.total:
            slow = self.rate < 0.95
            parts.append(f"{1 / self.rate:.1f} s an image" if slow else f"{self.rate:.1f} images/s")
            parts.append(f"{span(self.left_s or 0.0)} left")
        if self.failed:
            parts.append(f"{self.failed} failed")
        return ", ".join(parts)


class ThroughputMeter:
    """Counts images; `progress` says where the run is."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ticks: deque[float] = deque(maxlen=WINDOW + 1)
        self.progress = Progress()

    def count(self, done: int, total: int, *, skipped: int = 0, failed: int = 0) -> None:
        """Another image was done, unless it was `skipped`: done before, so it says no speed."""
        before = self.progress
        if not skipped:
            self._ticks.append(self._clock())
        span_s = self._ticks[-1] - self._ticks[0] if len(self._ticks) > 1 else 0.0
        rate = (len(self._ticks) - 1) / span_s if span_s > 0 else before.rate
        self.progress = Progress(
            done, total, before.skipped + skipped, before.failed + failed, rate
        )


def span(seconds: float) -> str:
    """A time in words.

    >>> span(8.4), span(75), span(7400)
    ('8 s', '1 min 15 s', '2 h 3 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
