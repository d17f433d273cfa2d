"""Which areas and shapes are plausible, learned from the references' masks.

Robust quantiles with margins, so that one odd reference does not say what is usual. Below
`FEWEST` objects nothing is known, and all is allowed. Must not know a segmenter or a file.

Source: ours; solidity as in `ops/shape.py`, elongation from second moments (Hu, 1962).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from napari_samic.core.types import BoolArray
from napari_samic.ops.shape import solidity
from napari_samic.ops.simulated_annotator import objects_of

FEWEST = 3
"""Objects that are needed to say what is usual."""
_QUANTILES = 0.05, 0.95
_TIMES = 2.0
_LOOSE = 0.15


@dataclass(frozen=True)
class ShapePrior:
    """A shape prior: bounds of single objects; as made without arguments they allow everything.

    Attributes
    ----------
    area_frac : (float, float)
        Share of the image, least and most.
    elongation : float
        Longest over shortest axis, most.
    solidity : float
        Area over that of the convex hull, least.
    """

    area_frac: tuple[float, float] = (0.0, 1.0)
    elongation: float = np.inf
    solidity: float = 0.0

    @classmethod
    def of(cls, masks: Iterable[ArrayLike]) -> ShapePrior:
        """Learn limits from the references.

        Parameters
        ----------
        masks : iterable of (H, W) int
            Instance ids, or one value, of each reference; None is left out.

        Returns
        -------
        ShapePrior
            Half of the 5 % quantile of areas to twice the 95 % quantile; twice that of elongation;
            0.15 below the 5 % quantile of solidity. Everything for fewer than `FEWEST` objects.
        """
        objects = [mask for truth in masks if truth is not None for mask in objects_of(truth)]
        if len(objects) < FEWEST:
            return cls()
        areas = np.quantile([mask.mean() for mask in objects], _QUANTILES)
        longest = np.quantile([elongation(mask) for mask in objects], _QUANTILES[1])
        solid = np.quantile([solidity(mask) for mask in objects], _QUANTILES[0])
        return cls(
            (float(areas[0]) / _TIMES, min(1.0, float(areas[1]) * _TIMES)),
            float(longest) * _TIMES,
            max(0.0, float(solid) - _LOOSE),
        )

    def faults(self, mask: BoolArray) -> tuple[str, ...]:
        """What is not plausible about a mask, (H, W) bool; in words, none if all is."""
        area = float(mask.mean())
        if not area:
            return ("empty",)
        least, most = self.area_frac
        faults = []
        if not least <= area <= most:
            faults.append(f"{100 * area:.2g} % of the image, expected {100 * least:.2g} to "
                        f"{100 * most:.2g}")  # fmt: skip
        if np.isfinite(self.elongation) and (long := elongation(mask)) > self.elongation:
            faults.append(f"elongation {long:.1f}, expected at most {self.elongation:.1f}")
        if self.solidity and (solid := solidity(mask)) < self.solidity:
            faults.append(f"solidity {solid:.2f}, expected at least {self.solidity:.2f}")
        return tuple(faults)

    def allow(self, mask: BoolArray) -> bool:
        """Whether a mask, (H, W) bool, is plausible."""
        return not self.faults(mask)


def elongation(mask: BoolArray) -> float:
    """Longest over shortest axis of the ellipse of the same second moments, (H, W) bool; from 1.

    Examples
    --------
    >>> elongation(np.ones((4, 4), bool)), elongation(np.ones((1, 8), bool))
    (1.0, 8.0)
    """
    pixels = np.argwhere(mask).astype(np.float64)
    if not len(pixels):
        return 1.0
    away = pixels - pixels.mean(axis=0)
    spread = np.linalg.eigvalsh(away.T @ away / len(away) + np.eye(2) / 12)  # of a pixel's square
    return float(np.round(np.sqrt(spread[1] / spread[0]), 9))
