"""How far an answer holds when its prompt is shaken a little.

Members ask with a jittered box and jittered points; their mean is a probability, its entropy shows
where they differ, and their mean pairwise IoU predicts how good the mask is. Knows a segmenter only
as a protocol.

Source: SAM-U (Deng et al., "Multi-box prompts triggered uncertainty estimation for reliable SAM in
medical image", MICCAI workshops 2023); the two numbers of an object after Roy et al., "Bayesian
QuickNAT", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from napari_samic.core.errors import PromptError
from napari_samic.core.types import BoolArray, FloatArray, Image, Prompts, Segmenter
from napari_samic.evaluation.metrics import iou

_LEAST_PX = 1.0


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Uncertainty of one object: what the members of an ensemble said of it.

    Attributes
    ----------
    mean : (H, W) float32
        Share of the members whose mask holds a pixel.
    entropy : (H, W) float32
        Of it, in bits: 0 where all agree, 1 where half do.
    quality : float
        Mean IoU of each two members, in [0, 1]; 1 if all are empty.
    rim_entropy : float
        Mean entropy on the outline of the majority's mask, in [0, 1]; 1 if it is empty, but 0 if
        all members are.
    """

    mean: FloatArray
    entropy: FloatArray
    quality: float
    rim_entropy: float

    @classmethod
    def of(cls, masks: BoolArray) -> Ensemble:
        """Sum up the masks of all members, (N, H, W) bool."""
        mean = masks.mean(axis=0, dtype=np.float64).astype(np.float32)
        entropies = entropy(mean)
        return cls(mean, entropies, _pairwise(masks), _on_rim(mean, entropies))


def ensemble(
    segmenter: Segmenter,
    image: Image,
    prompts: Prompts,
    *,
    members: int = 8,
    jitter_frac: float = 0.05,
    seed: int = 0,
    multimask: bool = True,
) -> Ensemble:
    """Ask for an object with its own prompt and with shaken ones.

    Parameters
    ----------
    segmenter : Segmenter
    image : (H, W, 3) uint8
    prompts : Prompts
    members : int
        With the one that is not shaken.
    jitter_frac : float
        Standard deviation, as a fraction of the box's sides; without a box, of the diameter of a
        disc as large as the first mask. At least a pixel if it is not 0.
    seed : int
        Same seed, same answer.
    multimask : bool
        As for `Segmenter.candidates`; the surest mask of each member is taken.

    Returns
    -------
    Ensemble

    Raises
    ------
    PromptError
        Less than one member.
    """
    if members < 1:
        raise PromptError(f"{members} members: an ensemble needs at least 1. Ask for 5 to 10.")
    first = segmenter.candidates(image, [prompts], multimask=multimask)[0]
    masks = [first.masks[first.best]]
    sides = _sides(prompts, masks[0])
    draw = np.random.default_rng(seed)
    shape = (image.shape[0], image.shape[1])
    others = [perturb_prompts(prompts, jitter_frac, sides, shape, draw) for _ in range(members - 1)]
    if others:
        answers = segmenter.candidates(image, others, multimask=multimask)
        masks += [candidates.masks[candidates.best] for candidates in answers]
    return Ensemble.of(np.array(masks))


def perturb_prompts(
    prompts: Prompts,
    jitter_frac: float,
    sides: tuple[float, float],
    shape: tuple[int, int],
    draw: np.random.Generator,
) -> Prompts:
    """Prompts with points and box moved by chance, inside an image of `shape`.

    Parameters
    ----------
    prompts : Prompts
    jitter_frac : float
    sides : (float, float)
        Height and width of the object in pixels.
    shape : (H, W)
    draw : numpy.random.Generator
        Is moved on.
    """
    step = np.maximum(jitter_frac * np.array(sides), _LEAST_PX) if jitter_frac else np.zeros(2)
    most = np.array(shape) - 1.0
    points = prompts.points_rc + step * draw.standard_normal(prompts.points_rc.shape)
    box = None
    if prompts.box_rc is not None:
        corners = prompts.box_rc.reshape(2, 2) + step * draw.standard_normal((2, 2))
        corners = np.clip(corners, -0.5, most + 0.5)
        box = corners.ravel() if (corners[1] - corners[0] >= 1).all() else prompts.box_rc
    return replace(prompts, points_rc=np.clip(points, 0, most), box_rc=box)


def _sides(prompts: Prompts, mask: BoolArray) -> tuple[float, float]:
    if prompts.box_rc is not None:
        height, width = prompts.box_rc[2:] - prompts.box_rc[:2]
        return float(height), float(width)
    diameter = float(2 * np.sqrt(np.count_nonzero(mask) / np.pi))
    return diameter, diameter


def entropy(probability: FloatArray) -> FloatArray:
    """Entropy of a yes or no, in bits, of any shape.

    Examples
    --------
    >>> entropy(np.array([0.0, 0.5, 1.0], np.float32)).tolist()
    [0.0, 1.0, 0.0]
    """
    p = np.clip(np.asarray(probability, np.float64), 0, 1)
    out = np.zeros(p.shape)
    for part in (p, 1 - p):
        out -= part * np.log2(np.where(part > 0, part, 1))
    return np.clip(out, 0, 1).astype(np.float32)


def _pairwise(masks: BoolArray) -> float:
    pairs = [(a, b) for i, a in enumerate(masks) for b in masks[:i]]
    return float(np.mean([iou(a, b) for a, b in pairs])) if pairs else 1.0


def _on_rim(mean: FloatArray, entropies: FloatArray) -> float:
    inside = mean >= 0.5
    if not inside.any():
        return float(mean.any())
    around = np.ones((3, 3), bool)
    rim = ndimage.binary_dilation(inside, around) & ~ndimage.binary_erosion(
        inside, around, border_value=1
    )
    return float(entropies[rim].mean()) if rim.any() else 0.0
