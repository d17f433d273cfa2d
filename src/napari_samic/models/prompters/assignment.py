"""Which cells of one image belong to which of another: assignment there and back, and transport.

Pure NumPy and SciPy: knows no image, no segmenter and no class.

Source: Liu et al., Matcher: Segment Anything with One Shot Using All-Purpose Feature Matching,
ICLR 2024; the entropic transport is Cuturi, Sinkhorn Distances, NeurIPS 2013.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from napari_samic.core.types import BoolArray

Values = NDArray[np.float64]
Cells = NDArray[np.int64]
MANY = 40
"""Of more matches than this the best half is kept."""
FEW = 8
"""Of as many points or fewer, all subsets are tried."""
BLUR = 0.05
"""Of the transport, in the unit of its costs."""
ROUNDS = 50


def cycle_consistent_matches(likeness: Values, inside: BoolArray) -> Cells:
    """Cells of a target that match an object's cells, and are matched by them in turn.

    Cycle consistency: a match counts if the way back from the target ends in the object, where the
    way there began.

    Parameters
    ----------
    likeness : (Nr, Nt) float
        Of reference cells to target cells.
    inside : (Nr,) bool
        Reference cells of the object.

    Returns
    -------
    (M,) int64
        Target cells, most alike first, each once. Where nothing survives the way back, all that
        the way there found; none only if `inside` is empty.

    Examples
    --------
    >>> likeness = np.array([[0.9, 0.1], [0.2, 0.8]])
    >>> cycle_consistent_matches(likeness, np.array([True, False])).tolist()
    [0]
    """
    rows, columns = linear_sum_assignment(likeness[inside], maximize=True)
    values = likeness[inside][rows, columns]
    back_rows, back = linear_sum_assignment(likeness.T[columns], maximize=True)
    kept = np.zeros(len(columns), bool)
    kept[back_rows] = inside[back]
    if not kept.any():
        kept[:] = True
    order = np.argsort(-values[kept], kind="stable")
    matches = columns[kept][order]
    return np.asarray(matches[: len(matches) // 2] if len(matches) > MANY else matches, np.int64)


def subsets(
    count: int, rng: np.random.Generator, *, least: int, most: int, tries: int
) -> list[Cells]:
    """Which points are asked for together.

    Parameters
    ----------
    count : int
        Of points, from 1.
    least, most : int
        Size of a subset, `most` left out; all points where there are fewer.
    tries : int
        Random subsets of each size, where there are too many points to try all.
    """
    sizes = list(range(min(least, count), min(most, count))) or [min(least, count)]
    chosen: dict[tuple[int, ...], None] = {}
    for size in sizes:
        if count > FEW:
            drawn = (rng.choice(count, size, replace=False) for _ in range(tries))
            chosen.update(dict.fromkeys(tuple(sorted(map(int, d))) for d in drawn))
        else:
            chosen.update(dict.fromkeys(combinations(range(count), size)))
    return [np.array(c, np.int64) for c in chosen]


def transport(costs: Values) -> float:
    """Cost of moving one even heap of cells onto another, in [0, max(costs)].

    Parameters
    ----------
    costs : (N, M) float
        Between the cells of both heaps, each of mass 1 in all.

    References
    ----------
    Cuturi, 2013.
    """
    n, m = costs.shape
    start = costs.min()  # makes the kernel's largest value 1: no row of it vanishes with small ones
    kernel = np.exp(-(costs - start) / BLUR) + 1e-12
    u, v = np.full(n, 1 / n), np.full(m, 1 / m)
    for _ in range(ROUNDS):
        u = 1 / n / (kernel @ v)
        v = 1 / m / (kernel.T @ u)
    plan = u[:, None] * kernel * v
    return float((plan * costs).sum())
