"""MobileSAM's image encoder, for inference: timm's TinyViT-5M at 1024 pixels, and SAM's neck.

MobileSAM drops TinyViT's last halving, so that the embedding has a stride of 16. Must not know
prompts, masks or files.

Source: Wu et al., TinyViT, ECCV 2022; Zhang et al., Faster Segment Anything (MobileSAM), 2023.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from napari_samic.models.encoders import timm_encoder
from napari_samic.models.hub.checkpoints import State

NAME = "tiny_vit_5m_224"
_UNUSED = re.compile(r"image_encoder\.(norm_head|head)\.|.*\.attention_bias_idxs$")
_NAMES = (
    (r"\.patch_embed\.seq\.0\.", ".patch_embed.conv1."),
    (r"\.patch_embed\.seq\.2\.", ".patch_embed.conv2."),
    (r"\.layers\.(\d)\.downsample\.", lambda m: f".stages.{int(m[1]) + 1}.downsample."),
    (r"\.layers\.", ".stages."),
    (r"(conv\d?)\.c\.", r"\1.conv."),
    (r"^image_encoder\.(?!neck)", "image_encoder.network."),
)


def renamed(state: State) -> State:
    """Official names to timm's; the ImageNet classifier and stored index tables are left out."""
    out = {}
    for key, value in state.items():
        if _UNUSED.match(key):
            continue
        if key.startswith("image_encoder."):
            for old, new in _NAMES:
                key = re.sub(old, new, key)
        out[key] = value
    return out


class TinyViT(nn.Module):
    """The encoder.

    Parameters
    ----------
    img_size : int
        Side of the square input in pixels; a multiple of 16.
    """

    def __init__(self, img_size: int = 1024) -> None:
        super().__init__()
        from segment_anything.modeling.common import LayerNorm2d

        self.img_size = img_size
        self.network = timm_encoder.create(NAME)
        self.network.head = nn.Identity()
        stages: Any = self.network.stages
        stages[-1].downsample.conv2.conv.stride = (1, 1)
        width = int(self.network.num_features)  # type: ignore[arg-type]
        self.neck = nn.Sequential(
            nn.Conv2d(width, 256, 1, bias=False),
            LayerNorm2d(256),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            LayerNorm2d(256),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        """Embedding and block outputs in one pass.

        Parameters
        ----------
        x : (B, 3, S, S) float
            Normalized image.

        Returns
        -------
        embedding : (B, 256, S/16, S/16)
        taps : three lists of (B, C, h, w)
            Blocks of the attention stages, at strides 8, 16 and 16: 2, the last 3 of 6, and 2.
        """
        stages: Any = self.network.stages
        taps = [list(stage.blocks)[-3:] for stage in stages[1:]]
        blocks = [block for level in taps for block in level]
        x, maps = timm_encoder.run(self.network, blocks, x)
        left = iter(t.permute(0, 3, 1, 2) for t in maps)  # (B, h, w, C) to (B, C, h, w)
        return torch.as_tensor(self.neck(x)), [[next(left) for _ in level] for level in taps]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) to the (B, 256, S/16, S/16) embedding."""
        return self.encode(x)[0]
