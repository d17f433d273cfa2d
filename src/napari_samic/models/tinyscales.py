"""The packaged small model at two scales: the whole input and the same at half its size.

What fills a third of the picture is seen whole at half size; what is ten pixels wide is seen at
full size. The same encoder and the same decoder answer at both, and a small judge that sees all
eight masks says how good each is. Must not know files, images or how it was trained.

Source: ours; the idea of image pyramids in place of one scale is older than networks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_samic.models.tinydecoder import TinyMaskDecoder, TinyPromptEncoder
from napari_samic.models.tinyencoder import TinyConfig, TinyEncoder

SLOTS = 2 * TinyMaskDecoder.num_mask_tokens
"""Masks for each prompt: one and three at full size, the same at half size."""
ALIKE = 0.8
"""Two masks of a higher IoU are not offered both, if there is another."""


def has_fast_half() -> bool:
    """Whether this processor is made for sixteen-bit products."""
    known: Callable[[], dict[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
    found = known()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def _half(on: bool) -> torch.autocast:
    """Sixteen-bit products on a processor that is made for them; no effect on other devices."""
    return torch.autocast("cpu", torch.bfloat16, enabled=on)


class TwoScaleEncoder(nn.Module):
    """One encoder on both scales; `quick` after `tiny.ready`, where the processor allows.

    `visible` is how many channels of the embedding are a picture of the image at stride 4: those
    of full size. The others hold the half size, four neighbours in four channels.
    """

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.one = TinyEncoder(config)
        self.img_size = config.side_px
        self.visible = config.embed
        self.quick = False

    def encode(self, x: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        """Embedding and taps.

        Parameters
        ----------
        x : (B, 3, S, S) float
            Normalised image; S a multiple of 64.

        Returns
        -------
        embedding : (B, 64 + 16, S/4, S/4)
        taps : three lists of (B, C, h, w)
            At strides 16, 32 and 64: the mean of both scales.
        """
        with _half(self.quick):
            fine, near = self.one.encode(x)
            coarse, wide = self.one.encode(F.avg_pool2d(x, 2))
        taps = [
            [(F.avg_pool2d(a.float(), 2) + b.float()) / 2 for a, b in zip(*level, strict=True)]
            for level in zip(near, wide, strict=True)
        ]
        return torch.cat([fine.float(), F.pixel_shuffle(coarse.float(), 2)], 1), taps

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) to the embedding alone."""
        return self.encode(x)[0]


