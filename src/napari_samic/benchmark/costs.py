"""What the learners of the benchmark's ways cost: parameters, and milliseconds an image.

Each is timed on the correlations of the same pair of blank images, one reference; with more it
runs once for each of them. Encoding, correlating and the segmenter are not in it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from napari_samic.benchmark import learners as benchmark_learners
from napari_samic.benchmark.methods import WAYS
from napari_samic.benchmark.report import table_of
from napari_samic.core.types import Job, JobProgress
from napari_samic.models.features import backbones
from napari_samic.models.samic.hsnet import HyperCorrelationLearner
from napari_samic.models.samic.hypercorrelation import correlate, prepare_reference, prepare_target

TURNS = 7


@dataclass(frozen=True)
class Costs:
    """What was measured, and where.

    Attributes
    ----------
    ways : dict of str to dict
        `parameters` that can be learned, and `ms`, the median of the `turns`.
    device : str
    threads : int
        Of the processor.
    grids : tuple of (h, w)
        Of the features, coarse to fine.
    turns : int
    """

    ways: dict[str, dict[str, float]] = field(default_factory=dict)
    device: str = ""
    threads: int = 0
    grids: tuple[tuple[int, int], ...] = ()
    turns: int = 0


def measure(ways: Sequence[str], segmenter: object) -> Job[Costs]:
    """Time the learners in turn, after one run each that does not count; a job.

    Parameters
    ----------
    ways : sequence of str
        Those without a learner are left out.
    segmenter : Segmenter

    Returns
    -------
    Job of Costs
        Empty if no way has a learner.
    """
    with_learner = [way for way in ways if way in WAYS]
    if not with_learner:
        return Costs()
    features = backbones.build("segmenter", segmenter)
    learners = {
        way: benchmark_learners.untrained(WAYS[way], features).learner for way in with_learner
    }
    pyramid = _blank_pair(features)
    for learner in learners.values():
        milliseconds(learner, pyramid)
    spent: dict[str, list[float]] = {way: [] for way in with_learner}
    for turn in range(TURNS):
        for way, learner in learners.items():
            spent[way].append(milliseconds(learner, pyramid))
        yield JobProgress(turn + 1, TURNS, "timing the learners", {"phase": "costs"})
    costs = {
        way: {"parameters": _parameters(learner), "ms": float(np.median(spent[way]))}
        for way, learner in learners.items()
    }
    grids = tuple((level.shape[2], level.shape[3]) for level in pyramid)
    return Costs(costs, str(features.device), torch.get_num_threads(), grids, TURNS)


def _blank_pair(features: backbones.Backbone) -> list[Tensor]:
    """Pyramid of two blank images, all of the reference marked."""
    levels = features.features(np.zeros((64, 64, 3), np.uint8))  # as a new prompter asks for
    marked = torch.ones(1, features.map_px, features.map_px, device=features.device)
    return correlate(prepare_target(levels), prepare_reference(levels, marked))


@torch.inference_mode()
def milliseconds(learner: HyperCorrelationLearner, pyramid: Sequence[Tensor]) -> float:
    """Time that the learner takes for one pyramid of correlations, its result fetched."""
    started = time.perf_counter()
    learner(pyramid).cpu()  # waits for a GPU
    return 1000 * (time.perf_counter() - started)


def _parameters(learner: HyperCorrelationLearner) -> int:
    return sum(p.numel() for p in learner.parameters() if p.requires_grad)


def markdown(ways: Mapping[str, Mapping[str, float]]) -> str:
    """A table with a row for each way.

    Examples
    --------
    >>> print(markdown({"paper": {"parameters": 2573794, "ms": 31.42}}))
    | way | learner's parameters | ms an image and reference |
    |---|---|---|
    | paper | 2,573,794 | 31.4 |
    <BLANKLINE>
    """
    head = ["way", "learner's parameters", "ms an image and reference"]
    rows = [[way, f"{cost['parameters']:,}", f"{cost['ms']:.1f}"] for way, cost in ways.items()]
    return table_of([head, *rows])
