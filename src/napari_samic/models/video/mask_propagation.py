"""Masks that were carried to a new frame, made to fit it with the segmenter's help.

What speaks for a pixel is added up as log odds: how deep it lies in the carried mask, its color,
and the mask that the segmenter draws when it is shown all that. Knows the segmenter as a protocol;
its low-resolution logits show the image in the upper left of a square, as SAM's do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_samic.core.types import (
    BoolArray,
    Candidates,
    FloatArray,
    Image,
    IntArray,
    Prompts,
    Segmenter,
)
from napari_samic.evaluation.metrics import iou
from napari_samic.models.video.optical_flow import padded_window
from napari_samic.ops.shape import window_of
from napari_samic.ops.simulated_annotator import inner_maximum

REACH_FRAC = 0.027
"""Depth in a carried mask, of the longer side, from which on it is as sure as it gets."""
DEPTH = 6.0
"""Log odds there."""
DRAWN = 4.0
"""Log odds that a mask of the segmenter can give, at most."""
LEAST_FIT = 0.5
"""A mask of the segmenter that overlaps less with what was expected (IoU) is not listened to."""
VANISHED = -1.5
"""Mean log odds of colors and map below which an object is taken to be gone."""
AT_ONCE = 8
"""Objects that the segmenter is asked for at once; their masks take memory."""


@dataclass(frozen=True, eq=False)
class MaskPrior:
    """Where an object probably is: (h, w) log odds in a window of the image."""

    number: int
    label: int
    window: tuple[slice, slice]
    odds: FloatArray


@dataclass(frozen=True, eq=False)
class MaskFit:
    """A prior after the segmenter was asked, and how sure that is, in [0, 1]."""

    prior: MaskPrior
    odds: FloatArray
    score: float


def mask_priors(
    labels: IntArray, classes: Mapping[int, int], evidence: Mapping[int, FloatArray]
) -> Iterator[MaskPrior]:
    """What is expected of each carried object.

    Parameters
    ----------
    labels : (H, W) int32
        Carried to this frame.
    classes : dict of int to int
        Class of each number.
    evidence : dict of int to (H, W) float32
        Further log odds of each class; those that lack are 0.
    """
    reach_px = max(2.0, REACH_FRAC * max(labels.shape))
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        window = padded_window(box, int(np.ceil(reach_px)) + 2, labels.shape)
        odds = depth_odds(labels[window] == number, reach_px)
        more = evidence.get(classes.get(number, 1))
        if more is not None and ((odds + more[window]) > 0).any():
            odds = odds + more[window]
        yield MaskPrior(number, classes.get(number, 1), window, odds)


def depth_odds(mask: BoolArray, reach_px: float) -> FloatArray:
    """Signed distance to the outline of a mask, from -6 outside to 6 inside."""
    wide = np.pad(mask, 1)
    depth = ndimage.distance_transform_edt(wide) - ndimage.distance_transform_edt(~wide)
    return np.asarray(DEPTH * np.clip(depth[1:-1, 1:-1] / reach_px, -1, 1), np.float32)


def fit_priors(segmenter: Segmenter, image: Image, expected: Sequence[MaskPrior]) -> list[MaskFit]:
    """Ask the segmenter for each object: box and mask, with and without the center.

    Parameters
    ----------
    segmenter : Segmenter
    image : (H, W, 3) uint8
    expected : sequence of MaskPrior

    Returns
    -------
    list of MaskFit
        In the order of `expected`.
    """
    if not expected:
        return []
    shape = (image.shape[0], image.shape[1])
    first = segmenter.candidates(image, prompts_for(expected[0], shape)[:1])[0]
    side = first.logits.shape[-1]  # of the masks that it takes; not part of the protocol
    out: list[MaskFit] = []
    for start in range(0, len(expected), AT_ONCE):
        some = expected[start : start + AT_ONCE]
        objects = [p for prior in some for p in prompts_for(prior, shape)]
        logits = [low for prior in some for low in [_downsample_prior(prior, shape, side)] * 2]
        answers = segmenter.candidates(image, objects, logits=logits)
        out += [_fit(prior, answers[2 * i : 2 * i + 2], shape) for i, prior in enumerate(some)]
    return out


def prompts_for(prior: MaskPrior, shape: tuple[int, int]) -> tuple[Prompts, Prompts]:
    """The box of what is expected, a little wider; and the same with a click in the middle."""
    inside = prior.odds > 0
    corner = np.array([s.start for s in prior.window], np.float64)
    rows, columns = window_of(inside)
    tight = np.array([[rows.start, columns.start], [rows.stop - 1, columns.stop - 1]]) + corner
    wide = tight + np.array([[-2.5], [2.5]])
    box = np.clip(wide, -0.5, np.array(shape) - 0.5).reshape(4)
    click = (inner_maximum(inside) + corner)[None]
    none = np.zeros((0, 2)), np.zeros(0, bool)
    return (
        Prompts(*none, box, prior.label),
        Prompts(click, np.array([True]), box, prior.label),
    )


def _downsample_prior(prior: MaskPrior, shape: tuple[int, int], side: int) -> FloatArray:
    """The expected mask as the segmenter takes one: (side, side) log odds."""
    reach_px = 8.0 * max(shape) / 448
    depth = depth_odds(prior.odds > 0, reach_px) * (16.0 / DEPTH)
    at = (np.arange(side) + 0.5) * max(shape) / side - 0.5
    grid = np.meshgrid(*(at - s.start for s in prior.window), indexing="ij")
    low = ndimage.map_coordinates(
        depth, grid, output=np.float32, order=1, mode="constant", cval=-16.0
    )
    return np.asarray(low, np.float32)


def _upsample_logits(
    logits: FloatArray, window: tuple[slice, slice], shape: tuple[int, int]
) -> FloatArray:
    """The window's part of (side, side) logits, at the size of the image."""
    scale = logits.shape[-1] / max(shape)
    at = [(np.arange(s.start, s.stop) + 0.5) * scale - 0.5 for s in window]
    grid = np.meshgrid(*at, indexing="ij")
    part = ndimage.map_coordinates(logits, grid, output=np.float32, order=1, mode="nearest")
    return np.asarray(part, np.float32)


