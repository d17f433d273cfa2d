"""Weights files to networks of segment-anything's kind: ViT-B, L and H, and MobileSAM.

The networks are segment-anything's own parts; only MobileSAM's encoder is timm's (`tiny_vit`). They
are made on torch's meta device and take the file's tensors as they are, so building a ViT-H needs
its size in memory once. Must not know where files come from.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_samic.core.errors import FormatError
from napari_samic.models.hub import checkpoints
from napari_samic.models.hub.checkpoints import State

PATCH = 16
EMBED = 256
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
VIT = {
    "vit_b": (768, 12, 12, (2, 5, 8, 11)),
    "vit_l": (1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": (1280, 32, 16, (7, 15, 23, 31)),
}
"""Width, depth, heads, blocks with global attention."""


def vit_b(path: Path) -> Any:
    """Build SAM ViT-B (or MedSAM, which is one) from its file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    segment_anything.modeling.Sam
        In eval mode, on the CPU, without gradients.

    Raises
    ------
    FormatError
        Truncated, holds code, or is another network.

    References
    ----------
    Kirillov et al., Segment Anything, ICCV 2023.
    """
    return _build(path, "vit_b")


def vit_l(path: Path) -> Any:
    """Build SAM ViT-L; see `vit_b`."""
    return _build(path, "vit_l")


def vit_h(path: Path) -> Any:
    """Build SAM ViT-H; see `vit_b`."""
    return _build(path, "vit_h")


def mobile_sam(path: Path) -> Any:
    """Build MobileSAM; see `vit_b`.

    References
    ----------
    Zhang et al., Faster Segment Anything, 2023, arXiv:2306.14289.
    """
    return _build(path, "mobile_sam")


def from_file(path: Path) -> Any:
    """Build whatever SAM the file holds, told from its keys and shapes; see `vit_b`."""
    return _build(path, None)


def _build(path: Path, wanted: str | None) -> Any:
    content = checkpoints.read(path)
    arch = checkpoints.guess_arch(content, path.name)
    if wanted is not None and arch != wanted:
        raise FormatError(f"{path.name}: holds {arch}, expected {wanted}. Import it as {arch}.")
    if arch == "tiny":
        from napari_samic.models.tiny import model

        return model.optimize_for_inference(model.unpack(content, path.name))
    if arch not in (*VIT, "mobile_sam"):
        raise FormatError(f"{path.name}: holds {arch}, which is no segmenter.")
    return assemble(arch, checkpoints.state_dict(content, path.name), path.name)


def assemble(arch: str, state: State, name: str) -> Any:
    """Make a Sam of `arch` that holds `state`.

    Parameters
    ----------
    arch : str
        "vit_b", "vit_l", "vit_h" or "mobile_sam".
    state : dict of str to Tensor
        With segment-anything's or MobileSAM's key names.
    name : str
        Of the file, for messages.

    Returns
    -------
    segment_anything.modeling.Sam

    Raises
    ------
    FormatError
        Keys or shapes that do not fit.
    """
    from segment_anything.modeling import Sam

    if arch in VIT:
        side_px = _side(state)
        with torch.device("meta"):
            encoder = _vit(arch, side_px)
    else:
        from napari_samic.models.sam import tiny_vit

        side_px, encoder, state = 1024, tiny_vit.TinyViT(), tiny_vit.renamed(state)
    with torch.device("meta"):
        sam = Sam(encoder, *_decoding_side(side_px))
    sam.pixel_mean = torch.tensor(MEAN).view(-1, 1, 1)
    sam.pixel_std = torch.tensor(STD).view(-1, 1, 1)
    checkpoints.load_weights(sam, state, name)
    return sam.eval()


def _side(state: State) -> int:
    """Side of the input in pixels, from the position embedding."""
    position = state.get("image_encoder.pos_embed")
    return 1024 if position is None or position.ndim != 4 else int(position.shape[1]) * PATCH


def _vit(arch: str, side_px: int) -> nn.Module:
    from segment_anything.modeling import ImageEncoderViT

    width, depth, heads, global_blocks = VIT[arch]
    return ImageEncoderViT(  # type: ignore[no-any-return]
        depth=depth,
        embed_dim=width,
        img_size=side_px,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_heads=heads,
        patch_size=PATCH,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=global_blocks,
        window_size=14,
        out_chans=EMBED,
    )


def _decoding_side(side_px: int) -> tuple[nn.Module, nn.Module]:
    """SAM's prompt encoder and mask decoder, as all official checkpoints have them."""
    from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer

    grid = (side_px // PATCH, side_px // PATCH)
    prompts = PromptEncoder(
        embed_dim=EMBED,
        image_embedding_size=grid,
        input_image_size=(side_px, side_px),
        mask_in_chans=16,
    )
    transformer = TwoWayTransformer(depth=2, embedding_dim=EMBED, mlp_dim=2048, num_heads=8)
    masks = MaskDecoder(
        num_multimask_outputs=3,
        transformer=transformer,
        transformer_dim=EMBED,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )
    return prompts, masks
