"""A small head on frozen features, fitted to a few references in about a second.

It says of every pixel what the fine-tuned network says, at once and less well, so that a view can
follow each new reference. The encoder's passes are the segmenter's own, which are cached.

Source: linear evaluation of frozen features with one hidden layer, as DINOv2's users do (Oquab et
al., TMLR 2024); two maps a class as in `models.finetune.network`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from napari_samic.core.types import BoolArray, Image, IntArray, PromptProposal, Reference
from napari_samic.io.text_files import pixels_sha256
from napari_samic.models.features import patches
from napari_samic.models.features.backbones import SegmenterBackbone
from napari_samic.models.features.reference_masks import (
    FewShotCache,
    InstanceMasks,
    ReferenceMaskCache,
    classes_of,
)
from napari_samic.models.finetune.dataset import normalized_distance_transform
from napari_samic.models.finetune.network import ForegroundPrediction
from napari_samic.models.prompters.random_forest import proposal

GRID = 64
"""Cells along the longest side of an image."""
HIDDEN = 64
KEPT = 32
"""Images whose features are kept between fits: some 10 MB each."""
STEPS, CELLS, RATE = 150, 1024, 3e-3
"""Batches, cells in each, and the rate of AdamW. 4096 cells took three times as long and gave the
same: IoU 0.463, 0.679, 0.783 on polyps and two sets of nuclei, 0.461, 0.681, 0.785 with these."""
RANKING_STEPS = 40
"""Batches of the fit that only says which ground is unlike the objects: IoU on 20 pictures of
nuclei from two nuclei of another one 0.450, with 150 batches 0.433; among whole references the
same, 0.740 and 0.742."""
SURROUNDINGS, UNLIKELY = 0.25, 0.5
"""Of an image annotated in part, ground is what lies so near to an object, in its size, and of the
rest the share that looks least like one. With two of some 20 nuclei annotated, the IoU on others
was 0.445 and 0.395 (two sets); 0.498 and 0.304 by what is near alone, 0.009 and 0.077 by all."""


class InstantPredictor:
    """Where the objects of each class are, by frozen features.

    Parameters
    ----------
    segmenter : Segmenter
        With an `embedding` of images; its `taps` are used too, if it has them.
    images : sequence of (H, W, 3) uint8
    masks : sequence of InstanceMasks
        Objects of each image.
    seed : int
    known : sequence of (H, W) bool, optional
        Pixels of each image that are annotated; None: all, so that what is no object is ground. Of
        the others the `UNLIKELY` share counts as ground.
    stop : callable
        True: the fit ends as it is, for who does not want it any more.
    kept : dict of str to Tensor, optional
        Features of images by their pixels, of this segmenter: seen before, and now. At most `KEPT`
        stay.

    Attributes
    ----------
    labels : tuple of int
        The classes.
    """

    def __init__(
        self,
        segmenter: Any,
        images: Sequence[Image],
        masks: Sequence[InstanceMasks],
        seed: int = 0,
        *,
        known: Sequence[BoolArray | None] = (),
        stop: Callable[[], bool] = lambda: False,
        kept: dict[str, Tensor] | None = None,
    ) -> None:
        self.segmenter, self._kept = segmenter, kept
        self.labels = tuple(classes_of(masks))
        grids = [self._features(image) for image in images]  # (F, r, c)
        x = torch.cat([g.flatten(1) for g in grids], 1).T.contiguous()  # (N, F), rows are picked
        truths = [
            _truth(s, self.labels, (g.shape[1], g.shape[2]))
            for s, g in zip(masks, grids, strict=True)
        ]
        truth = torch.cat([t.flatten(1) for t in truths], 1).T  # (N, 2 C)
        self._mean, self._deviation = x.mean(0), x.std(0) + 1e-3
        x = (x - self._mean) / self._deviation
        if any(pixels is not None for pixels in known):
            is_known = torch.cat(
                [_share(pixels, g) > 0.5 for pixels, g in zip(known, grids, strict=True)]
            )
            first = _fitted(x[is_known], truth[is_known], seed, stop, RANKING_STEPS)
            likeness = first(x)[:, : len(self.labels)].amax(1)
            others = likeness[~is_known]
            if len(others):
                is_known |= likeness <= others.quantile(UNLIKELY)
            x, truth = x[is_known], truth[is_known]
        self._head = _fitted(x, truth, seed, stop)

    def _features(self, image: Image) -> Tensor:
        """(F, r, c): the embedding and the last block of each level on one grid."""
        if self._kept is None:
            return self._seen(image)
        key = pixels_sha256(image)
        self._kept[key] = grid = self._kept.pop(key) if key in self._kept else self._seen(image)
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return grid

    def _seen(self, image: Image) -> Tensor:
        embedding = patches.segmenter_embedding(self.segmenter, image)
        scale = GRID / max(image.shape[:2])
        size = (max(1, round(scale * image.shape[0])), max(1, round(scale * image.shape[1])))
        maps = [patches.pool_to_grid(embedding, size)]
        if hasattr(self.segmenter, "taps"):
            features = patches.PatchFeatures(SegmenterBackbone(self.segmenter), image)
            maps += [
                patches.upsample(features.cropped(x, i), size) for i, x in enumerate(features.last)
            ]
        return torch.cat(maps)

    def predict(self, image: Image) -> dict[int, ForegroundPrediction]:
        """What it sees of each class, at the image's size; as `ForegroundPredictor.predict`."""
        grid = self._features(image)
        x = (grid.flatten(1).T - self._mean) / self._deviation
        with torch.inference_mode():
            probabilities = torch.sigmoid(self._head(x)).T.reshape(1, -1, *grid.shape[-2:])
            size = (image.shape[0], image.shape[1])
            full = F.interpolate(probabilities, size=size, mode="bilinear", align_corners=False)[
                0
            ].numpy()
        count = len(self.labels)
        return {
            k: ForegroundPrediction(full[i], full[count + i]) for i, k in enumerate(self.labels)
        }


