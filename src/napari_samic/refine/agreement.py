"""How far a mask agrees with the map that it was asked from.

Soft IoU: the sum of the smaller of mask and map over the sum of the larger, in the object's
neighbourhood, where the map of other objects counts as nothing. A map of clicks has blobs that are
smaller than large objects; then a mask that is too small agrees best.

Source: the soft Jaccard of Rahman and Wang, 2016; the neighbourhood is ours. Must not know a
segmenter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from napari_samic.contracts import BoolArray, FloatArray, IntArray
from napari_samic.shapes import Window, around, bounds


@dataclass(frozen=True, eq=False)
class Salience:
    """A map, and whose each pixel of it is.

    Attributes
    ----------
    values : (H, W) float32
        In [0, 1].
    owners : (H, W) int32
        0: nobody's in particular, i + 1: object i's.
    """

    values: FloatArray
    owners: IntArray

    @cached_property
    def _windows(self) -> list[Window | None]:
        return list(ndimage.find_objects(self.owners))

    @classmethod
    def of(cls, values: FloatArray, regions: Sequence[BoolArray]) -> Salience:
        """Of a map and the region of each object, (H, W) bool; of common pixels the first's."""
        owners = np.zeros(values.shape, np.int32)
        for i in reversed(range(len(regions))):
            owners[regions[i]] = i + 1
        return cls(values, owners)

    def around(self, place: int, *masks: BoolArray) -> tuple[Window, FloatArray]:
        """Smallest window that holds an object's region and some masks, and its map there.

        Parameters
        ----------
        place : int
            Of the object, from 0.
        masks : (H, W) bool

        Returns
        -------
        window : (slice, slice)
            The whole image if all are empty.
        own : (h, w) float32
            The map in the window, 0 where it is another object's.
        """
        mine = self._windows[place] if place < len(self._windows) else None
        window = around([mine, *(bounds(mask) for mask in masks)], self.owners.shape)
        owners = self.owners[window]
        own = np.where((owners == 0) | (owners == place + 1), self.values[window], 0)
        return window, own.astype(np.float32)

    def agreement(self, place: int, mask: BoolArray) -> float:
        """Soft IoU of a mask and the map of the object at `place`.

        Parameters
        ----------
        place : int
        mask : (H, W) bool

        Returns
        -------
        float
            In [0, 1]; 0 if there is neither mask nor map.

        Examples
        --------
        >>> half = np.array([[1, 1, 0, 0]], np.float32)
        >>> one = Salience.of(half, [half > 0])
        >>> one.agreement(0, half > 0), one.agreement(0, np.ones((1, 4), bool))
        (1.0, 0.5)
        """
        window, own = self.around(place, mask)
        inside = mask[window]
        common = float(own[inside].sum(dtype=np.float64))
        either = np.count_nonzero(inside) + float(own[~inside].sum(dtype=np.float64))
        return float(common / either) if either > 0 else 0.0
