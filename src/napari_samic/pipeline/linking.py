"""Objects of a volume or a time series, numbered alike through its planes.

Beside any `Work` of `BatchRunner`: planes are segmented as ever, and numbered anew after that.
Memory stays at two planes. Knows no file and no model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from napari_samic.core.types import Image, ImagePlane, IntArray, Job, LazyImage
from napari_samic.models.video import optical_flow
from napari_samic.pipeline.runner import PlaneResult, Work

Place = tuple[Any, ...]
_FOLDER: Place = ("folder",)


def sequence_place(plane: ImagePlane, which: str) -> Place | None:
    """The sequence that a plane belongs to, and its place there; None: it stands alone.

    Axes of a stack but the last are sequences of their own.

    Parameters
    ----------
    plane : ImagePlane
    which : str
        Images that belong together: never, those of stacks, or always, files too.
    """
    if which == "never" or (which == "stacks" and not plane.stack_shape):
        return None
    if not plane.stack_shape:
        return _FOLDER
    return (plane.path, plane.name, plane.stack_shape, plane.index[:-1], plane.index[-1])


def comes_after(place: Place, previous: Place | None) -> bool:
    """Whether a place follows the one before; what follows nothing may."""
    if previous is None or previous == place == _FOLDER:
        return True
    return previous[:-1] == place[:-1] and bool(previous[-1] < place[-1])


class ObjectLinker:
    """A `Work` whose objects keep their numbers from plane to plane.

    An object is the one that it overlaps most in the plane before, left where it was or carried
    along the optical flow, and a small one may be inside a large one, as at the ends of a body; one
    that is missing in a single plane is taken up again.

    Parameters
    ----------
    work : Work
    which : str
        As of `sequence_place`.
    """

    def __init__(self, work: Work, which: str) -> None:
        self._work, self._which = work, which
        self._place: Place | None = None
        self._forget()

    def _forget(self) -> None:
        self._image: Image | None = None
        self._labels = self._expected = np.zeros((0, 0), np.int32)
        self._first_new = 1

    def __call__(self, plane: ImagePlane, image: Image | LazyImage) -> Job[PlaneResult]:
        """Result of a plane, with `numbers` that last."""
        answer = self._work(plane, image)
        result = answer if isinstance(answer, PlaneResult) else (yield from answer)
        place = sequence_place(plane, self._which)
        if place is None or not comes_after(place, self._place):
            self._forget()
        self._place = place
        if place is None or not result.numbered:
            return result
        if self._image is not None and self._image.shape != image.shape:
            self._forget()
        labels, count = result.result.labels, len(result.result.objects)
        return replace(result, numbers=self._numbers(np.asarray(image), labels, count))

    def _numbers(self, image: Image, labels: IntArray, count: int) -> tuple[int, ...]:
        places = [np.zeros_like(labels)]
        if self._image is not None and self._expected.any():
            field = optical_flow.flow(self._image, image)
            places = [self._expected, optical_flow.warp_labels(self._expected, field)]
        linked, self._first_new = optical_flow.link_objects(
            places, labels, first_new=self._first_new, may_grow=True
        )
        values, at = np.unique(labels, return_index=True)
        number = dict(zip(values.tolist(), linked.ravel()[at].tolist(), strict=True))
        hidden = [k for k in range(1, count + 1) if k not in number]
        number |= {k: self._first_new + i for i, k in enumerate(hidden)}
        self._first_new += len(hidden)
        missing = np.setdiff1d(self._labels, linked)
        if missing.size and self._labels.shape == linked.shape:
            again = (linked == 0) & np.isin(self._labels, missing)
            self._expected = np.where(again, self._labels, linked)
        else:
            self._expected = linked
        self._labels, self._image = linked, image
        return tuple(number[k] for k in range(1, count + 1))
