"""What a training did, in numbers and in a line for people. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FitReport:
    """What a training did.

    Attributes
    ----------
    losses : tuple of float
        Mean training loss of each epoch.
    before, after : float or None
        Correlation of predicted and true heat map on the references kept aside, at most 1.
    accepted : bool
        False: training made it worse and the old weights were kept.
    held_out : tuple of str
    pairs : int
        Target views an epoch.
    seconds : float
    stopped : str
        Why it ended.
    """

    losses: tuple[float, ...]
    before: float | None
    after: float | None
    accepted: bool
    held_out: tuple[str, ...]
    pairs: int
    seconds: float
    stopped: str

    @property
    def summary(self) -> str:
        """One line for people."""
        if not self.losses:
            return f"not trained: first weights, {self.pairs} reference(s)"
        line = f"{len(self.losses)} epochs in {self.seconds:.0f} s ({self.stopped})"
        if self.before is None or self.after is None:
            return f"{line}; fewer than 4 references, so none was kept aside to judge it"
        line += f"; held-out map correlation {self.before:.3f} before, {self.after:.3f} after"
        return line if self.accepted else f"{line}: worse, so the old weights were kept"
