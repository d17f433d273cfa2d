"""What else a comparison tells of each method, beside the IoU: outlines, objects, time and trust.

Knows results, no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_samic.benchmark.report import ImageScore, table_of, unit_of
from napari_samic.benchmark.statistics import risk_coverage, share_of_bad, unit_means

NAN = float("nan")


@dataclass(frozen=True)
class MethodSummary:
    """One method on one data set with one number of shots.

    Scores are means over images, or over the videos that they are frames of, each with the mean of
    its seeds and frames; trust is over all answers of all seeds.

    Attributes
    ----------
    set : str
    shots : int
    method : str
    dice, boundary_f, object_f1 : float
        In [0, 1]; the last with objects matched at an IoU of 0.5.
    seconds : float
        An image, in the median, without the segmenter's encoding, which all ways share.
    bad : float
        Share of masks with an IoU below 0.5.
    bad_first : float
        The same among the fifth of which the method is least sure.
    bad_ratio : float
        `bad_first` over `bad`: what looking at the least sure first is worth.
    aurc, aurc_best : float
        Area under the risk-coverage curve with 1 - IoU as the risk, and what it would be with a
        perfect confidence; lower is better.
    class_iou : float
        Of sets of several classes: intersection over union of all answers to a class, then the
        mean over classes, as HSNet and PerSAM tell it. Other scores count images.
    j_and_f : float
        Of videos, mean of J and F over frames, then over sequences; each frame with the mean of
        its objects.
    """

    set: str
    shots: int
    method: str
    dice: float
    boundary_f: float
    object_f1: float
    seconds: float
    bad: float
    bad_first: float = NAN
    bad_ratio: float = NAN
    aurc: float = NAN
    aurc_best: float = NAN
    class_iou: float = NAN
    j_and_f: float = NAN


def measures(
    results: Iterable[ImageScore], sequences: Mapping[str, str] | None = None
) -> list[MethodSummary]:
    """Measure each method, in the order in which sets, shots and methods first appear.

    Parameters
    ----------
    results : iterable of ImageScore
    sequences : dict of str to str, optional
        Sequence of each image, of a set of videos.

    Returns
    -------
    list of MethodSummary
        NaN where something was not measured, or a method has no confidence.
    """
    groups: dict[tuple[str, int, str], list[ImageScore]] = {}
    for r in results:
        groups.setdefault((r.set, r.shots, r.method), []).append(r)
    return [_summarize(*key, mine, sequences) for key, mine in groups.items()]


def _summarize(
    name: str,
    shots: int,
    method: str,
    results: list[ImageScore],
    sequences: Mapping[str, str] | None,
) -> MethodSummary:
    ious = np.array([r.iou for r in results])
    values = {key: _mean(results, key, sequences) for key in ("dice", "boundary_f", "object_f1")}
    values["seconds"] = float(np.median([r.seconds for r in results]))
    values["bad"] = float((ious < 0.5).mean())
    sure = np.array([r.score for r in results])
    if np.isfinite(sure).all():
        bad, curve = share_of_bad(sure, ious), risk_coverage(sure, 1 - ious)
        values |= {"bad_first": bad.share, "bad_ratio": bad.ratio}
        values |= {"aurc": curve.aurc, "aurc_best": curve.best}
    if sequences is not None:
        values["j_and_f"] = (_mean(results, "iou", sequences) + values["boundary_f"]) / 2
    else:
        values["class_iou"] = _class_iou(results)
    return MethodSummary(name, shots, method, **values)


def _class_iou(results: Sequence[ImageScore]) -> float:
    """Of several classes, all counted."""
    pixels: dict[str, NDArray[np.float64]] = {}
    for r in results:
        pixels[r.label] = pixels.get(r.label, np.zeros(2)) + np.array([r.both, r.either])
    several = [np.divide(*of) for of in pixels.values() if of[1]] if len(pixels) > 1 else []
    return float(np.mean(several)) if several else NAN


def _mean(results: Sequence[ImageScore], key: str, sequences: Mapping[str, str] | None) -> float:
    """Over those that have it."""
    measured = [r for r in results if np.isfinite(getattr(r, key))]
    belongs = [unit_of(r.image, sequences) for r in measured]
    return (
        float(unit_means([getattr(r, key) for r in measured], belongs).mean()) if measured else NAN
    )


_HEADS = {
    "Dice": "dice",
    "boundary F": "boundary_f",
    "object F1": "object_f1",
    "class IoU": "class_iou",
    "J&F": "j_and_f",
    "bad": "bad",
    "bad, first fifth": "bad_first",
    "ratio": "bad_ratio",
    "AURC": "aurc",
    "best AURC": "aurc_best",
    "s": "seconds",
}


def markdown(summaries: Sequence[MethodSummary]) -> str:
    """A table with a row for each method on each set, without columns that none has.

    Examples
    --------
    >>> print(markdown([MethodSummary("cells", 5, "SAMIC", 0.8, 0.7, 0.9, 0.25, 0.125)]))
    | set | method | Dice | boundary F | object F1 | bad | s |
    |---|---|---|---|---|---|---|
    | cells, 5 | SAMIC | 0.800 | 0.700 | 0.900 | 0.125 | 0.250 |
    <BLANKLINE>
    """
    heads = [h for h, key in _HEADS.items() if any(np.isfinite(getattr(m, key)) for m in summaries)]
    lines = [["set", "method", *heads]]
    for m in summaries:
        values = [getattr(m, _HEADS[head]) for head in heads]
        texts = [f"{value:.3f}" if np.isfinite(value) else "" for value in values]
        lines.append([f"{m.set}, {m.shots}", m.method, *texts])
    return table_of(lines)
