"""How a training goes, as the user sees it: the curves, how fast it is, how long it may take.

Plain Python: knows no Qt, no job and no file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from napari_samic.contracts import Step

_WORDS = {
    "adapt": "growing the encoder to the references",
    "files": "preparing the references",
    "annotate": "masks of the references",
    "judge": "comparing with the prompter in use",
}


@dataclass
class Curves:
    """Training loss and held-out score by epoch, from 1."""

    losses: dict[int, float] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)

    def take(self, data: dict[str, Any]) -> bool:
        """Take what a Step of an epoch tells; whether it was one."""
        if data.get("phase") != "epoch":
            return False
        epoch = int(data["epoch"])
        self.losses[epoch] = float(data["loss"])
        if "held_out" in data:
            self.scores[epoch] = float(data["held_out"])
        return True

    @property
    def best(self) -> int | None:
        """Epoch of the lowest loss: its weights are those that are kept."""
        return min(self.losses, key=self.losses.__getitem__, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the notes of a project."""
        return {
            name: [[n, v] for n, v in values.items() if math.isfinite(v)]
            for name, values in vars(self).items()
        }

    @classmethod
    def from_dict(cls, values: Any) -> Curves:
        """From notes; what is damaged is left out."""
        known = values if isinstance(values, dict) else {}
        try:
            found = {k: {int(n): float(v) for n, v in known.get(k, [])} for k in vars(cls())}
        except (TypeError, ValueError):
            return cls()
        return cls(**found)


class Pace:
    """Where a training is, and how long it may still take.

    Parameters
    ----------
    epochs : int
        At most.
    clock : callable
        Seconds.

    Attributes
    ----------
    phase : str
        Of the last Step.
    share : float or None
        Done, of all that may be done; None if that is not known.
    text : str
        One line for the user.
    """

    def __init__(self, epochs: int, clock: Callable[[], float]) -> None:
        self.epochs, self._clock = epochs, clock
        self.phase, self.share, self.text = "", None, "starting"
        self._begun: tuple[float, float] | None = None
        self._rate: float | None = None

    share: float | None

    def take(self, step: Step) -> None:
        """Look at a Step."""
        self.phase = str(step.data.get("phase", ""))
        if self.phase in ("batch", "epoch"):
            self._learning(step)
        else:
            self.share = step.done / step.total if step.total else None
            count = f" ({step.done} of {step.total})" if step.total > 1 else ""
            self.text = _WORDS.get(self.phase, step.message) + count

    def _learning(self, step: Step) -> None:
        done, now = step.done / 1000, self._clock()
        self.share = step.done / step.total if step.total else None
        if self._begun is None:
            self._begun = (done, now)
        start, then = self._begun
        if done > start:
            self._rate = (now - then) / (done - start)
        self.text = f"epoch {step.data['epoch']} of {self.epochs}"
        if self._rate is not None:
            left = self._rate * (self.epochs - done)
            self.text += f" · {_seconds(self._rate)} each · at most {_duration(left)} left"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def _duration(seconds: float) -> str:
    """A length of time that nobody would call too exact.

    >>> _duration(42), _duration(200), _duration(9000)
    ('42 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
