"""Which references serve a target, and how much the map of each counts.

Pure functions on references, features and maps: knows no prompter, no network and no file. Not in
the paper, whose references serve every target and count the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_samic.core.errors import InputError, PromptError
from napari_samic.core.types import Reference
from napari_samic.models import losses
from napari_samic.models.samic.episodes import labels_of, valid_mean


def references_of_class(references: Sequence[Reference], label: int) -> list[Reference]:
    """The references of one class.

    Raises
    ------
    PromptError
        None.
    """
    chosen = [r for r in references if label in labels_of(r)]
    if not chosen:
        raise PromptError(f"no reference shows class {label}. Annotate one that does.")
    return chosen


def checked(weights: Sequence[float], references: Sequence[Reference]) -> dict[int, float]:
    """Weight of each reference, by its id(); of one that is given twice, the sum of the two."""
    values = np.asarray(weights, np.float64).reshape(-1)
    if len(values) != len(references):
        msg = f"{len(values)} weights for {len(references)} references. Give one for each."
        raise InputError(msg)
    if not np.isfinite(values).all() or (values < 0).any():
        raise InputError(f"weights {values.tolist()}: expected finite numbers from 0. Mend them.")
    shares: dict[int, float] = {}
    for reference, value in zip(references, values.tolist(), strict=True):
        shares[id(reference)] = shares.get(id(reference), 0.0) + value
    return shares


def embedding(
    level: Sequence[Tensor],
    center: Sequence[Tensor] | None,
    shape: tuple[int, ...],
    frame: tuple[int, int],
) -> Tensor:
    """One vector of a whole picture, padding left out.

    Parameters
    ----------
    level : sequence of (1, C, h, w) Tensor
        The blocks of one level.
    center : sequence of (1, C, 1, 1) Tensor, optional
        Subtracted from each block.
    shape : tuple of int
        (H, W, ...) of the picture.
    frame : (int, int)
        Rows and columns of the picture that the level spans, with padding.

    Returns
    -------
    (D,) float64
        Each block's mean at length 1, one after the other, at length 1 as a whole; on the CPU.
    """
    means = [valid_mean(block, shape, frame) for block in level]  # each (1, C, 1, 1)
    if center is not None:
        means = [weighted_mean - c for weighted_mean, c in zip(means, center, strict=True)]
    unit = [F.normalize(weighted_mean.flatten().cpu().double(), dim=0) for weighted_mean in means]
    return F.normalize(torch.cat(unit), dim=0)


def nearest(embeddings: Sequence[Tensor], target: Tensor, count: int) -> list[int]:
    """Places of the `count` embeddings with the highest cosine, in their order.

    Of equal ones the first.

    Parameters
    ----------
    embeddings : sequence of (D,) Tensor
    target : (D,) Tensor

    Examples
    --------
    >>> east, north = torch.eye(2)
    >>> nearest([north, east, north, east], east, 3)
    [0, 1, 3]
    """
    if len(embeddings) <= count:
        return list(range(len(embeddings)))
    cosine = (torch.stack(list(embeddings)) * target).sum(1)  # (K,)
    order = torch.argsort(cosine, descending=True, stable=True)
    return sorted(order[:count].tolist())


def agreement_weights(maps: Tensor) -> Tensor:
    """How much each map is like the mean of the others: their correlation, from 0.

    Parameters
    ----------
    maps : (K, h, w) float

    Returns
    -------
    (K,) float32
        All 1 for a single map, and where no map is like the others; on the CPU.
    """
    even = torch.ones(len(maps))
    if len(maps) < 2:
        return even
    others = (maps.sum(0) - maps) / (len(maps) - 1)  # (K, h, w)
    weights = losses.cc(maps, others).clamp(min=0).cpu().float()
    return weights if weights.any() else even


def weighted_mean(maps: Tensor, weigh: str, shares: Sequence[float] | None = None) -> Tensor:
    """The maps of several references as one.

    Parameters
    ----------
    maps : (K, h, w) float
    weigh : {"even", "agreement"}
        Plain (paper), or by `agreement_weights`.
    shares : (K,) sequence of float, optional
        How much each counts besides, above 0; the two are multiplied.

    Returns
    -------
    (h, w) float
    """
    each = None if shares is None else torch.tensor(list(shares))
    if weigh == "agreement" and len(maps) > 1:
        each = agreement_weights(maps) if each is None else agreement_weights(maps) * each
    if each is None:
        return maps.mean(0)
    return (maps * (each / each.sum()).to(maps)[:, None, None]).sum(0)
