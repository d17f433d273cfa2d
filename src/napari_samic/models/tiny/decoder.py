"""Prompts to masks: prompt encoder and mask decoder of the packaged small model.

The decoder is dense: prompts are drawn as maps beside the embedding and a small U-Net answers.
(SAM's two-way transformer learned nothing in the same time: 0.12 against 0.40 mIoU after 4,800
samples.) Must not know files, images or the encoder.

Source: architecture ours; interface of Kirillov et al., Segment Anything, 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_samic.core.errors import PromptError
from napari_samic.models.encoders.pyramid_encoder import bfloat16_autocast

STRIDE = 4
PROMPT_MAPS = 10
DISC_PX, NEAR_PX, FAR_PX = 4.1, 15.4, 64.0
"""Widths of a point's three maps in pixels of the input, whatever its side."""
LEAST, STEP, MOST = 48, 8, 0.75
"""Sides of crops around boxes: at least, in steps of, in cells; at most, as a share of the map.

On two sets of nuclei Dice fell by 0.003 against the whole map, object F1 stayed, and an image took
half the time or less. With a least of 32 and three times the box Dice fell by 0.003 to 0.005.
"""
OUTSIDE = -12.0
"""Logits of what was not looked at."""
ALIKE = 0.8
"""Two masks of a higher IoU are not offered both, if there is another."""


