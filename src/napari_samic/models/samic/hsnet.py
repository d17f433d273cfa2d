"""The network that learns from correlations: squeeze, mix and decode.

Sources: HSNet (Min et al., ICCV 2021), sections 4.2-4.3, and SAMIC, section 3.3. Written from the
papers; the names of the parameters are HSNet's, so its checkpoints load. Its parts are in
`hypercorrelation` (features to pyramid) and `conv4d` (the 4-D convolution); it knows no image.

Every 6-D tensor is (B, C, ha, wa, hb, wb), target grid (a) and reference grid (b), and is stored
channels-last, as (B, ha, wa, hb, wb, C).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_samic.core.errors import InputError
from napari_samic.models.samic.conv4d import CenterPivotConv4d
from napari_samic.models.samic.hypercorrelation import (
    NormalizedFeatures,
    correlate,
    prepare_reference,
    prepare_target,
)

__all__ = [
    "CenterPivotConv4d",
    "HyperCorrelationLearner",
    "NormalizedFeatures",
    "correlate",
    "prepare_reference",
    "prepare_target",
]

LAYERS = {
    1: (((3, 2),), ((5, 4),), ((5, 8),)),
    2: (((3, 2), (3, 2)), ((5, 4), (3, 2)), ((5, 4), (5, 4))),
    3: (((3, 2), (3, 2), (3, 2)), ((5, 4), (3, 2), (3, 2)), ((5, 4), (5, 4), (3, 2))),
    4: (((3, 2),) * 4, ((5, 4), (3, 2), (3, 2), (3, 2)), ((5, 4), (5, 4), (3, 2), (3, 2))),
}
"""By number of layers: (kernel, support stride) of each squeezing layer of l4, l3, l2.

The strides of l3 and l2 multiply to two and four times those of l4, so that grids which double from
level to level end alike. HSNet's are those of 3; the others are ours: 2 leaves the last ones out, 4
has one more. The stride of 8 is wider than its kernel, so `conv2` sees 5 of 8 rows and columns.
"""
WIDTHS = {1: (128,), 2: (64, 128), 3: (16, 64, 128), 4: (16, 64, 128, 128)}
MIXING = (3, 1)


class _GroupNormReLU(nn.GroupNorm):
    """GroupNorm and ReLU of a 6-D tensor; a 4-D view keeps PyTorch's channels-last kernel.

    The ReLU is in place on that flat tensor: in place on the 6-D view, autograd would copy it.
    """

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(4).flatten(2, 3)  # (B, C, ha * wa, hb * wb)
        return F.relu(super().forward(flat), inplace=True).reshape(x.shape)


def _block(widths: Sequence[int], layers: Sequence[tuple[int, int]]) -> nn.Sequential:
    """Center pivot, GroupNorm(4) with ReLU, nothing; named 0, 1, 2 | 3, 4, 5 | ... as in HSNet."""
    parts: list[nn.Module] = []
    for (c_in, c_out), (kernel, stride) in zip(pairwise(widths), layers, strict=True):
        pivot = CenterPivotConv4d(c_in, c_out, kernel, stride)
        parts += [pivot, _GroupNormReLU(4, c_out), nn.Identity()]
    return nn.Sequential(*parts)


def _resized_target(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bilinear over (a) at every support cell: (B, C, ha, wa, hb, wb) to grid (a) of `grid`."""
    if x.shape[2:4] == grid:
        return x
    b, c, ha, wa, hb, wb = x.shape
    flat = x.permute(0, 4, 5, 1, 2, 3).reshape(b, hb * wb * c, ha, wa)  # a view: stored last
    y = F.interpolate(flat, grid, mode="bilinear", align_corners=True).movedim(1, -1)
    return torch.unflatten(y, -1, (hb, wb, c)).movedim(-1, 1)


