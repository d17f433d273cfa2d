"""How a training goes, as the user sees it: the curves, how fast it is, how long it may take.

Plain Python: knows no Qt, no job and no file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from napari_samic.core.types import JobProgress, duration

OFTEN = 5
"""Batches between two points of the curve while the encoder is adapted."""
_WORDS = {
    "files": "preparing the references",
    "annotate": "masks of the references",
    "judge": "comparing with the prompter in use",
}


def finite(values: Mapping[int, float]) -> dict[int, float]:
    """Without what is no number: a curve may have such points."""
    return {n: v for n, v in values.items() if math.isfinite(v)}


@dataclass
class TrainingHistory:
    """Training loss and held-out score by epoch, or by batch while the encoder is adapted."""

    losses: dict[int, float] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    batches: bool = False

    def take(self, step: JobProgress) -> bool:
        """Take what a JobProgress of an epoch or a batch tells; whether it was one."""
        data = step.data
        if data.get("phase") == "adapt" and "loss" in data:
            self.batches = True
            is_point = step.done % OFTEN == 0
            self.losses |= {step.done: float(data["loss"])} if is_point else {}
            return is_point
        if data.get("phase") != "epoch":
            return False
        if self.batches:  # those of a network that was refused
            self.losses, self.batches = {}, False
        epoch = int(data["epoch"])
        self.losses[epoch] = float(data["loss"])
        if "held_out" in data:
            self.scores[epoch] = float(data["held_out"])
        return True

    @property
    def best(self) -> int | None:
        """Epoch of the lowest loss, whose weights are kept; none of batches, whose mean is."""
        known = finite(self.losses)
        return None if self.batches else min(known, key=known.__getitem__, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the notes of a project."""
        history = {"losses": self.losses, "scores": self.scores}
        plain: dict[str, Any] = {
            name: [[n, v] for n, v in finite(values).items()] for name, values in history.items()
        }
        return {**plain, "batches": self.batches}

    @classmethod
    def from_dict(cls, values: Any) -> TrainingHistory:
        """From notes; what is damaged is left out."""
        notes = values if isinstance(values, dict) else {}
        try:
            losses, scores = (
                {int(n): float(v) for n, v in notes.get(k, [])} for k in ("losses", "scores")
            )
        except (TypeError, ValueError, OverflowError):
            return cls()
        return cls(losses, scores, notes.get("batches") is True)


class EtaEstimator:
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
        Of the last JobProgress.
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

    def take(self, step: JobProgress) -> None:
        """Look at a JobProgress."""
        self.phase = str(step.data.get("phase", ""))
        if self.phase in ("batch", "epoch"):
            self._learning(step)
        else:
            self.share = step.done / step.total if step.total else None
            count = f" ({step.done} of {step.total})" if step.total > 1 else ""
            phrase = _WORDS.get(self.phase)
            self.text = step.message if phrase is None else phrase + count

    def _learning(self, step: JobProgress) -> None:
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
            self.text += f" · {_seconds(self._rate)} each · at most {duration(left)} left"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
