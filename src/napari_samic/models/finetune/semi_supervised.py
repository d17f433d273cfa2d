"""Images without annotation, and what a network that learns takes from them.

The moving average of the network (EMA) is surer than the network itself. What it says of a plain
crop is the pseudo-label: what the network shall say of the same crop in other colors, with a window
of another crop in it. Only pixels that the average is sure of count. Knows no files, no references.

Source: mean teacher, Tarvainen and Valpola, NeurIPS 2017; sure answers to plain crops for changed
ones, Sohn et al., NeurIPS 2020 (FixMatch); windows, French et al., BMVC 2020.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from napari_samic.core.types import Image
from napari_samic.models import losses
from napari_samic.models.finetune.dataset import ReferenceDataset, ReferenceSample

ROOM_PX = 2**26
"""Of all small copies, 4 bytes each: a quarter gigabyte, 1024 of 256 px or 64 of 1024 px."""
CONFIDENCE_MARGIN = 0.3
"""A pixel counts where the EMA network is this far from undecided."""
BEGIN, WHOLE = 0.25, 0.4
"""Shares of the training at which they begin to count, and count as much as references."""
WINDOW = (0.25, 0.625)
"""Least and largest sides of a window of another crop, as shares of a crop's side."""


def rampup_weight(done: float) -> float:
    """How much they count when this share of the training is done.

    >>> [rampup_weight(done) for done in (0.0, 0.25, 0.4, 1.0)]
    [0.0, 0.0, 1.0, 1.0]
    """
    return float(np.clip((done - BEGIN) / (WHOLE - BEGIN), 0, 1))


class UnlabeledDataset:
    """Images without annotation at the network's size, with pseudo-labels.

    A pseudo-label is what the EMA network is sure of in such an image, taken as truth.

    Parameters
    ----------
    side_px : int
        Longest side of a picture.
    seed : int
    whole : bool
        Whether to look at all of an image, not at its field of view alone.
    """

    def __init__(self, side_px: int, seed: int, *, whole: bool = False) -> None:
        self._whole = whole
        self._rng = np.random.default_rng([seed, 1])
        self._dataset = ReferenceDataset((), (), side_px, self._rng)

    def __len__(self) -> int:
        return len(self._dataset)

    @property
    def is_full(self) -> bool:
        """Whether one more would take more memory than they may."""
        return (len(self) + 1) * self._dataset.side_px**2 > ROOM_PX

    def add(self, image: Image) -> None:
        """Take a small copy of (H, W, 3) uint8."""
        sample = ReferenceSample.plain("", image)
        self._dataset.add(sample if self._whole else sample.field)

    def pseudo_labeled_batch(
        self, count: int, ema_model: nn.Module
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Changed crops, and what the EMA network says of them before the change.

        Parameters
        ----------
        count : int
        ema_model : nn.Module
            From (B, 3, h, w) to logits (B, 2 C, h, w), inside first; put in eval mode.

        Returns
        -------
        x : (B, 3, h, w)
            The network's input.
        pseudo_labels : (B, 2 C, h, w)
            Probabilities.
        valid : (B, 1, h, w)
            1 where there is image.
        """
        device = next(ema_model.parameters()).device
        plain, changed, valid = (t.to(device) for t in self._dataset.sample_weak_strong(count))
        with torch.no_grad():
            layout = torch.channels_last
            pseudo_labels = torch.sigmoid(ema_model.eval()(plain.contiguous(memory_format=layout)))
        window = self._windows(changed).to(device)  # (B, 1, h, w)
        x, pseudo_labels, valid = (
            torch.where(window, t.roll(1, 0), t) for t in (changed, pseudo_labels, valid)
        )
        return x, pseudo_labels, valid

    def _windows(self, like: Tensor) -> Tensor:
        """(B, 1, h, w) bool: in every second crop, on average, a rectangle."""
        count, _, *sides = like.shape
        out = torch.zeros(count, 1, *sides, dtype=torch.bool)
        for k in np.flatnonzero(self._rng.random(count) < 0.5):
            spans = [self._span(side) for side in sides]
            out[k, 0, spans[0], spans[1]] = True
        return out

    def _span(self, side: int) -> slice:
        length = int(side * self._rng.uniform(*WINDOW))
        start = int(self._rng.integers(side - length + 1))
        return slice(start, start + length)


def consistency_loss(logits: Tensor, pseudo_labels: Tensor, valid: Tensor) -> Tensor:
    """Twice the cross-entropy of all maps and Dice of those that say where objects are, if sure.

    Parameters
    ----------
    logits, pseudo_labels : (B, 2 C, h, w)
        Inside first, then depth; `pseudo_labels` are probabilities.
    valid : (B, 1, h, w)
        1 where there is image.
    """
    inside = pseudo_labels.chunk(2, 1)[0]
    sure = ((inside - 0.5).abs() > CONFIDENCE_MARGIN) * valid  # (B, C, h, w)
    return losses.maps_loss(
        logits, pseudo_labels, (inside > 0.5) * sure, sure.repeat(1, 2, 1, 1), valid
    )