class TwoScalePromptEncoder(TinyPromptEncoder):
    """Draws prompts for both scales, in 2 x 10 maps; the small ones are blown up to the size."""

    def __init__(self, side_px: int) -> None:
        super().__init__(side_px)
        self.small = TinyPromptEncoder(side_px // 2)

    def forward(
        self, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As `TinyPromptEncoder`; dense: (P, 20, S/4, S/4)."""
        sparse, maps = super().forward(points, boxes, masks)
        if points is not None:
            points = ((points[0].float() + 0.5) / 2 - 0.5, points[1])
        if boxes is not None:
            boxes = (boxes.float() + 0.5) / 2 - 0.5
        if masks is not None:
            masks = F.avg_pool2d(masks.float(), 2)
        small = self.small(points, boxes, masks)[1]
        return sparse, torch.cat([maps, F.interpolate(small, scale_factor=2, mode="nearest")], 1)


class TwoScaleMaskDecoder(nn.Module):
    """One decoder at both scales, and the judge of its eight masks."""

    num_mask_tokens = TinyMaskDecoder.num_mask_tokens
    single_is_first = True
    """The one mask is the first of the three: who asks for three needs not ask for one."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.one = TinyMaskDecoder(config)
        self.split = [config.embed, config.embed // 4]
        last = nn.Linear(64, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.judge = nn.Sequential(
            nn.Linear(self.one.facts + 2 * SLOTS + 12, 128),
            nn.ReLU(True),
            nn.Linear(128, 64),
            nn.ReLU(True),
            last,
        )
        self.quick = False
        self._last: tuple[Tensor, tuple[Tensor, Tensor]] | None = None

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,  # noqa: ARG002 - part of segment-anything's signature
        sparse_prompt_embeddings: Tensor,  # noqa: ARG002
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """The surest mask, or the three surest that differ, surest first.

        Parameters
        ----------
        image_embeddings : (1, 80, h, w)
        dense_prompt_embeddings : (P, 20, h, w)
        multimask_output : bool

        Returns
        -------
        logits : (P, M, h, w)
        scores : (P, M)
            Expected IoU of each mask, in [0, 1].
        """
        maps, small = dense_prompt_embeddings.chunk(2, 1)
        logits, facts, same = self._answered(
            self._looked_at(image_embeddings), maps, small[..., ::2, ::2]
        )
        scores = self.judged(facts)
        chosen = _distinct(scores, same, 3 if multimask_output else 1)  # (P, M)
        rows = torch.arange(len(chosen), device=chosen.device)[:, None]
        return logits[rows, chosen], scores[rows, chosen]

    def all_masks(
        self, fine: Tensor, coarse: Tensor, maps: Tensor, small: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Every mask at both scales.

        Parameters
        ----------
        fine : (1, 64, h, w)
        coarse : (1, 64, h/2, w/2)
        maps : (P, 10, h, w)
        small : (P, 10, h/2, w/2)

        Returns
        -------
        logits : (P, 8, h, w)
        scores : (P, 8)
        same : (P, 8, 8)
            IoU of the masks with one another.
        """
        logits, facts, same = self.described(fine, coarse, maps, small)
        return logits, self.judged(facts), same

    def described(
        self, fine: Tensor, coarse: Tensor, maps: Tensor, small: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `all_masks`, with what the judge goes by in place of scores: (P, 8, F)."""
        return self._answered(self._seen(fine, coarse), maps, small)

    def _seen(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        with _half(self.quick):
            return self.one.from_image(fine), self.one.from_image(coarse)

    def _looked_at(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """What both scales take from an image: the same for all its prompts, so kept for the next.

        Kept only without gradients, for the very tensor, which nobody changes.
        """
        last = self._last
        if last is not None and last[0] is embedding and not torch.is_grad_enabled():
            return last[1]
        fine, packed = torch.split(embedding, self.split, 1)
        seen = self._seen(fine, F.pixel_unshuffle(packed, 2))
        self._last = None if torch.is_grad_enabled() else (embedding, seen)
        return seen

    def _answered(
        self, seen: tuple[Tensor, Tensor], maps: Tensor, small: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        with _half(self.quick):
            first, known = self.one.answered(seen[0], maps)
            second, guessed = self.one.answered(seen[1], small)
        second = F.interpolate(
            second.float(), size=first.shape[-2:], mode="bilinear", align_corners=False
        )
        logits = torch.cat([first.float(), second], 1)  # (P, 8, h, w)
        own = torch.cat([known, guessed], 1).float()  # (P, 8, F')
        plain = self.one.confidence(own)[..., 0]  # (P, 8), before the sigmoid
        same = _overlaps(logits)
        places = torch.eye(SLOTS // 2, device=own.device).repeat(2, 1)  # (8, 4)
        scale = torch.arange(SLOTS, device=own.device)[:, None].ge(SLOTS // 2).float()
        kinds = torch.stack([maps[:, i].amax((-2, -1)) for i in (0, 3, 6, 9)], 1)  # (P, 4)
        extra = [
            _at_points(logits, maps),  # (P, 8, 2)
            torch.cat([scale, places], 1).expand(len(own), -1, -1),  # (P, 8, 5)
            kinds[:, None].expand(-1, SLOTS, -1),
            same,
            torch.sigmoid(plain)[:, None].expand(-1, SLOTS, -1),
            plain[..., None],
        ]
        return logits, torch.cat([own, *extra], -1), same

    def judged(self, facts: Tensor) -> Tensor:
        """Expected IoU, (P, 8) from (P, 8, F): a correction of the plain confidence."""
        return torch.sigmoid(self.judge(facts)[..., 0] + facts[..., -1])


def _overlaps(logits: Tensor) -> Tensor:
    """IoU of masks with one another, (P, M, M) from (P, M, h, w)."""
    hard = (logits > 0).flatten(2).float()
    both = hard @ hard.transpose(1, 2)
    area = hard.sum(-1)
    return both / (area[:, :, None] + area[:, None] - both).clamp(min=1)


def _at_points(logits: Tensor, maps: Tensor) -> Tensor:
    """How full each mask is at the positive and at the negative points, (P, M, 2)."""
    soft = torch.sigmoid(logits).flatten(2)  # (P, M, n)
    discs = maps[:, [0, 3]].flatten(2)  # (P, 2, n)
    return (soft @ discs.transpose(1, 2)) / discs.sum(-1)[:, None].clamp(min=1e-3)


def _distinct(scores: Tensor, same: Tensor, count: int) -> Tensor:
    """Places of the best masks, (P, count); the next differs from those before, if one does."""
    left, chosen = scores.clone(), []
    rows = torch.arange(len(scores), device=scores.device)
    for _ in range(count):
        best = left.argmax(1)
        chosen.append(best)
        left = left - (same[rows, best] > ALIKE).float()
        left[rows, best] = -torch.inf
    return torch.stack(chosen, 1)


def quicken(*parts: TwoScaleEncoder | TwoScaleMaskDecoder) -> None:
    """Let them use sixteen bits where the processor is made for that."""
    for part in parts:
        part.quick = has_fast_half()
