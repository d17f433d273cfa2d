"""Prompts to low-resolution logits: grouping, (row, column) to (x, y), and the way back up.

Padding a short prompt with SAM's "nothing" label changes its logits by 0.15, so prompts are only
decoded together if they have the same number of points, a box or none, a mask or none. Must not
know images' files, caches or settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from napari_samic.core.errors import PromptError
from napari_samic.core.types import BoolArray, FloatArray, Prompts
from napari_samic.models.sam.encoding import ImageEmbedding


@dataclass(frozen=True, eq=False)
class PromptQuery:
    """One object to ask for, and its place in the order of answers."""

    place: int
    prompts: Prompts
    logits: FloatArray | None = None

    @property
    def shape(self) -> tuple[int, bool, bool]:
        """What must be equal to be decoded together."""
        return len(self.prompts.points_rc), self.prompts.box_rc is not None, self.logits is not None


def make_queries(
    objects: Sequence[Prompts],
    logits: Sequence[FloatArray | None] | None,
    image_hw: tuple[int, ...],
    logits_hw: tuple[int, int],
) -> list[PromptQuery]:
    """Check prompts against their image.

    Parameters
    ----------
    objects : sequence of Prompts
    logits : sequence of (h, w) float or None, or None
        Earlier answers, one for each object.
    image_hw : (int, int)
        Rows and columns of the original image.
    logits_hw : (int, int)
        What the network takes as a mask prompt.

    Raises
    ------
    PromptError
        An empty prompt, one outside the image, or logits of another number or shape.
    """
    given = [None] * len(objects) if logits is None else list(logits)
    if len(given) != len(objects):
        raise PromptError(f"{len(given)} logits for {len(objects)} objects. Give one for each.")
    queries = []
    for i, (prompts, earlier) in enumerate(zip(objects, given, strict=True)):
        where = f"object {i + 1}"
        if prompts.is_empty and earlier is None:
            raise PromptError(f"{where}: no positive point and no box. Click on the object.")
        prompts.check_inside(image_hw, where)
        queries.append(PromptQuery(i, prompts, _checked(earlier, logits_hw, where)))
    return queries


def _checked(
    logits: FloatArray | None, logits_hw: tuple[int, int], where: str
) -> FloatArray | None:
    if logits is None:
        return None
    array = np.asarray(logits, dtype=np.float32)
    if array.shape not in (logits_hw, (1, *logits_hw)) or not np.isfinite(array).all():
        msg = (
            f"{where}: logits of {array.shape}, expected finite {logits_hw}. Give back what "
            "`Candidates.logits` held for one mask."
        )
        raise PromptError(msg)
    return array.reshape(logits_hw)


def group_by_prompt_shape(queries: Sequence[PromptQuery], size: int) -> Iterator[list[PromptQuery]]:
    """Split into runs of like questions, at most `size` each."""
    groups: dict[tuple[int, bool, bool], list[PromptQuery]] = {}
    for query in queries:
        groups.setdefault(query.shape, []).append(query)
    for group in groups.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]


def decode(
    network: Any, encoded: ImageEmbedding, batch: Sequence[PromptQuery], *, multimask: bool
) -> tuple[Tensor, Tensor]:
    """Ask the network for one batch of like questions.

    Parameters
    ----------
    network : Sam
    encoded : ImageEmbedding
        Of the image, on the network's device.
    batch : sequence of PromptQuery
        All of the same `shape`.
    multimask : bool
        Three masks for each, or one.

    Returns
    -------
    logits : (B, M, h, w) float32 Tensor
        Low resolution.
    scores : (B, M) float32 Tensor
        As the network gives them.
    """
    points, boxes, masks = _tensors(batch, encoded)
    sparse, dense = network.prompt_encoder(points=points, boxes=boxes, masks=masks)
    logits, scores = network.mask_decoder(
        image_embeddings=encoded.embedding,
        image_pe=network.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
    )
    return logits.float(), scores.float()


def _tensors(
    batch: Sequence[PromptQuery], encoded: ImageEmbedding
) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None, Tensor | None]:
    device = encoded.embedding.device
    n_points, has_box, has_logits = batch[0].shape
    points = boxes = masks = None
    if n_points:
        rc = np.stack([q.prompts.points_rc for q in batch])  # (B, N, 2)
        signs = np.stack([q.prompts.is_foreground for q in batch])  # (B, N)
        points = (
            _to_xy(rc, encoded).to(device),
            torch.from_numpy(signs.astype(np.int32)).to(device),
        )
    if has_box:
        corners = np.stack([np.reshape(q.prompts.box_rc, (2, 2)) for q in batch])  # type: ignore[arg-type]
        boxes = _to_xy(corners, encoded).reshape(-1, 4).to(device)
    if has_logits:
        masks = torch.from_numpy(np.stack([q.logits for q in batch])[:, None]).to(device)  # type: ignore[misc]
    return points, boxes, masks


def _to_xy(rc: NDArray[np.float64], encoded: ImageEmbedding) -> Tensor:
    """(..., 2) row and column of the original to float32 x and y of the network's input."""
    scale = np.divide(encoded.input_hw, encoded.image_hw)
    return torch.from_numpy((rc * scale)[..., ::-1].astype(np.float32))


def to_image(logits: Tensor, network: Any, encoded: ImageEmbedding) -> BoolArray:
    """Low-resolution logits of one object to masks of the original size.

    Parameters
    ----------
    logits : (M, h, w) float32 Tensor

    Returns
    -------
    (M, H, W) bool
    """
    rows, columns = encoded.input_hw
    times = int(network.image_encoder.img_size) // logits.shape[-1]
    full = logits.new_full((len(logits), 1, rows, columns), network.mask_threshold - 1)
    place = _around((logits > network.mask_threshold).any(0))
    part = logits[:, None, *place]  # (M, 1, h, w): one channel each is half the time of M channels
    size = (times * part.shape[-2], times * part.shape[-1])
    large = F.interpolate(part, size, mode="bilinear", align_corners=False)
    top, left = (slice(times * at.start, times * at.stop) for at in place)
    target = full[..., top, left]
    target.copy_(large[..., : target.shape[-2], : target.shape[-1]])
    if encoded.image_hw != (rows, columns):
        full = F.interpolate(full, encoded.image_hw, mode="bilinear", align_corners=False)
    return np.asarray((full[:, 0] > network.mask_threshold).cpu().numpy())


def _around(on: Tensor) -> tuple[slice, slice]:
    """Rows and columns of all that is true in (h, w), with two cells around it."""
    spans = []
    for axis in (1, 0):
        cells = on.any(axis).nonzero()
        first, last = (int(cells[0]), int(cells[-1])) if len(cells) else (0, 0)
        spans.append(slice(max(0, first - 2), last + 3))
    return spans[0], spans[1]
