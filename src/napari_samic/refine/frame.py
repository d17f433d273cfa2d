"""How a segmenter's low-resolution logits lie over the image.

SAM pads the image below and right to a square, others may stretch it; the protocol does not say
which, so an answer is asked: its masks tell what its logits show. Must not know a network.

Source: Kirillov et al., Segment Anything, ICCV 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_samic.contracts import BoolArray, Candidates, FloatArray


@dataclass(frozen=True)
class Frame:
    """The part of (h, w) logits that shows the image, from the first row and column.

    Attributes
    ----------
    logits_hw, part_hw : (int, int)
    """

    logits_hw: tuple[int, int]
    part_hw: tuple[int, int]

    @classmethod
    def of(cls, answer: Candidates) -> Frame:
        """Learn it from an answer; padded to a square, unless the masks say stretched."""
        return cls.under(answer.masks, answer.logits)

    @classmethod
    def under(cls, masks: BoolArray, logits: FloatArray) -> Frame:
        """As `of`, from masks (..., H, W) and their logits (..., h, w)."""
        (h, w), (height, width) = logits.shape[-2:], masks.shape[-2:]
        longest = max(height, width)
        padded = (max(1, round(h * height / longest)), max(1, round(w * width / longest)))
        frames = [cls((h, w), part) for part in (padded, (h, w))]
        return max(frames, key=lambda frame: frame._fit(masks, logits))

    def _fit(self, masks: BoolArray, logits: FloatArray) -> float:
        """Share of cells whose sign is that of the mask there."""
        rows, columns = (
            ((np.arange(n) + 0.5) * full / n).astype(int)
            for n, full in zip(self.part_hw, masks.shape[-2:], strict=True)
        )
        coarse = masks[..., rows, :][..., columns]  # (..., rows, columns)
        return float((coarse == (self.shown(logits) > 0)).mean())

    def shown(self, logits: FloatArray) -> FloatArray:
        """The part of logits (..., h, w) that shows the image."""
        return logits[..., : self.part_hw[0], : self.part_hw[1]]

    def logits(self, soft: FloatArray, strength: float) -> FloatArray:
        """A mask prompt as logits.

        Parameters
        ----------
        soft : (H, W) float32
            In [0, 1], over the whole image at any resolution; 0.5 becomes 0.
        strength : float
            What 1 becomes; 0 becomes its opposite, and so does the padding.

        Returns
        -------
        (h, w) float32
        """
        from skimage.transform import resize  # slow to import

        out = np.full(self.logits_hw, -strength, np.float32)
        part = resize(soft.astype(np.float32), self.part_hw, order=1, anti_aliasing=True)
        out[: self.part_hw[0], : self.part_hw[1]] = strength * (2 * np.clip(part, 0, 1) - 1)
        return out
