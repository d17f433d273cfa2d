"""Whether one method is better than another, and whether a confidence can be trusted.

Values are one number an answer. Answers of one unit belong together: those for an image by several
seeds, or the frames of a video. A unit counts once, whatever it has, and units are what is drawn
again: answers that share them say less than as many new images. Sources: percentile bootstrap
(Efron, 1979) over clusters (Field and Welsh, 2007); signed ranks (Wilcoxon, 1945); risk over
coverage (Geifman and El-Yaniv, NeurIPS 2017). NumPy and SciPy only; knows no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_samic.core.errors import InputError

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over units, and where it would lie with others."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How much better `a` is than `b`.

    Attributes
    ----------
    mean, low, high : float
        Of a - b; with 95 % of the resamples between `low` and `high`.
    won, lost : float
        Shares of units where a is greater, and where b is; the rest are equal.
    p : float
        Wilcoxon's, two-sided; 1 if all are equal.
    n : int
        Units that were compared.
    """

    mean: float
    low: float
    high: float
    won: float
    lost: float
    p: float
    n: int


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Mean risk of the surest part, for each part.

    Attributes
    ----------
    coverage, risk : (N,) float64
        Part of the images that are kept, 1/N to 1, and their mean risk.
    aurc : float
        Mean of `risk`: the area under the curve; smaller is better.
    best : float
        The same, had the confidence been perfect.
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    aurc: float
    best: float


@dataclass(frozen=True)
class BadShare:
    """How many of the least sure masks are bad: their share, that of all, and the ratio of both."""

    share: float
    base: float
    ratio: float


