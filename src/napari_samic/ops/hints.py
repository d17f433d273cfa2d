"""What the encoder sees, as colored parts, and where a next click would tell most.

K-means++ of an embedding gives the parts; the disagreement of candidate masks says which of them
is in doubt. Knows no network: features come as an array.

Source: SAMIC, appendix B; k-means++ from Arthur and Vassilvitskii, 2007.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.cluster.vq import kmeans2

from napari_samic.core.types import BoolArray, FloatArray, IntArray
from napari_samic.ops.shape import window_of
from napari_samic.ops.simulated_annotator import inner_maximum

PARTS = 6
_REACH = 1.5
"""The neighborhood of an object: its box, this many times larger."""


def parts(features: FloatArray, count: int = PARTS, *, seed: int = 0) -> IntArray:
    """Cluster the cells of an embedding.

    Parameters
    ----------
    features : (D, h, w) float32
    count : int
        Clusters asked for; fewer come back if cells are alike.
    seed : int

    Returns
    -------
    (h, w) int32
        Cluster of each cell from 0, ordered from the largest to the smallest.
    """
    depth, rows, columns = features.shape
    cells = features.reshape(depth, -1).T.astype(np.float64)  # (h*w, D)
    cells = (cells - cells.mean(0)) / (cells.std(0) + 1e-6)
    distinct = len(np.unique(cells.round(6), axis=0))
    if distinct < 2:
        return np.zeros((rows, columns), np.int32)
    rng = np.random.default_rng(seed)
    count = min(count, distinct)
    _, clusters = kmeans2(cells, count, iter=12, minit="++", rng=rng, missing="warn")
    order = np.argsort(-np.bincount(clusters, minlength=count))
    rank = np.empty(count, np.int32)
    rank[order] = np.arange(count)
    return np.asarray(rank[clusters].reshape(rows, columns), np.int32)


def colors(cells: IntArray) -> NDArray[np.uint8]:
    """Color the parts, (h, w) to (h, w, 3) uint8; hues lie as far apart as their number allows."""
    count = int(cells.max()) + 1
    hues = [colorsys.hsv_to_rgb((i * 0.381966) % 1.0, 0.75, 1.0) for i in range(count)]
    return np.asarray(np.array(hues)[cells] * 255 + 0.5, np.uint8)


def next_point(
    cells: IntArray, candidates: Sequence[BoolArray], others: BoolArray | None = None
) -> tuple[float, float] | None:
    """Find where a next click would tell most.

    Of the connected regions of the parts near the object, the one with most doubt: cells on which
    the candidate masks disagree, and regions that the mask cuts through. Without a mask: the
    largest region that neither touches the border nor lies in another object.

    Parameters
    ----------
    cells : (h, w) int
        As `parts` gives.
    candidates : sequence of (h, w) bool
        Masks of the object at the size of `cells`, the shown one first; empty if there is none.
    others : (h, w) bool, optional
        Where other objects are; never clicked.

    Returns
    -------
    (row, column) in cells, or None if nothing is in doubt.
    """
    free = np.ones(cells.shape, bool) if others is None else ~others
    regions = _regions(np.where(free, cells, -1))
    mask = candidates[0] if len(candidates) else np.zeros(cells.shape, bool)
    if not mask.any():
        return _largest_inside(regions)
    doubt = _doubt(regions, candidates, mask) * _near(mask) * (regions > 0)
    per_region = ndimage.sum_labels(doubt, regions, np.arange(1, regions.max() + 1))
    if not len(per_region) or per_region.max() <= 0:
        return None
    doubt = doubt * (regions == 1 + int(np.argmax(per_region)))
    inside = doubt >= 0.75 * doubt.max()
    row, column = inner_maximum(_largest_component(inside))
    return float(row), float(column)


def _regions(cells: IntArray) -> IntArray:
    """Number the connected regions of each part from 1; 0 where `cells` is negative."""
    out = np.zeros(cells.shape, np.int32)
    for part in np.unique(cells[cells >= 0]):
        components, _ = ndimage.label(cells == part)
        out[components > 0] = components[components > 0] + out.max()
    return out


def _doubt(regions: IntArray, candidates: Sequence[BoolArray], mask: BoolArray) -> FloatArray:
    """Disagreement of the candidates, and of each region with the mask's outline, in [0, 2]."""
    share = np.mean(np.stack([np.asarray(c, np.float32) for c in candidates]), axis=0)
    sizes = np.maximum(np.bincount(regions.ravel()), 1)
    covered = (np.bincount(regions.ravel(), mask.ravel()) / sizes)[regions]
    return np.asarray(4 * share * (1 - share) + 4 * covered * (1 - covered), np.float32)


def _near(mask: BoolArray) -> BoolArray:
    """The box around a mask, `_REACH` times larger."""
    near = np.zeros(mask.shape, bool)
    window = []
    for part in window_of(mask):
        margin = max(1, round((part.stop - part.start) * (_REACH - 1) / 2))
        window.append(slice(max(0, part.start - margin), part.stop + margin))
    near[tuple(window)] = True
    return near


def _largest_component(inside: BoolArray) -> BoolArray:
    components, _ = ndimage.label(inside)
    return np.asarray(components == 1 + int(np.argmax(np.bincount(components.ravel())[1:])))


def _largest_inside(regions: IntArray) -> tuple[float, float] | None:
    edge = np.unique(np.concatenate([regions[[0, -1]].ravel(), regions[:, [0, -1]].ravel()]))
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    inner = sizes.copy()
    inner[edge] = 0
    chosen = inner if inner.any() else sizes
    if not chosen.any():
        return None
    row, column = inner_maximum(regions == int(np.argmax(chosen)))
    return float(row), float(column)
