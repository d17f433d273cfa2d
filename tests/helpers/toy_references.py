"""Annotated images of red discs on gray, as fine-tuning and the instant head learn from them."""

import numpy as np
import torch

from napari_samic.models.features.reference_masks import InstanceMasks
from napari_samic.models.finetune.dataset import ReferenceSample

CPU = torch.device("cpu")
RED, GRAY = (220, 30, 30), (90, 90, 90)


def sample(name="a", shape=(120, 160), discs=((60, 80, 30),), classes=None):
    """One image with its instances; a disc is (row, column, radius), of class 1 unless told."""
    rows, columns = np.indices(shape)
    image, labels = np.full((*shape, 3), GRAY, np.uint8), np.zeros(shape, np.int32)
    for label, (row, column, radius) in enumerate(discs, start=1):
        inside = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
        image[inside], labels[inside] = RED, label
    return ReferenceSample(name, image, InstanceMasks(labels, classes or (1,) * len(discs)))


def samples(count, seed=0):
    """Images of 64 x 64 pixels, each with one disc somewhere."""
    rng = np.random.default_rng(seed)
    centers_rc = rng.integers(20, 44, (count, 2))
    return [sample(str(i), (64, 64), [(*c, 10)]) for i, c in enumerate(centers_rc)]
