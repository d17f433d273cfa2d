"""Drawn maps, and a segmenter that answers discs and says what it was asked."""

import numpy as np

from napari_samic.core.types import Candidates, Prompts

SHAPE = (48, 64)


def disc(row, column, radius, shape=SHAPE):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(rows - row, columns - column) <= radius


def bump(row, column, sigma=4.0, height=1.0, shape=SHAPE):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    bell = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * sigma**2))
    return (height * bell).astype(np.float32)


def flat(region):
    return np.asarray(region, np.float32)


def letter_c():
    region = disc(24, 30, 15) & ~disc(24, 30, 9)
    region[15:34, 30:] = False
    return region


def ring():
    return disc(24, 30, 15) & ~disc(24, 30, 9)


def line():
    region = np.zeros(SHAPE, bool)
    region[10, 5:40] = True
    return region


def dot():
    return disc(20, 33, 0)


def at_border():
    return disc(0, 63, 8)


def positives(prompts):
    return prompts.points_rc[prompts.is_foreground]


def at(row, column, *more, box=None):
    points = np.array([(row, column), *[m[:2] for m in more]], float)
    return Prompts(points, np.array([True, *[m[2] for m in more]]), box)


class Discs:
    """Discs around the first positive point or the box's centre, one for each radius.

    Negative points take a small disc away, further positive ones add one. Low-resolution logits
    are of the padded square, as SAM's, at a quarter of the size.
    """

    name = "discs"

    def __init__(self, radii=(3, 6, 10), scores=(0.5, 0.9, 0.7), nibble=3):
        self.radii, self.scores, self.nibble = radii, scores, nibble
        self.asked = []

    def candidates(self, image, objects, *, multimask=True, logits=None):
        given = [None] * len(objects) if logits is None else logits
        self.asked += [(o, g, multimask) for o, g in zip(objects, given, strict=True)]
        return [self.answer(image.shape[:2], o, multimask) for o in objects]

    def answer(self, shape, prompts, multimask):
        kept = range(len(self.radii)) if multimask else [int(np.argmax(self.scores))]
        masks = np.array([self._mask(shape, prompts, self.radii[k]) for k in kept])
        return Candidates(masks, np.array(self.scores, np.float32)[kept], low(masks))

    def _mask(self, shape, prompts, radius):
        points = positives(prompts)
        centre = points[0] if len(points) else prompts.box_rc.reshape(2, 2).mean(0)
        mask = disc(*centre, radius, shape)
        for point in points[1:]:
            mask |= disc(*point, self.nibble, shape)
        for point in prompts.points_rc[~prompts.is_foreground]:
            mask &= ~disc(*point, self.nibble, shape)
        return mask

    def segment(self, image, objects, *, settings=None):
        raise AssertionError("refine asks for candidates only")


def low(masks):
    side = max(masks.shape[1:])
    padded = np.zeros((len(masks), side, side), np.float32)
    padded[:, : masks.shape[1], : masks.shape[2]] = masks
    return 20 * padded[:, ::4, ::4] - 10


def picture(shape=SHAPE):
    return np.zeros((*shape, 3), np.uint8)
