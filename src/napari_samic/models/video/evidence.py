"""What speaks for a class at each pixel of a frame: its colors, and the prompter's map.

Knows no frame before; that is `optical_flow`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from napari_samic.core.types import FloatArray, Image, Reference
from napari_samic.models.video import color_model
from napari_samic.models.video.memory import class_table, numbered
from napari_samic.models.video.optical_flow import resized

MAP_ODDS = 1.0
"""Log odds that the map gives at its peak, and takes where it is 0."""
COLOR_ODDS = 1.0
"""How much the odds of a pixel's color count."""


class ClassLikelihood:
    """Keeps the colors of the references that were asked for last."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Reference, dict[int, FloatArray]]] = {}

    def odds(
        self,
        image: Image,
        maps: Mapping[int, FloatArray],
        references: Sequence[Reference],
        weights: Sequence[float],
    ) -> dict[int, FloatArray]:
        """Log odds of each class.

        Parameters
        ----------
        image : (H, W, 3) uint8
        maps : dict of int to (h, w) float32
            Of each class, as `SamicPrompter.maps` answers.
        references : sequence of Reference
            Those without a mask tell no colors.
        weights : sequence of float
            One for each.

        Returns
        -------
        dict of int to (H, W) float32
            Positive where more speaks for the class than against it.
        """
        self._seen = {id(r): self._color_counts(r) for r in references}
        out = {}
        for label, values in maps.items():
            share = resized(values / max(float(values.max()), 1e-6), image.shape[:2])
            out[label] = MAP_ODDS * (2 * share - 1)
            counts = [
                weight * self._seen[id(reference)][1][label]
                for reference, weight in zip(references, weights, strict=True)
                if label in self._seen[id(reference)][1]
            ]
            if counts:
                out[label] += COLOR_ODDS * color_model.color_log_odds(image, np.sum(counts, axis=0))
        return out

    def _color_counts(self, reference: Reference) -> tuple[Reference, dict[int, FloatArray]]:
        """Colors of each class of a reference; holding it keeps its id its own."""
        if id(reference) in self._seen:
            return self._seen[id(reference)]
        if reference.mask is None:
            return reference, {}
        labels, classes = numbered(reference, reference.mask, instances=True)
        kinds = class_table(classes, labels)[labels]  # (H, W)
        return reference, {
            kind: color_model.counts(reference.image, kinds == kind)
            for kind in set(classes.values())
        }
