"""Which results are doubtful, and why, in words; and which image would teach most.

Numbers in, numbers and words out: knows no file, no model and no window. What is usual is the
median of all results, and of size and shape that of the references where they are known. A result
is doubtful by its confidence, by having no object or an unusual number or size of them, by a mask
that leaks (one object much larger than is usual, ragged, in pieces, or along the border of the
image), and by references that disagree about it.

Source of the suggestion: k-center greedy of Sener and Savarese, "Active learning for convolutional
neural networks: a core-set approach", ICLR 2018. That distances are weighted with the doubt is
ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FAR = 1.0
"""Of the number or size of objects: doublings away from the usual at which it is told."""
LOW = 0.1
"""Confidence this far below the usual is told."""
SURE = 0.7
"""A confidence below this is told also where all others are as low."""
LARGE = 1.5
"""Of the largest object: doublings above the usual at which it is told."""
RAGGED = 0.15
"""Solidity this far below the usual is told."""
ALONG = 0.15
"""Share of the image's border under one object, above the usual, at which it is told."""
_EMPTY, _IN_PIECES = 0.9, 0.35


@dataclass(frozen=True)
class ResultFeatures:
    """What is known of one result.

    Attributes
    ----------
    name : str
    score : float or None
        Confidence of the image.
    count : int
        Objects.
    size_px : float
        Median area of the objects, of two the lower; 0 if there is none.
    agreement : float or None
        Of the references' heat maps, in [0, 1]; None if the result is not made of these, as that
        of a network fine-tuned to the references.
    largest_px : float
        Area of the largest object.
    solidity : float
        Lowest of the objects: area over that of the convex hull, in [0, 1].
    pieces : int
        Most that one object is in.
    border : float
        Largest share of the image's border that lies under one object, in [0, 1].
    """

    name: str
    score: float | None
    count: int
    size_px: float
    agreement: float | None = None
    largest_px: float = 0.0
    solidity: float = 1.0
    pieces: int = 1
    border: float = 0.0


@dataclass(frozen=True)
class QualityFlag:
    """A quality flag: how doubtful a result is, in [0, 1], and why, the weightiest reason first."""

    name: str
    value: float
    reasons: tuple[str, ...]

    @property
    def text(self) -> str:
        """The reasons in one line; never empty."""
        return "; ".join(self.reasons) or "nothing unusual"


def rank_outliers(
    results: Sequence[ResultFeatures], references: Sequence[ResultFeatures] = ()
) -> list[QualityFlag]:
    """Put results in order, the most doubtful first.

    Parts are joined as independent chances of a fault: 1 - (1 - a) (1 - b) ...

    Parameters
    ----------
    results : sequence of ResultFeatures
    references : sequence of ResultFeatures
        Of the references, as far as they are known: they say what size and shape are usual.

    Returns
    -------
    list of QualityFlag
        One for each; equal ones keep their order.

    Examples
    --------
    >>> usual = [ResultFeatures("a", 0.9, 30, 50.0), ResultFeatures("b", 0.9, 32, 50.0)]
    >>> first = rank_outliers([*usual, ResultFeatures("c", 0.9, 2, 50.0)])[0]
    >>> first.name, first.text
    ('c', '2 objects, others have 30')
    """
    usual = _Usual.of(results, references)
    flags = [_doubt(result, usual) for result in results]
    return sorted(flags, key=lambda doubt: -doubt.value)


@dataclass(frozen=True)
class _Usual:
    score: float | None
    count: float
    size_px: float
    whose: str
    most_px: float
    solidity: float
    border: float

    @classmethod
    def of(cls, results: Sequence[ResultFeatures], references: Sequence[ResultFeatures]) -> _Usual:
        some = [r for r in results if r.count]
        models = [r for r in references if r.count]
        forms = models or some
        return cls(
            _median([r.score for r in some if r.score is not None]),
            _median([r.count for r in results]) or 0.0,
            _median([r.size_px for r in forms]) or 0.0,
            "references" if models else "others",
            max((r.largest_px for r in models), default=0.0),
            max(_median([r.solidity for r in group]) or 0.0 for group in (some, forms)) or 1.0,
            _median([r.border for r in forms]) or 0.0,
        )


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if len(values) else None


def _doubt(result: ResultFeatures, usual: _Usual) -> QualityFlag:
    findings = [rule(result, usual) for rule in (_of_score, _of_count, _of_size, _of_largest,
                                           _of_shape, _of_border, _of_agreement)]  # fmt: skip
    parts = [p for p in findings if p is not None]
    value = 1 - float(np.prod([1 - weight for weight, _ in parts]))
    reasons = sorted((p for p in parts if p[1]), key=lambda part: -part[0])
    return QualityFlag(result.name, value, tuple(words for _, words in reasons))


