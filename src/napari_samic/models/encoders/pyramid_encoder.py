"""Image to features: a timm network and a top-down neck over it.

The packaged segmenter, the network that is fine-tuned to the references and the prompter's
correlations all stand on it. Must not know prompts, masks or files.

Source: neck as in Lin et al., CVPR 2017 (FPN), with group norm; networks of timm.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval

from napari_samic.models.encoders.timm_encoder import PointwiseConv2d, TimmEncoder


class TopDownNeck(nn.Module):
    """Maps at strides 4, 8, 16 and 32 to one at stride 4, each level added to the finer one.

    Parameters
    ----------
    widths : sequence of int
        Channels of the maps, fine to coarse.
    embed : int
        Channels of the answer.
    """

    def __init__(self, widths: Sequence[int], embed: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList([PointwiseConv2d(w, embed, 1) for w in widths])
        self.even = nn.ModuleList([nn.GroupNorm(8, embed) for _ in widths])
        self.smooth = nn.ModuleList([nn.Conv2d(embed, embed, 3, padding=1) for _ in widths])
        self.norm = nn.ModuleList([nn.GroupNorm(8, embed) for _ in widths])

    def forward(self, ends: Sequence[Tensor], bias: Tensor | None = None) -> Tensor:
        """Maps, fine to coarse, to (B, embed, H / 4, W / 4).

        Parameters
        ----------
        bias : (B, embed), optional
            Added to every cell of the finest level before its ReLU.
        """
        top = self._level(len(ends) - 1, ends[-1], None)
        for i in reversed(range(1, len(ends) - 1)):
            top = self._level(i, ends[i], F.relu(top))
        top = self._level(0, ends[0], F.relu(top))
        return F.relu(top if bias is None else top + bias[..., None, None])

    def _level(self, i: int, x: Tensor, coarser: Tensor | None) -> Tensor:
        y = self.even[i](self.lateral[i](x))
        if coarser is not None:
            y = y + F.interpolate(coarser, size=y.shape[-2:], mode="nearest")
        return torch.as_tensor(self.norm[i](self.smooth[i](y)))


class PyramidEncoder(nn.Module):
    """A timm network with a neck; batch norms, so it must be in eval mode to answer.

    `img_size` is what `segment_anything` asks for: the side of the square input in pixels.

    Parameters
    ----------
    name : str
        As timm has it.
    embed : int
        Channels of the embedding.
    side_px : int
    """

    def __init__(self, name: str, embed: int, side_px: int) -> None:
        super().__init__()
        self.img_size = side_px
        self.backbone = TimmEncoder(name)
        self.neck = TopDownNeck(self.backbone.widths, embed)
        self.quick = False

    def encode(self, x: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        """Embedding and taps in one pass.

        Parameters
        ----------
        x : (B, 3, h, w) float
            Scaled as the network takes it; sides multiples of 32.

        Returns
        -------
        embedding : (B, embed, h / 4, w / 4)
        taps : three lists of (B, C, h, w)
            Block outputs before their last activation at strides 8, 16 and 32.
        """
        with bfloat16_autocast(x.device, on=self.quick):
            maps = self.backbone.blocks(x)
            size = (int(x.shape[-2]), int(x.shape[-1]))
            return self.neck(self.backbone.ends(maps, size)), self.backbone.levels(maps, size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) to the (B, embed, h / 4, w / 4) embedding."""
        return self.encode(x)[0]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether a device is made for sixteen-bit products."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return device.type == "cpu" and bool(fast)


def bfloat16_autocast(device: torch.device, *, on: bool = True) -> torch.autocast:
    """Sixteen-bit products, if wanted, on a device that is made for them.

    None in a network that is traced: the engine that will compute it chooses its bits itself.
    """
    is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    enabled = on and not is_traced and has_fast_bfloat16(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def fuse_batch_norms(encoder: nn.Module) -> nn.Module:
    """Copy with the batch norms inside the convolutions: same answers, faster, not to be trained.

    A norm is folded into the convolution that is registered just before it.
    """
    encoder = copy.deepcopy(encoder).eval()
    for parent in encoder.modules():
        children = [(k, m) for k, m in parent.named_children() if not isinstance(m, nn.Identity)]
        for (name, first), (after, second) in pairwise(children):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(first, second))
                setattr(parent, after, getattr(second, "act", nn.Identity()))
    return encoder
