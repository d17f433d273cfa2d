"""What networks learn from: KLD, CC, NSS and their sum of (B, H, W) maps; Dice and focal of masks.

Source: SAMIC, section 3.5; definitions of Bylinskii et al., "What do different evaluation metrics
tell us about saliency models?", 2019, arXiv:1604.03605. All three ignore the level of the map,
so a predicted map is divided by its maximum before it is cut (`settings.PeakSettings`).
Arithmetic is float64 where the device has it; knows no network and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_samic.core.errors import InputError

EPS = 2.2204e-16
"""In the logarithm and the denominators of KLD."""
VARIANCE_EPS = 1e-12
"""Added to variances: a constant map has a finite score, and a finite gradient."""
ALPHA, GAMMA = 0.25, 2
"""Of the focal loss."""


def kld(pred: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the predicted from the true map, both of sum 1.

    Parameters
    ----------
    pred, target : (B, H, W) float
        Not negative.

    Returns
    -------
    (B,) float
        From 0, lower is better. 0 for an all-zero target.

    Raises
    ------
    InputError
        Not (B, H, W), or two shapes.

    References
    ----------
    SAMIC, section 3.5; arXiv:1604.03605.
    """
    p, q = _flat(pred, target)  # (B, H*W)
    p = p / (p.sum(dim=1, keepdim=True) + EPS)
    q = q / (q.sum(dim=1, keepdim=True) + EPS)
    return _back((q * torch.log(EPS + q / (p + EPS))).sum(dim=1), pred)


def cc(pred: Tensor, target: Tensor) -> Tensor:
    """Pearson's correlation of two maps.

    Parameters
    ----------
    pred, target : (B, H, W) float

    Returns
    -------
    (B,) float
        In [-1, 1], higher is better; 0 if a map is constant.

    Raises
    ------
    InputError
        Not (B, H, W), or two shapes.

    References
    ----------
    SAMIC, section 3.5; arXiv:1604.03605.
    """
    p, q = _flat(pred, target)  # (B, H*W)
    p = p - p.mean(dim=1, keepdim=True)
    q = q - q.mean(dim=1, keepdim=True)
    spread = (p.square().mean(dim=1) + VARIANCE_EPS) * (q.square().mean(dim=1) + VARIANCE_EPS)
    return _back((p * q).mean(dim=1) / spread.sqrt(), pred)


def cc_loss(pred: Tensor, target: Tensor) -> Tensor:
    """One minus the correlation: (B,) in [0, 2], lower is better. See `cc`."""
    return 1 - cc(pred, target)


def nss(pred: Tensor, fixations: Tensor) -> Tensor:
    """Normalized scan-path saliency: the mean standard score of the map at the fixations.

    Parameters
    ----------
    pred : (B, H, W) float
    fixations : (B, H, W) bool or float
        1 where somebody looked (clicked), 0 elsewhere.

    Returns
    -------
    (B,) float
        Higher is better; 0 for a constant map and where nothing is fixated.

    Raises
    ------
    InputError
        Not (B, H, W), or two shapes.

    Notes
    -----
    The standard deviation is the unbiased one, as in public code.

    References
    ----------
    SAMIC, section 3.5; Peters et al., "Components of bottom-up gaze allocation in natural
    images", 2005.
    """
    p, f = _flat(pred, fixations)  # (B, H*W)
    p = p - p.mean(dim=1, keepdim=True)
    variance = p.square().sum(dim=1) / max(p.shape[1] - 1, 1)
    at_fixations = (p * f).sum(dim=1) / f.sum(dim=1).clamp(min=1)
    return _back(at_fixations / (variance + VARIANCE_EPS).sqrt(), pred)


def nss_loss(pred: Tensor, fixations: Tensor) -> Tensor:
    """What the fixation map itself would score, minus what the prediction scores.

    Parameters
    ----------
    pred : (B, H, W) float
    fixations : (B, H, W) bool or float
        1 at fixations, 0 elsewhere.

    Returns
    -------
    (B,) float
        From 0, where the prediction is the fixation map itself; lower is better. The heat map that
        fixations were cut from is above 0 by what its slopes cost: a constant, some 3 to 6 for
        clicks of `sigma_frac` 0.02, and nothing to the gradient, which is that of minus `nss`.

    Raises
    ------
    InputError
        Not (B, H, W), or two shapes.

    References
    ----------
    SAMIC, section 3.5; Jia and Bruce, "EML-NET", 2020, arXiv:1805.01047.
    """
    ideal = nss(fixations.to(_score_dtype(pred)), fixations)
    return ideal - nss(pred, fixations)