def bootstrap_interval(
    values: ArrayLike,
    units: Sequence[str] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean with its 95 % interval: units are drawn again.

    How far seeds lie apart is no part of it: it tells of other images, not of other trainings.

    Parameters
    ----------
    values : (N,) float
        One number an answer.
    units : sequence of N str, optional
        What each belongs to, such as its image; default: each to its own.
    seed : int
        Of the resamples.
    resamples : int

    Returns
    -------
    Interval
        `mean` is that of the units' means.

    Raises
    ------
    InputError
        No value, NaN or infinity, or another number of units.

    Examples
    --------
    >>> bootstrap_interval([0.5, 0.5, 0.5])
    Interval(mean=0.5, low=0.5, high=0.5)
    >>> bootstrap_interval([0.0, 0.0, 0.0, 1.0], ["dog", "dog", "dog", "cat"]).mean
    0.5
    """
    each = unit_means(values, units)
    low, high = _percentiles(each, seed, resamples)
    return Interval(float(each.mean()), low, high)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    units: Sequence[str] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Difference:
    """Compare two methods over the same images and seeds.

    Parameters
    ----------
    a, b : (N,) float
        One number an answer, in the same order.
    units, seed, resamples
        As in `bootstrap_interval`.

    Returns
    -------
    Difference

    Raises
    ------
    InputError
        As in `bootstrap_interval`, or `a` and `b` of different lengths.

    Examples
    --------
    >>> found = paired_difference([0.9, 0.8, 0.8, 0.6], [0.5, 0.5, 0.5, 0.6])
    >>> round(found.mean, 2), found.won, found.lost, found.n
    (0.25, 0.75, 0.0, 4)
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape:
        msg = f"shapes {first.shape} and {second.shape}: expected the same answers of both methods."
        raise InputError(msg)
    each = unit_means(first - second, units)
    low, high = _percentiles(each, seed, resamples)
    won, lost = float((each > 0).mean()), float((each < 0).mean())
    return Difference(float(each.mean()), low, high, won, lost, _wilcoxon(each), len(each))


def unit_means(values: ArrayLike, units: Sequence[str] | None = None) -> NDArray[np.float64]:
    """Mean of each unit, (U,) float64, sorted by the units' names. Parameters as of the interval.

    Raises
    ------
    InputError
        As in `bootstrap_interval`.
    """
    flat = np.asarray(values, np.float64)
    if flat.ndim != 1 or not flat.size or not np.isfinite(flat).all():
        msg = f"values of shape {flat.shape}: expected (N,) finite numbers, one an answer."
        raise InputError(msg)
    if units is None:
        return flat
    if len(units) != len(flat):
        raise InputError(f"{len(flat)} values and {len(units)} units: expected one a value.")
    _, group = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    return np.asarray(np.bincount(group, weights=flat) / np.bincount(group))


def risk_coverage(confidence: ArrayLike, risk: ArrayLike) -> RiskCoverage:
    """How the mean risk grows as less sure masks are kept.

    Parameters
    ----------
    confidence : (N,) float
        Higher is surer. Images of equal confidence share their mean risk, so that their order
        does not matter.
    risk : (N,) float
        What a mask costs, usually 1 - IoU.

    Returns
    -------
    RiskCoverage

    Raises
    ------
    InputError
        No value, NaN or infinity, or two lengths.

    Examples
    --------
    >>> found = risk_coverage([0.9, 0.8, 0.1], [0.0, 0.3, 0.9])
    >>> found.risk.round(2).tolist(), round(found.aurc, 3), found.aurc == found.best
    ([0.0, 0.15, 0.4], 0.183, True)
    """
    sure, cost = _finite_pair(confidence, risk)
    curve = _running_mean(_by_confidence(-sure, cost))
    best = _running_mean(np.sort(cost))
    coverage = np.arange(1, len(cost) + 1) / len(cost)
    return RiskCoverage(coverage, curve, float(curve.mean()), float(best.mean()))


def share_of_bad(
    confidence: ArrayLike, iou: ArrayLike, first: float = 0.2, bad: float = 0.5
) -> BadShare:
    """How many of the masks that would be looked at first are bad.

    Parameters
    ----------
    confidence : (N,) float
        Higher is surer; images of equal confidence share what they cost.
    iou : (N,) float
    first : float
        Part of the images that is looked at, the least sure; rounded up to whole images.
    bad : float
        A mask below this IoU is bad.

    Returns
    -------
    BadShare
        `ratio` is 1 where the confidence tells nothing, and NaN where no mask is bad.

    Raises
    ------
    InputError
        No value, NaN or infinity, two lengths, or `first` not in (0, 1].

    Examples
    --------
    >>> share_of_bad([0.1, 0.6, 0.7, 0.8, 0.9], [0.2, 0.4, 0.9, 0.9, 0.9])
    BadShare(share=1.0, base=0.4, ratio=2.5)
    """
    sure, ious = _finite_pair(confidence, iou)
    if not 0 < first <= 1:
        raise InputError(f"first is {first}, expected a part of the images: above 0, at most 1.")
    is_bad = _by_confidence(sure, (ious < bad).astype(np.float64))
    looked_at = int(np.ceil(first * len(ious) - 1e-9))  # 0.07 * 100 is more than 7
    share, base = float(is_bad[:looked_at].mean()), float((ious < bad).mean())
    return BadShare(share, base, share / base if base else float("nan"))


def _percentiles(each: NDArray[np.float64], seed: int, resamples: int) -> tuple[float, float]:
    if resamples < 1:
        raise InputError(f"{resamples} resamples, expected at least one; 2000 is usual.")
    rng = np.random.default_rng(seed)
    means = [each[rng.integers(len(each), size=len(each))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _wilcoxon(differences: NDArray[np.float64]) -> float:
    from scipy.stats import wilcoxon  # half a second that no shell command needs

    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def _finite_pair(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    fits = first.shape == second.shape and first.ndim == 1 and first.size > 0
    if not fits or not (np.isfinite(first).all() and np.isfinite(second).all()):
        msg = (
            f"shapes {first.shape} and {second.shape}: expected (N,) finite numbers, one an image."
        )
        raise InputError(msg)
    return first, second


def _by_confidence(key: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """`values` in the order of `key`; those of equal keys become their mean."""
    _, group = np.unique(key, return_inverse=True)
    means = np.bincount(group, weights=values) / np.bincount(group)
    return np.asarray(means[np.sort(group)])


def _running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.cumsum(values) / np.arange(1, len(values) + 1))
