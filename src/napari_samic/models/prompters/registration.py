"""The most alike reference bent onto the image: what was marked there says where it is here.

For neighboring slices of a stack or a film, where the same thing is a little elsewhere. The
reference of the highest correlation is moved, then bent by optical flow; its objects, bent alike,
give a box and a middle each for the segmenter to answer. No features and no training.

Source: Xu et al., SAM-MPA: Applying SAM to Few-shot Medical Image Segmentation using Mask
Propagation and Auto-prompting, 2024, with the flow of Le Besnerais and Champagnat, 2005, in place
of a learned registration. Needs no network, and must not know one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_samic.core.types import (
    BoolArray,
    HeatMap,
    Image,
    IntArray,
    PromptProposal,
    Prompts,
    Reference,
    Segmenter,
)
from napari_samic.models.features.reference_masks import (
    FewShotCache,
    ReferenceMaskCache,
    classes_of,
)
from napari_samic.ops.shape import box_of
from napari_samic.ops.simulated_annotator import inner_maximum

Values = NDArray[np.float64]
SIDE_PX = 256
"""Images are compared at this longest side, or their own if that is less."""
RADIUS_PX = 7
"""Of the window that the flow takes for one motion, at that side."""
ROUNDS = 10
SOFT_FRAC = 0.01
"""Width of the map's edges, as a fraction of the longest side."""
FLAT = 1e-9
"""A picture of less variance has nothing to register."""


@dataclass(frozen=True, eq=False)
class RegisteredSlice:
    """A reference with the objects that it shows: (H, W) int32 numbers and their classes."""

    reference: Reference
    numbers: IntArray
    classes: tuple[int, ...]


class Registration:
    """See the module.

    Parameters
    ----------
    segmenter : Segmenter or None
        For references without masks.
    references : sequence of Reference
        Used when `propose` is called without any.
    """

    name = "registration"

    def __init__(self, segmenter: Segmenter | None, references: Sequence[Reference] = ()) -> None:
        self.masks = ReferenceMaskCache(segmenter)
        self.shots = FewShotCache(self._slices, references)

    def propose(self, references: Sequence[Reference], image: Image) -> PromptProposal:
        """One object for each of the nearest reference; as `core.types.Prompter.propose`.

        A box and a point inside for each still in the picture; the map is the bent mask with
        soft edges.
        """
        slices = self.shots.of(references)
        target = to_gray(image)
        small = [to_gray(s.reference.image, target.shape) for s in slices]
        chosen = int(np.argmax([round(correlation(a, target), 9) for a in small]))
        nearest = slices[chosen]
        numbers = warp_objects(nearest.numbers, register(small[chosen], target), image.shape)
        objects = []
        for k, label in enumerate(nearest.classes, start=1):
            mask = numbers == k
            if mask.any():
                point = inner_maximum(mask)[None]
                objects.append(Prompts(point, np.array([True]), box_of(mask), label))
        return PromptProposal(tuple(objects), _softened(numbers > 0))

    def _slices(self, references: tuple[Reference, ...]) -> list[RegisteredSlice]:
        masks = [self.masks.of(r) for r in references]
        classes_of(masks)
        pairs = zip(references, masks, strict=True)
        return [RegisteredSlice(r, s.numbers, s.classes) for r, s in pairs if s.classes]


def _softened(mask: BoolArray) -> HeatMap:
    width_px = SOFT_FRAC * max(mask.shape)
    return HeatMap(np.clip(ndimage.gaussian_filter(mask.astype(np.float32), width_px), 0, 1))


def to_gray(image: Image, shape: tuple[int, ...] | None = None) -> Values:
    """Small gray picture in [0, 1]; `shape` stretches it to that of another."""
    from skimage.transform import resize  # slow to import

    if shape is None:
        scale = min(1.0, SIDE_PX / max(image.shape[:2]))
        shape = tuple(max(1, round(n * scale)) for n in image.shape[:2])
    values = image.mean(-1) / 255
    return np.asarray(resize(values, shape, order=1, anti_aliasing=True), np.float64)


def correlation(a: Values, b: Values) -> float:
    """Pearson's, of two pictures of one shape; 0 where one of them is flat."""
    first, second = a - a.mean(), b - b.mean()
    length = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / length) if length > FLAT else 0.0


def register(reference: Values, target: Values) -> Values:
    """Where each pixel of the target was in the reference.

    Parameters
    ----------
    reference, target : (h, w) float

    Returns
    -------
    (2, h, w) float64
        Rows and columns to add to a pixel of the target: a shift, then a flow on top of it. Each
        is left out where it makes the pictures less alike.
    """
    from skimage.registration import optical_flow_ilk, phase_cross_correlation

    places = np.indices(target.shape, float)
    field = np.zeros((2, *target.shape))
    if correlation(reference, reference) == 0 or correlation(target, target) == 0:
        return field
    shift = phase_cross_correlation(reference, target, upsample_factor=4)[0]
    moved = field + np.asarray(shift)[:, None, None]
    start = _better(reference, target, places, field, moved)
    shifted = ndimage.map_coordinates(reference, places + start, order=1, mode="nearest")
    flow = optical_flow_ilk(target, shifted, radius=RADIUS_PX, num_warp=ROUNDS, gaussian=True)
    at = places + flow  # a flow of the moved picture: its own start is looked up where it ends
    bent = flow + [ndimage.map_coordinates(s, at, order=1, mode="nearest") for s in start]
    return _better(reference, target, places, start, bent)


def _better(reference: Values, target: Values, places: Values, old: Values, new: Values) -> Values:
    scores = [
        correlation(ndimage.map_coordinates(reference, places + f, order=1, mode="nearest"), target)
        for f in (old, new)
    ]
    return new if scores[1] > scores[0] else old


def warp_objects(numbers: IntArray, field: Values, shape: Sequence[int]) -> IntArray:
    """Objects of a reference where the field says, (H, W) int32 of the target's size.

    Parameters
    ----------
    numbers : (H', W') int32
    field : (2, h, w) float
        As `register`.
    shape : (H, W, ...)
    """
    small = np.array(field.shape[1:], float)
    size = (shape[0], shape[1])
    steps = (small - 1)[:, None, None]
    at = (np.indices(size) + 0.5) * (small / size)[:, None, None] - 0.5  # pixels of the field
    at = np.clip(at, 0, steps)
    in_reference = at + [ndimage.map_coordinates(f, at, order=1, mode="nearest") for f in field]
    scale = (np.array(numbers.shape) / small)[:, None, None]
    source = (in_reference + 0.5) * scale - 0.5
    labels = ndimage.map_coordinates(numbers, source, order=0, mode="constant", cval=0)
    return np.asarray(labels, np.int32)