class TinyPromptEncoder(nn.Module):
    """The prompt encoder: points, boxes and mask prompts to maps at stride 4; has no weights.

    Same call and same outputs as segment-anything's: sparse (empty here) and dense embeddings.
    """

    def __init__(self, side_px: int) -> None:
        super().__init__()
        self.embed_dim = PROMPT_MAPS
        self.input_image_size = (side_px, side_px)
        self.image_embedding_size = (side_px // STRIDE, side_px // STRIDE)
        self.mask_input_size = self.image_embedding_size
        self.register_buffer("_anchor", torch.zeros(1), persistent=False)

    def get_dense_pe(self) -> Tensor:
        """Position encoding: none is needed, the maps carry positions. (1, 0, h, w)."""
        return self._anchor.new_zeros((1, 0, *self.image_embedding_size))  # type: ignore[operator]

    def forward(
        self,
        points: tuple[Tensor, Tensor] | None,
        boxes: Tensor | None,
        masks: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Draw P prompts.

        Parameters
        ----------
        points : ((P, N, 2) x and y in input pixels, (P, N) 1 positive, 0 negative, -1 nothing)
        boxes : (P, 4) or (P, 1, 4)
            x0, y0, x1, y1 in input pixels.
        masks : (P, 1, S/4, S/4)
            Logits of an earlier answer.

        Returns
        -------
        sparse : (P, 0, 10)
        dense : (P, 10, S/4, S/4)
        """
        given = [t for t in (points[0] if points else None, boxes, masks) if t is not None]
        if not given:
            raise PromptError("no points, no boxes and no mask: nothing to encode.")
        prompts, device = given[0].shape[0], given[0].device
        height, width = self.image_embedding_size
        ys = (torch.arange(height, device=device) + 0.5) * STRIDE - 0.5
        xs = (torch.arange(width, device=device) + 0.5) * STRIDE - 0.5
        maps = torch.zeros((prompts, PROMPT_MAPS, height, width), device=device)
        if points is not None and points[0].shape[1]:
            self._draw_points(maps, points[0].float(), points[1], ys, xs)
        if boxes is not None:
            self._draw_boxes(maps, boxes.reshape(prompts, 4).float(), ys, xs)
        if masks is not None:
            maps[:, 8] = torch.tanh(masks[:, 0].float() / 4)
            maps[:, 9] = 1.0
        return maps.new_zeros((prompts, 0, PROMPT_MAPS)), maps

    def _draw_points(self, maps: Tensor, xy: Tensor, sign: Tensor, ys: Tensor, xs: Tensor) -> None:
        dx = xs[None, None, None, :] - xy[..., 0, None, None]
        dy = ys[None, None, :, None] - xy[..., 1, None, None]
        square = dx**2 + dy**2  # (P, N, h, w)
        for channel, value in ((0, 1), (3, 0)):
            off = torch.where(sign == value, 0.0, 1e9)[..., None, None]
            nearest = (square + off).amin(1).clamp(max=1e8)  # (P, h, w)
            maps[:, channel] = torch.exp(-nearest / (2 * DISC_PX**2))
            maps[:, channel + 1] = torch.exp(-nearest.sqrt() / NEAR_PX)
            maps[:, channel + 2] = torch.exp(-nearest.sqrt() / FAR_PX)

    def _draw_boxes(self, maps: Tensor, boxes: Tensor, ys: Tensor, xs: Tensor) -> None:
        x0, y0, x1, y1 = (boxes[:, i, None, None] for i in range(4))
        grid_x, grid_y = xs[None, None, :], ys[None, :, None]
        inside = torch.minimum(
            torch.minimum(grid_x - x0, x1 - grid_x), torch.minimum(grid_y - y0, y1 - grid_y)
        )  # (P, h, w): pixels to the nearest side, negative outside
        size = torch.minimum(x1 - x0, y1 - y0).clamp(min=1.0)
        maps[:, 6] = torch.sigmoid(inside / 2)
        maps[:, 7] = torch.clamp(2 * inside / size, -1, 1)


class _Block(nn.Module):
    """Two 3x3 convolutions with group norm and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(8, width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(8, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class TinyMaskDecoder(nn.Module):
    """The mask decoder: a U-Net over embedding and prompt maps answers masks with their scores.

    It gives one mask, and three more for an ambiguous prompt.

    What is offered is the surest of these four. Group norm throughout: box and point prompts differ
    in their statistics; batch norm broke on it.

    Parameters
    ----------
    embed : int
        Channels of the embedding.
    widths : (int, int, int, int)
        Channels at strides 4, 8, 16 and 32.
    """

    num_mask_tokens = 4
    single_is_first = True
    """The one mask is the first of the three: who asks for three needs not ask for one."""

    def __init__(self, embed: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        w0, w1, w2, w3 = widths
        self.from_image = nn.Conv2d(embed, w0, 3, padding=1)
        self.from_prompt = nn.Conv2d(PROMPT_MAPS, w0, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(8, w0)
        self.down = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(a, b, 3, 2, 1, bias=False),
                    nn.GroupNorm(8, b),
                    nn.ReLU(True),
                    _Block(b),
                )
                for a, b in ((w0, w1), (w1, w2), (w2, w3))
            ]
        )
        self.context = nn.Sequential(nn.Linear(w3, w3), nn.ReLU(True), nn.Linear(w3, w3))
        self.narrow = nn.ModuleList([nn.Conv2d(a, b, 1) for a, b in ((w3, w2), (w2, w1), (w1, w0))])
        self.up = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(w, w, 3, padding=1, bias=False), nn.GroupNorm(8, w), nn.ReLU(True)
                )
                for w in (w2, w1, w0)
            ]
        )
        self.head = nn.Conv2d(w0, self.num_mask_tokens, 1)
        facts = 2 * w1 + w3 + 11 + 2 * self.num_mask_tokens
        self.confidence = nn.Sequential(
            nn.Linear(facts, 128),
            nn.ReLU(True),
            nn.Linear(128, 64),
            nn.ReLU(True),
            nn.Linear(64, 1),
        )
        self.quick = False
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,  # noqa: ARG002 - part of segment-anything's signature
        sparse_prompt_embeddings: Tensor,  # noqa: ARG002
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """The surest mask, or the three surest that differ, surest first.

        Of objects with a small box it looks at their surroundings alone (see `crops_around_boxes`),
        unless gradients are wanted: many nuclei take half the time.

        Parameters
        ----------
        image_embeddings : (1, 64, h, w)
        dense_prompt_embeddings : (P, 10, h, w)
        multimask_output : bool

        Returns
        -------
        logits : (P, M, h, w)
        scores : (P, M)
            Expected IoU of each mask, in [0, 1].
        """
        image, maps = self._image_features(image_embeddings), dense_prompt_embeddings
        crops = [] if torch.is_grad_enabled() else crops_around_boxes(maps[:, 6])
        if crops:
            near, scores = self._decode(
                torch.cat([image[..., *crop] for crop in crops]),
                torch.stack([m[:, *crop] for m, crop in zip(maps, crops, strict=True)]),
                whole=maps.shape[-2:].numel(),
            )
            logits = near.new_full((*near.shape[:2], *maps.shape[-2:]), OUTSIDE)
            for part, own, crop in zip(logits, near, crops, strict=True):
                part[:, *crop] = own
        else:
            logits, scores = self._decode(image, maps)
        chosen = _distinct(scores, _overlaps(logits), 3 if multimask_output else 1)  # (P, M)
        rows = torch.arange(len(chosen), device=chosen.device)[:, None]
        return logits[rows, chosen], scores[rows, chosen]

    def all_masks(
        self, embedding: Tensor, maps: Tensor, owners: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """All four masks of P prompts, and their confidences.

        Parameters
        ----------
        embedding : (1, P or B, 64, h, w)
        maps : (P, 10, h, w)
        owners : (P,) int64, optional
            Which of B images each prompt is on.

        Returns
        -------
        logits : (P, 4, h, w)
        scores : (P, 4)
        """
        image = self.from_image(embedding)
        return self._decode(image if owners is None else image[owners], maps)

    def _image_features(self, embedding: Tensor) -> Tensor:
        """What is taken from an image: the same for all its prompts, so kept for the next.

        Kept only without gradients, for the very tensor, which nobody changes.
        """
        last = self._last
        if last is not None and last[0] is embedding and not torch.is_grad_enabled():
            return last[1]
        with bfloat16_autocast(embedding.device, on=self.quick):
            features: Tensor = self.from_image(embedding)
        self._last = None if torch.is_grad_enabled() else (embedding, features)
        return features

    def _decode(
        self, image: Tensor, maps: Tensor, *, whole: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `all_masks`, from (1 or P, w0, h, w); `whole`: cells of what these are crops of."""
        with bfloat16_autocast(image.device, on=self.quick):
            x = F.relu(self.norm(image + self.from_prompt(maps)))
            skips = [x]
            for down in self.down:
                x = down(x)
                skips.append(x)
            bottom = self.context(x.mean((-2, -1)))  # (P, w3)
            x = F.relu(skips.pop() + bottom[..., None, None])
            for narrow, up in zip(self.narrow, self.up, strict=True):
                skip = skips.pop()
                size = skip.shape[-2:]
                x = F.interpolate(narrow(x), size=size, mode="bilinear", align_corners=False)
                x = up(x + skip)
                if len(skips) == 1:
                    middle = x  # (P, w1, h/2, w/2)
            logits = self.head(x)  # (P, 4, h, w)
        logits = logits.float()
        share = maps.shape[-2:].numel() / whole if whole else 1.0
        facts = _score_features(logits.detach(), maps, middle.float(), bottom.float(), share)
        return logits, torch.sigmoid(self.confidence(facts)[..., 0].float())


def crops_around_boxes(inside: Tensor) -> list[tuple[slice, slice]]:
    """Rows and columns around the box of each prompt, squares of one size.

    Parameters
    ----------
    inside : (P, h, w)
        Above 0.5 inside the box; 0 where a prompt has none.

    Returns
    -------
    list of (slice, slice)
        Four times as large as the largest box, at least `LEAST` cells; none if a prompt has no
        box, or if that is most of the map.
    """
    within = inside > 0.5
    rows, columns = within.any(2), within.any(1)  # (P, h), (P, w)
    if not bool(rows.any(1).all()):
        return []
    firsts = [on.float().argmax(1) for on in (rows, columns)]
    ends = [on.shape[1] - on.flip(1).float().argmax(1) for on in (rows, columns)]
    longest = max(int((end - first).max()) for first, end in zip(firsts, ends, strict=True))
    side = max(LEAST, -(-longest * 4 // STEP) * STEP)
    if side > MOST * min(inside.shape[1:]):
        return []
    starts = [
        ((first + end - side) // 2).clamp(0, size - side).tolist()
        for first, end, size in zip(firsts, ends, inside.shape[1:], strict=True)
    ]
    return [(slice(y, y + side), slice(x, x + side)) for y, x in zip(*starts, strict=True)]


def _score_features(
    logits: Tensor, maps: Tensor, middle: Tensor, bottom: Tensor, share: float
) -> Tensor:
    """What the confidence of each mask goes by, (P, 4, F); `share` of the whole that is shown."""
    soft = torch.sigmoid(logits)
    area = share * soft.mean((-2, -1))  # (P, 4)
    hard = (soft > 0.5).float()
    certain = (soft * hard).sum((-2, -1)) / hard.sum((-2, -1)).clamp(min=1)
    stable = (soft > 0.7).sum((-2, -1)) / (soft > 0.3).sum((-2, -1)).clamp(min=1)
    unsure = (4 * soft * (1 - soft)).sum((-2, -1)) / soft.sum((-2, -1)).clamp(min=1)
    empty = (hard.sum((-2, -1)) < 1).float()
    shape = torch.stack([area.sqrt(), certain, stable, unsure, empty], -1)  # (P, 4, 5)
    cells = (middle.shape[-2], middle.shape[-1])
    weight = F.adaptive_avg_pool2d(soft, cells).flatten(2)  # (P, 4, n)
    flat = middle.flatten(2).transpose(1, 2)  # (P, n, w1)
    inner = weight @ flat / weight.sum(-1, keepdim=True).clamp(min=1e-3)
    rim = weight * (1 - weight)
    edge = rim @ flat / rim.sum(-1, keepdim=True).clamp(min=1e-3)
    masks = logits.shape[1]
    kinds = torch.stack([maps[:, i].amax((-2, -1)) for i in (0, 3, 6, 9)], 1)  # (P, 4)
    places = torch.eye(masks, device=logits.device).expand(len(logits), -1, -1)
    each = [inner, edge, shape, _at_points(soft, maps), places, _overlaps(logits)]
    every = [t[:, None].expand(-1, masks, -1) for t in (bottom, kinds)]
    return torch.cat([*each, *every], -1)


def _overlaps(logits: Tensor) -> Tensor:
    """IoU of masks with one another, (P, M, M) from (P, M, h, w)."""
    hard = (logits > 0).flatten(2).float()
    both = hard @ hard.transpose(1, 2)
    area = hard.sum(-1)
    return both / (area[:, :, None] + area[:, None] - both).clamp(min=1)


def _at_points(soft: Tensor, maps: Tensor) -> Tensor:
    """How full each mask is at the positive and at the negative points, (P, M, 2)."""
    discs = maps[:, [0, 3]].flatten(2)  # (P, 2, n)
    return (soft.flatten(2) @ discs.transpose(1, 2)) / discs.sum(-1)[:, None].clamp(min=1e-3)


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
