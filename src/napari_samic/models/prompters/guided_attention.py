"""PerSAM's guidance inside SAM's two-way transformer: where to look, and what for.

Token-to-image attention is drawn to the cells that look like the target, and the target's feature
is added to the tokens. Only for decoders with segment-anything's `TwoWayTransformer`; the packaged
model's decoder is dense and has no attention to guide. The network itself is left as it is: the
guided parts are put into a shallow copy. Must not know where likeness comes from.

Source: Zhang et al., Personalize Segment Anything Model with One Shot, ICLR 2024.
"""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import torch
from segment_anything.modeling.transformer import TwoWayTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from napari_samic.core.types import Candidates, Image, Prompts
from napari_samic.models.sam import decoding
from napari_samic.models.sam.decoding import PromptQuery


def can_guide(segmenter: Any) -> bool:
    """Whether a segmenter decodes with a two-way transformer of segment-anything."""
    engine = getattr(segmenter, "engine", None)
    decoder = getattr(getattr(engine, "network", None), "mask_decoder", None)
    return isinstance(getattr(decoder, "transformer", None), TwoWayTransformer)


def candidates(
    segmenter: Any, image: Image, prompts: Prompts, likeness: Tensor, target: Tensor
) -> Candidates:
    """One mask for one object, with guidance.

    Parameters
    ----------
    segmenter : SamSegmenter
        One that `can_guide`.
    image : (H, W, 3) uint8
    prompts : Prompts
    likeness : (h, w) float Tensor
        Of the embedding's cells to the target, without the padding.
    target : (D,) float Tensor
        The target's feature.
    """
    engine = segmenter.engine
    network, encoded = engine.network, engine.encode_image(image)
    bias = attention_bias(likeness, encoded.embedding.shape[-2:]).to(encoded.embedding.device)
    parts = SimpleNamespace(
        prompt_encoder=network.prompt_encoder,
        mask_decoder=_with_children(
            network.mask_decoder,
            transformer=GuidedTransformer(
                network.mask_decoder.transformer, bias, target.to(bias.device)
            ),
        ),
    )
    with engine.lock:
        with torch.inference_mode():
            logits, scores = decoding.decode(
                parts, encoded, [PromptQuery(0, prompts)], multimask=False
            )
        low, sure = logits[0].cpu(), scores[0].clamp(0, 1).cpu()
        return Candidates(engine.to_image(low, encoded), sure.numpy(), low.numpy())


def attention_bias(likeness: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Sigmoid of the standardized likeness, (1, 1, 1, N) over the padded grid; 0 in the padding."""
    spread = likeness.std().clamp(min=1e-6)
    values = torch.sigmoid((likeness - likeness.mean()) / spread)  # (h, w)
    missing = [int(g) - n for g, n in zip(grid, values.shape, strict=True)]
    return F.pad(values, (0, missing[1], 0, missing[0])).reshape(1, 1, 1, -1)


class GuidedTransformer(nn.Module):
    """A two-way transformer with PerSAM's two additions; shares all weights with `inner`.

    Parameters
    ----------
    inner : TwoWayTransformer
    bias : (1, 1, 1, N) Tensor or None
        Added to the attention weights of each layer's tokens to the image, then softmax once more.
    target : (D,) Tensor or None
        Added to the tokens before each layer, and to the queries of the last attention.
    """

    def __init__(self, inner: Any, bias: Tensor | None, target: Tensor | None) -> None:
        super().__init__()
        self.inner = inner
        self.target = target
        self.layers = [
            layer
            if bias is None
            else _with_children(
                layer,
                cross_attn_token_to_image=GuidedAttention(layer.cross_attn_token_to_image, bias),
            )
            for layer in inner.layers
        ]

    def forward(
        self, image_embedding: Tensor, image_pe: Tensor, point_embedding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `TwoWayTransformer.forward`: tokens (B, T, D) and image (B, N, D)."""
        keys = image_embedding.flatten(2).permute(0, 2, 1)  # (B, N, D)
        key_pe = image_pe.flatten(2).permute(0, 2, 1)
        extra = 0 if self.target is None else self.target
        tokens = point_embedding + extra  # PerSAM adds in place: the tokens' own code has it too
        queries = tokens
        for i, layer in enumerate(self.layers):
            start = queries if i == 0 else queries + extra
            queries, keys = layer(queries=start, keys=keys, query_pe=tokens, key_pe=key_pe)
        attended = self.inner.final_attn_token_to_image(
            q=queries + tokens + extra, k=keys + key_pe, v=keys
        )
        return self.inner.norm_final_attn(queries + attended), keys


class GuidedAttention(nn.Module):
    """Attention of segment-anything with weights softmax(softmax(QK / sqrt d) + bias)."""

    def __init__(self, inner: Any, bias: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.bias = bias

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, T, D) queries, (B, N, D) keys and values to (B, T, D)."""
        part = self.inner
        heads = [
            part._separate_heads(project(x), part.num_heads)
            for project, x in ((part.q_proj, q), (part.k_proj, k), (part.v_proj, v))
        ]  # each (B, heads, T or N, d)
        weights = heads[0] @ heads[1].transpose(-2, -1) / math.sqrt(heads[0].shape[-1])
        weights = torch.softmax(torch.softmax(weights, -1) + self.bias, -1)  # (B, heads, T, N)
        answer: Tensor = part.out_proj(part._recombine_heads(weights @ heads[2]))
        return answer


def _with_children(module: Any, **children: nn.Module) -> Any:
    """The same module with other children; the original keeps its own."""
    module_copy = copy.copy(module)
    module_copy._modules = {**module._modules, **children}
    return module_copy
