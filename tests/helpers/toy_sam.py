"""A small random Sam of segment-anything's own parts, and what tests of it share."""

from functools import partial

import numpy as np
import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import nn

from napari_samic.core.types import Prompts


def random_sam(side=64, depth=4):
    torch.manual_seed(0)
    grid = (side // 16, side // 16)
    encoder = ImageEncoderViT(
        img_size=side, embed_dim=48, depth=depth, num_heads=4, out_chans=256, use_rel_pos=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6), window_size=2, global_attn_indexes=(1, 3),
    )  # fmt: skip
    decoder = MaskDecoder(
        transformer_dim=256,
        transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=64, num_heads=8),
    )
    network = Sam(encoder, PromptEncoder(256, grid, (side, side), 16), decoder)
    nn.init.normal_(encoder.pos_embed, std=0.5)
    return network.eval().requires_grad_(False)


def vit_b(side_px=1024, depth=12, global_blocks=(2, 5, 8, 11)):
    """SAM ViT-B with random weights, of segment-anything's parts: encoder, prompts, masks."""
    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        img_size=side_px, embed_dim=768, depth=depth, num_heads=12, out_chans=256,
        patch_size=16, mlp_ratio=4, qkv_bias=True, use_rel_pos=True, window_size=14,
        norm_layer=partial(nn.LayerNorm, eps=1e-6), global_attn_indexes=global_blocks,
    )  # fmt: skip
    return encoder, *prompts_and_masks(side_px)


def prompts_and_masks(side_px=1024):
    """Prompt encoder and mask decoder as all official checkpoints have them."""
    grid = (side_px // 16, side_px // 16)
    prompts = PromptEncoder(256, grid, (side_px, side_px), 16)
    masks = MaskDecoder(
        transformer_dim=256, iou_head_depth=3, iou_head_hidden_dim=256, num_multimask_outputs=3,
        transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
    )  # fmt: skip
    return prompts, masks


def official_state(encoder, prompts, masks):
    """State dict under the names of the official checkpoints."""
    parts = {"image_encoder": encoder, "prompt_encoder": prompts, "mask_decoder": masks}
    return {
        f"{name}.{key}": value
        for name, part in parts.items()
        for key, value in part.state_dict().items()
    }


def picture(shape=(48, 70), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def point(row, column, *more, label=1):
    rows = np.array([(row, column), *[m[:2] for m in more]], float)
    return Prompts(rows, np.array([True, *[m[2] for m in more]]), label=label)


def box(*corners, label=1):
    return Prompts(np.zeros((0, 2)), np.zeros(0, bool), np.array(corners, float), label=label)


def assert_same(candidates, masks, scores, logits):
    np.testing.assert_allclose(candidates.logits, logits, atol=1e-5)
    np.testing.assert_allclose(candidates.scores, np.clip(scores, 0, 1), atol=1e-5)
    assert candidates.masks.shape == masks.shape
    assert (candidates.masks != masks).mean() < 1e-3


class Counting:
    """Counts passes of an encoder."""

    def __init__(self, network):
        self.passes = 0
        network.image_encoder.register_forward_hook(self._count)

    def _count(self, *_):
        self.passes += 1


class FullMemory:
    """A decoder that can't take more than `limit` prompts while `full` is true."""

    def __init__(self, network, limit):
        self.limit, self.batches = limit, []
        self.inner = network.mask_decoder.forward
        self.full = lambda: True
        network.mask_decoder.forward = self

    def __call__(self, **inputs):
        n = inputs["sparse_prompt_embeddings"].shape[0]
        self.batches.append(n)
        if n > self.limit and self.full():
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return self.inner(**inputs)