def _fit(prior: MaskPrior, answers: Sequence[Candidates], shape: tuple[int, int]) -> MaskFit:
    """Of all masks the one with the highest score times overlap, added to what was expected."""
    whole = np.zeros(shape, bool)
    whole[prior.window] = prior.odds > 0
    overlaps = [[iou(mask, whole) for mask in a.masks] for a in answers]
    values = np.stack(
        [a.scores * np.asarray(o) for a, o in zip(answers, overlaps, strict=True)]
    )  # (2, M)
    which, mask = (int(k) for k in np.unravel_index(int(values.argmax()), values.shape))
    score = float(np.clip(values[which, mask], 0, 1))
    if overlaps[which][mask] < LEAST_FIT:
        return MaskFit(prior, prior.odds, score)
    drawn = _upsample_logits(answers[which].logits[mask], prior.window, shape)
    return MaskFit(prior, prior.odds + np.clip(drawn, -DRAWN, DRAWN), score)


def resolve_overlaps(fits: Sequence[MaskFit], shape: tuple[int, int]) -> IntArray:
    """Each pixel to the object that most speaks for, if anything does: (H, W) int32 numbers."""
    labels, most = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for fit in fits:
        mine = fit.odds > most[fit.prior.window]
        labels[fit.prior.window][mine] = fit.prior.number
        most[fit.prior.window][mine] = fit.odds[mine]
    return labels


def without_vanished(
    labels: IntArray, classes: Mapping[int, int], evidence: Mapping[int, FloatArray]
) -> IntArray:
    """Objects whose place no longer looks like them are gone: left out of (H, W) int32 labels.

    A carried mask holds itself up, as its own depth speaks for it; what was covered or has left
    the picture would stay for ever.
    """
    out = labels.copy()
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        odds = evidence.get(classes.get(number, 1))
        if box is None or odds is None:
            continue
        mine = labels[box] == number
        if odds[box][mine].mean() < VANISHED:
            out[box][mine] = 0
    return out