Part = tuple[float, str]


def _of_score(result: ResultFeatures, usual: _Usual) -> Part | None:
    if result.score is None or not result.count:
        return None
    weight = min(1.0, max(0.0, 1 - result.score))
    if usual.score is not None and result.score < usual.score - LOW:
        return weight, f"confidence {result.score:.2f}, others have {usual.score:.2f}"
    return weight, f"low confidence {result.score:.2f}" if result.score < SURE else ""


def _of_count(result: ResultFeatures, usual: _Usual) -> Part | None:
    if not result.count:
        others = f", others have {usual.count:.0f}" if usual.count >= 0.5 else ""
        return (_EMPTY if usual.count else 0.5), f"no object{others}"
    away = abs(_doublings(result.count + 1, usual.count + 1))
    if away < FAR:
        return None
    plural = "s" * (result.count != 1)
    return _weight(away), f"{result.count} object{plural}, others have {usual.count:.0f}"


def _of_size(result: ResultFeatures, usual: _Usual) -> Part | None:
    if not result.count or not usual.size_px:
        return None
    away = abs(_doublings(result.size_px, usual.size_px))
    if away < FAR:
        return None
    words = f"objects of {result.size_px:.0f} px, {usual.whose} have {usual.size_px:.0f} px"
    return _weight(away), words


def _of_largest(result: ResultFeatures, usual: _Usual) -> Part | None:
    """One object that is too large among others that are not: a leak, or several as one."""
    if not result.count or not usual.size_px or result.largest_px <= usual.most_px:
        return None
    away = _doublings(result.largest_px, usual.size_px)
    if away < LARGE or result.largest_px < 2 * result.size_px:  # all of them are told by `_of_size`
        return None
    words = f"large object: {result.largest_px:.0f} px, {usual.whose} have {usual.size_px:.0f} px"
    return _weight(away), words


def _of_shape(result: ResultFeatures, usual: _Usual) -> Part | None:
    if not result.count:
        return None
    ragged = usual.solidity - result.solidity
    if ragged >= RAGGED:
        words = f"ragged object: solidity {result.solidity:.2f}, usual {usual.solidity:.2f}"
        return min(0.9, 2 * ragged), words
    return (_IN_PIECES, f"object in {result.pieces} pieces") if result.pieces > 1 else None


def _of_border(result: ResultFeatures, usual: _Usual) -> Part | None:
    along = result.border - usual.border
    if along < ALONG:
        return None
    return min(0.9, 2 * along), f"object along {100 * result.border:.0f} % of the border"


def _of_agreement(result: ResultFeatures, usual: _Usual) -> Part | None:
    del usual
    if result.agreement is None:
        return None
    weight = min(1.0, max(0.0, 1 - result.agreement))
    return weight, f"references disagree ({result.agreement:.2f})" if weight > 0.5 else ""


def _doublings(value: float, usual: float) -> float:
    return float(np.log2(max(value, 1.0) / usual))


def _weight(doublings: float) -> float:
    """Twice or half as much: 0.3; four times: 0.5; on towards 1."""
    return float(1 - 0.7**doublings)


def suggest_next_image(
    features: NDArray[np.floating],
    references: NDArray[np.floating],
    doubt: Sequence[float],
    *,
    count: int = 1,
) -> list[int]:
    """Which images would teach most: least like the references, and doubtful.

    Greedy: take the image with the largest distance to its nearest reference, weighted with its
    doubt; then it counts as a reference.

    Parameters
    ----------
    features : (N, D) float
        Of the images to choose from; compared by their direction (cosine distance).
    references : (M, D) float
        Of the references; may be empty.
    doubt : sequence of N float
        In [0, 1]; an image without doubt counts half of one that is all doubt.
    count : int

    Returns
    -------
    list of int
        Places in `features`, best first; no more than there are.

    References
    ----------
    Sener and Savarese, ICLR 2018, algorithm 1.
    """
    if not len(features):
        return []
    own = _unit(features)
    weight = 0.5 + 0.5 * np.asarray(doubt, float)
    nearest = np.full(len(own), 2.0)  # the largest cosine distance there is
    for reference in _unit(references.reshape(-1, own.shape[1])):
        nearest = np.minimum(nearest, 1 - own @ reference)
    chosen: list[int] = []
    for _ in range(min(count, len(own))):
        worth = np.where(np.isin(np.arange(len(own)), chosen), -1.0, nearest * weight)
        best = int(np.argmax(worth))
        chosen.append(best)
        nearest = np.minimum(nearest, 1 - own @ own[best])
    return chosen


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    rows = np.asarray(rows, np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, 1e-12))