SALIENCY_LOSSES: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "kld": lambda pred, target, _: kld(pred, target),
        "cc": lambda pred, target, _: cc_loss(pred, target),
        "nss": lambda pred, _, fixations: nss_loss(pred, fixations),
    }
)
"""From prediction, target and fixations, (B, H, W) each, to (B,); each has a setting `NAME_weight`
in `TrainSettings`, and is an ablation of the benchmark."""
PAPER_WEIGHTS = MappingProxyType({"kld": 1.0, "cc": 1.0, "nss": 1.0})


def saliency_loss(
    pred: Tensor,
    target: Tensor,
    weights: Mapping[str, float] = PAPER_WEIGHTS,
    *,
    fixation_threshold: float = 0.5,
) -> Tensor:
    """Weighted sum of saliency losses, averaged over the batch.

    Parameters
    ----------
    pred, target : (B, H, W) float
        In [0, 1].
    weights : dict of str to float
        By names of `SALIENCY_LOSSES`; those that are not named count nothing.
    fixation_threshold : float
        The target above this counts as fixated.

    Returns
    -------
    () float
        To be minimized; float32, or float64 for a float64 prediction. Not 0 for a perfect map:
        see `nss_loss`.

    Raises
    ------
    InputError
        Not (B, H, W), or two shapes.

    References
    ----------
    SAMIC, section 3.5.
    """
    fixations = target > fixation_threshold
    terms = (w * SALIENCY_LOSSES[name](pred, target, fixations) for name, w in weights.items())
    return reduce(add, terms).mean()


def dice_loss(pred: Tensor, target: Tensor, *, smooth: float = 1.0) -> Tensor:
    """1 less the Dice coefficient of soft masks.

    Parameters
    ----------
    pred, target : (..., H, W) float
        In [0, 1].
    smooth : float
        In pixels; what is small counts less.

    Returns
    -------
    (...) float

    References
    ----------
    Milletari et al., V-Net, 3DV 2016.
    """
    both, all_ = (pred * target).sum((-2, -1)), (pred + target).sum((-2, -1))
    return 1 - (2 * both + smooth) / (all_ + smooth)


def focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy in which sure pixels count little, (..., H, W) to (...).

    Parameters
    ----------
    logits, target : (..., H, W) float
        The target is 0 or 1.

    References
    ----------
    Lin et al., ICCV 2017.
    """
    soft = torch.sigmoid(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    right = torch.where(target > 0.5, soft, 1 - soft)
    weight = torch.where(target > 0.5, ALPHA, 1 - ALPHA)
    return (weight * (1 - right) ** GAMMA * entropy).mean((-2, -1))


def maps_loss(
    logits: Tensor, target: Tensor, inside: Tensor, counted: Tensor, valid: Tensor
) -> Tensor:
    """Twice the cross-entropy of all maps, and Dice of those that say where objects are.

    Parameters
    ----------
    logits, target : (B, 2 C, h, w)
        Inside first, then depth.
    inside : (B, C, h, w)
        Of the target, 0 where it does not count.
    counted : (B, 2 C or 1, h, w)
        1 where a pixel counts.
    valid : (B, 1, h, w)
        1 where there is image.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * counted
    predicted = (torch.sigmoid(logits) * counted).chunk(2, 1)[0]
    valid_count = valid.sum() * logits.shape[1]
    return 2 * entropy.sum() / valid_count + dice_loss(predicted, inside, smooth=50).mean()


def _flat(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both as (B, H*W), in the widest float that the device has."""
    if pred.ndim != 3 or pred.shape != target.shape:
        shapes = f"{tuple(pred.shape)} against {tuple(target.shape)}"
        raise InputError(f"maps of {shapes}, expected two of one shape (B, H, W).")
    # Apple's GPUs have no float64; EPS is safe in float32, too.
    dtype = torch.float32 if pred.device.type == "mps" else torch.float64
    return pred.to(dtype).flatten(1), target.to(dtype).flatten(1)


def _score_dtype(pred: Tensor) -> torch.dtype:
    """At least float32: a half-precision map has a float32 loss."""
    return torch.promote_types(pred.dtype, torch.float32)


def _back(scores: Tensor, pred: Tensor) -> Tensor:
    return scores.to(_score_dtype(pred))
