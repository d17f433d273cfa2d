"""A segmenter that answers with all pixels of the clicked colour; colours are its embedding."""

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F
from toy_backbone import COLOURS, discs

from napari_samic.core.types import Candidates, Reference
from napari_samic.ops.label_fusion import join

LOW = 64


class ColourSegmenter:
    """Three masks are a part, the whole and more than that; with a box only what is inside."""

    name, weights_sha256 = "colour", ""

    def __init__(self, *, grow=4):
        self.grow = grow
        self.asked, self.segmented = [], 0

    def candidates(self, image, objects, *, multimask=True, logits=None):
        given = logits or [None] * len(objects)
        self.asked += [(p, multimask, low) for p, low in zip(objects, given, strict=True)]
        return [self.answer(image, p, multimask) for p in objects]

    def answer(self, image, prompts, multimask):
        row, column = prompts.points_rc[prompts.is_foreground][0].round().astype(int)
        whole = np.abs(image.astype(int) - image[row, column]).max(-1) < 40
        if prompts.box_rc is not None:
            inside = np.zeros_like(whole)
            r0, c0, r1, c1 = np.ceil(prompts.box_rc).astype(int)
            inside[max(r0, 0) : r1 + 1, max(c0, 0) : c1 + 1] = True
            whole &= inside
        part = ndimage.binary_erosion(whole, iterations=self.grow)
        more = ndimage.binary_dilation(whole, iterations=self.grow)
        masks = np.stack([part, whole, more] if multimask else [whole])
        scores = np.array([0.7, 0.9, 0.8] if multimask else [0.9], np.float32)
        return Candidates(masks, scores, np.stack([low_of(m) for m in masks]))

    def segment(self, image, objects, *, settings=None):
        self.segmented += 1
        found = self.candidates(image, objects, multimask=False)
        masks, scores = [c.masks[0] for c in found], [0.9] * len(found)
        return join(masks, scores, objects, shape=image.shape[:2])

    def embedding(self, image):
        values = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 128 - 1
        grid = [max(1, n // 4) for n in image.shape[:2]]
        small = F.adaptive_avg_pool2d(values, grid)
        return torch.cat([small, torch.full_like(small[:1], 0.3)]).numpy()


def low_of(mask):
    """Logits of -4 to 4 over the padded square, (64, 64)."""
    side = max(mask.shape)
    wide = np.zeros((side, side), np.float32)
    wide[: mask.shape[0], : mask.shape[1]] = mask
    return 8 * F.adaptive_avg_pool2d(torch.from_numpy(wide)[None], (LOW, LOW))[0].numpy() - 4


def disc(shape, row, column, radius):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def shown(name, places, *, asked=(1,), shape=(64, 64), radius=10, seed=0, masked=True):
    """A reference of discs; only those of the classes asked for are marked."""
    from toy_backbone import clicks

    image = discs(places, shape, radius=radius, seed=seed)
    marked = [p for p in places if p[2] in asked]
    mask = np.zeros(shape, np.int32)
    for number, (row, column, _) in enumerate(marked, start=1):
        mask[disc(shape, row, column, radius)] = number
    return Reference(name, image, clicks(marked), mask if masked else None)


def colour_at(image, point):
    """Class of the colour under a point, 0 for the ground."""
    found = image[tuple(np.round(point).astype(int))].astype(int)
    return next((k for k, c in COLOURS.items() if np.abs(found - c).max() < 40), 0)