def surroundings(numbers: IntArray) -> BoolArray:
    """Pixels of an image annotated in part that are known: objects, and `SURROUNDINGS` of each.

    Parameters
    ----------
    numbers : (H, W) int32
        The annotated objects.
    """
    out = np.zeros(numbers.shape, bool)
    for place in ndimage.find_objects(numbers):
        if place is not None:
            more = round(SURROUNDINGS * max(part.stop - part.start for part in place))
            out[tuple(slice(max(0, p.start - more), p.stop + more) for p in place)] = True
    return out


def _share(pixels: BoolArray | None, grid: Tensor) -> Tensor:
    """Share of each cell of a grid, (F, r, c), that is set, (r c,); None: all."""
    size = (int(grid.shape[1]), int(grid.shape[2]))
    if pixels is None:
        return torch.ones(size).flatten()
    return F.adaptive_avg_pool2d(torch.from_numpy(pixels[None].astype(np.float32)), size).flatten()


def _truth(instances: InstanceMasks, labels: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Share of each cell that is inside, and depth, (2 C, r, c)."""
    depth = normalized_distance_transform(instances.numbers)
    inside = [instances.by_class == k for k in labels]
    maps = np.stack([*inside, *(np.where(mask, depth, 0) for mask in inside)]).astype(np.float32)
    return F.adaptive_avg_pool2d(torch.from_numpy(maps), size)


@torch.inference_mode(False)
@torch.enable_grad()
def _fitted(
    x: Tensor, truth: Tensor, seed: int, stop: Callable[[], bool], steps: int = STEPS
) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Sequential(
            nn.Linear(x.shape[1], HIDDEN), nn.GELU(), nn.Dropout(0.2),
            nn.Linear(HIDDEN, truth.shape[1]),
        )  # fmt: skip
        optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=0.05)
        inside = truth[:, : truth.shape[1] // 2]
        for _ in range(steps):
            if stop():
                break
            chosen = torch.randint(len(x), (min(CELLS, len(x)),))
            logits = head(x[chosen])
            loss = F.binary_cross_entropy_with_logits(logits, truth[chosen])
            soft, wanted = torch.sigmoid(logits[:, : inside.shape[1]]), inside[chosen]
            both, either = (soft * wanted).sum(0), (soft + wanted).sum(0)
            loss = 2 * loss + (1 - (2 * both + 1) / (either + 1)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return head.eval().requires_grad_(False)


class Instant:
    """The predictor as a prompter: where it is sure, every piece an object.

    Parameters
    ----------
    segmenter : SamSegmenter
    references : sequence of Reference
        Used when `propose` is called without any.
    seed : int
    """

    name = "instant"

    def __init__(
        self, segmenter: Any, references: Sequence[Reference] = (), *, seed: int = 0
    ) -> None:
        self.segmenter, self.seed = segmenter, seed
        self.masks = ReferenceMaskCache(segmenter)
        self.shots = FewShotCache(self.predictor, references)

    def predictor(self, references: Sequence[Reference]) -> InstantPredictor:
        """Fit one to references."""
        masks = [self.masks.of(r) for r in references]
        images = [r.image for r in references]
        return InstantPredictor(self.segmenter, images, masks, self.seed)

    def propose(self, references: Sequence[Reference], image: Image) -> PromptProposal:
        """An object for each piece of a class; as `Forest.propose`."""
        predictions = self.shots.of(references).predict(image)
        return proposal(
            {label: prediction.foreground_prob for label, prediction in predictions.items()}
        )