def _squeezed(shape: Sequence[int], layers: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Support grid that remains of `shape` (hb, wb)."""
    h, w = shape
    for _, stride in layers:
        h, w = -(-h // stride), -(-w // stride)
    return h, w


class HyperCorrelationLearner(nn.Module):
    """From a pyramid of correlations to a map of the target.

    Grids may change from call to call and need not be square. 2,573,794 parameters for (3, 6, 4)
    and 3 layers.

    Parameters
    ----------
    inch : tuple of 3 int
        Blocks of each level in pyramid order: l4, l3, l2. (3, 6, 4) is ResNet-50.
    layers : int
        Center-pivot convolutions in each squeezing and in each mixing block, 1 to 4. With fewer
        the support grids end larger: 8 x 8 of l4 as 4, 2, 1 and 1 to a side.

    Raises
    ------
    InputError
        Another number of layers.

    References
    ----------
    HSNet, section 4.2; SAMIC, section 3.3, and its ablation of the layers.
    """

    def __init__(self, inch: tuple[int, int, int] = (3, 6, 4), layers: int = 3) -> None:
        super().__init__()
        if layers not in LAYERS:
            raise InputError(f"{layers} layers, expected 1 to {max(LAYERS)}.")
        self.inch, self.layers = inch, layers
        self.encoder_layer4, self.encoder_layer3, self.encoder_layer2 = (
            _block((blocks, *WIDTHS[layers]), squeezing)
            for blocks, squeezing in zip(inch, LAYERS[layers], strict=True)
        )
        self.encoder_layer4to3 = _block((128,) * (layers + 1), (MIXING,) * layers)
        self.encoder_layer3to2 = _block((128,) * (layers + 1), (MIXING,) * layers)
        self.decoder1 = nn.Sequential(
            nn.Conv2d(128, 128, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(128, 64, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.decoder2 = nn.Sequential(
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(64, 2, 3, padding=1)
        )

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Logits of background and foreground.

        Parameters
        ----------
        pyramid : three of (B, L, ha, wa, hb, wb) float
            l4, l3, l2, as `correlate` returns them.

        Returns
        -------
        (B, 2, 2 * ha, 2 * wa) float
            ha, wa of l2.

        Raises
        ------
        InputError
            Levels, channels or batches that don't fit, or support grids that don't end alike.
        """
        self._check(pyramid)
        l4, l3, l2 = pyramid
        x4 = self.encoder_layer4(l4)  # (B, 128, ha4, wa4, hb, wb)
        x3 = self.encoder_layer3(l3)  # (B, 128, ha3, wa3, hb, wb)
        x2 = self.encoder_layer2(l2)  # (B, 128, ha2, wa2, hb, wb)
        x = self.encoder_layer4to3(_resized_target(x4, x3.shape[2:4]) + x3)
        x = self.encoder_layer3to2(_resized_target(x, x2.shape[2:4]) + x2)
        x = self.decoder1(x.mean((4, 5)))  # (B, 64, ha2, wa2)
        size = (2 * x.shape[2], 2 * x.shape[3])
        x = F.interpolate(x, size, mode="bilinear", align_corners=True)
        return self.decoder2(x)  # type: ignore[no-any-return]  # (B, 2, 2 * ha2, 2 * wa2)

    def predict(self, pyramid: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Probability of the foreground: logits upsampled, then softmax. Keeps gradients.

        Parameters
        ----------
        pyramid : three of (B, L, ha, wa, hb, wb) float
        size : (H, W)
            Of the map, in pixels.

        Returns
        -------
        (B, H, W) float
            In [0, 1].

        Raises
        ------
        InputError
            As `forward`.
        """
        logits = self(pyramid)
        margin = logits[:, 1:] - logits[:, :1]  # softmax of two is the sigmoid of their difference
        margin = F.interpolate(margin, size, mode="bilinear", align_corners=True)
        return torch.sigmoid(margin[:, 0])

    def _check(self, pyramid: Sequence[Tensor]) -> None:
        shapes = [tuple(level.shape) for level in pyramid]
        fits = (
            len(shapes) == 3
            and all(len(s) == 6 and s[1] == c for s, c in zip(shapes, self.inch, strict=True))
            and len({s[0] for s in shapes}) == 1
        )
        if not fits:
            msg = (
                f"pyramid of {shapes}, expected l4, l3, l2 of (B, L, ha, wa, hb, wb) with "
                f"L = {self.inch} and one B."
            )
            raise InputError(msg)
        table = LAYERS[self.layers]
        ends = [_squeezed(s[4:], squeezing) for s, squeezing in zip(shapes, table, strict=True)]
        if len(set(ends)) != 1:
            msg = (
                f"support grids {[s[4:] for s in shapes]} of l4, l3, l2 shrink to {ends}: they "
                "must end alike, as 7, 14, 28 do."
            )
            raise InputError(msg)
