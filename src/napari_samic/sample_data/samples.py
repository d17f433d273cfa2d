"""The packaged sample sets: pictures with ground truth, nothing to download.

`cells` are procedural scenes (textured, low contrast, several instances, look-alike distractors);
`coins` are six windows of the photograph in scikit-image's wheel, with the outline of each
of its 24 coins as an ellipse measured by us. The first few of a set are its references.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError
from napari_samic.sample_data import synthetic


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture: (H, W, 3) uint8, its instances (H, W) int32, and whether it is a reference."""

    name: str
    image: NDArray[np.uint8]
    truth: NDArray[np.int32]
    is_reference: bool


NAMES = ("cells", "coins")


def sample_set(name: str = "cells") -> tuple[Sample, ...]:
    """Load one of NAMES; the same pixels every time.

    Returns
    -------
    tuple of Sample
        `cells`: 24 of 256 x 256 pixels, 6 of them references. `coins`: 6 windows, 2 references.

    Raises
    ------
    InputError
        Unknown name.
    """
    if name == "cells":
        return tuple(_cells(seed) for seed in range(24))
    if name == "coins":
        return _coins()
    raise InputError(f"sample set {name!r}: expected one of {', '.join(NAMES)}.")


_GROUND = synthetic.Ground("coarse", (0.36, 0.30, 0.33), (0.56, 0.46, 0.47), 0.09)
_CELL = synthetic.ObjectKind(
    "blob", "fine", (0.36, 0.22, 0.44), (0.62, 0.46, 0.66), (0.06, 0.11), 0.05, 1.2
)
_DEBRIS = synthetic.ObjectKind(
    "polygon", "smooth", (0.30, 0.36, 0.30), (0.50, 0.56, 0.44), (0.03, 0.06), 0.04, 1.0
)
_FIBRE = synthetic.ObjectKind(
    "capsule", "stripes", (0.52, 0.42, 0.40), (0.70, 0.58, 0.52), (0.10, 0.16), 0.02, 1.0
)


def _cells(seed: int) -> Sample:
    rng = np.random.default_rng([2026, seed])
    kinds = (synthetic.faint(_CELL, _GROUND, rng.uniform(0.75, 1.0)), _DEBRIS, _FIBRE)
    counts = (int(rng.integers(4, 9)), int(rng.integers(2, 5)), int(rng.integers(1, 4)))
    scene = synthetic.draw(
        rng, kinds, counts, _GROUND, overlap=0.05, blur_px=0.8, noise_sd=0.03, shadow=0.15
    )
    return Sample(f"cells-{seed:02d}", scene.image, scene.truth(), seed < 6)


# Center row, center column, half axes, angle of the long axis to the row axis in radians.
_COINS = (
    (43.5, 334.7, 29.6, 28.0, 1.56), (50.8, 155.2, 23.4, 22.4, 1.25),
    (51.1, 215.2, 23.6, 21.8, 1.47), (52.4, 276.2, 20.5, 18.9, 1.25),
    (54.4, 44.2, 22.3, 19.2, -1.32), (56.1, 100.2, 19.7, 17.7, 1.50),
    (118.8, 270.6, 25.5, 23.9, 1.55), (124.2, 44.7, 21.0, 19.6, -0.88),
    (123.7, 205.3, 20.4, 18.9, -1.00), (124.5, 336.2, 19.6, 19.0, -0.84),
    (125.6, 102.3, 19.4, 18.2, -0.97), (127.2, 153.5, 19.6, 17.4, -1.48),
    (186.6, 347.1, 32.1, 31.1, 1.56), (193.1, 212.4, 23.9, 23.1, 1.44),
    (194.1, 274.0, 23.0, 22.0, 1.11), (195.6, 101.7, 22.0, 21.3, -1.57),
    (197.4, 43.7, 19.3, 18.5, 0.64), (197.7, 154.1, 19.4, 18.8, 1.48),
    (259.8, 45.9, 28.4, 27.5, -1.00), (261.2, 172.3, 29.1, 25.7, 1.49),
    (263.2, 300.6, 26.4, 24.0, -0.94), (263.3, 244.0, 24.2, 23.2, -1.14),
    (265.5, 113.9, 21.4, 21.0, 1.18), (267.9, 358.2, 22.8, 20.7, -1.54),
)  # fmt: skip
_WINDOWS = (  # between the coins: none is cut
    (0, 0, 151, 182), (225, 210, 303, 384), (0, 182, 151, 384),
    (151, 0, 225, 181), (151, 181, 225, 384), (225, 0, 303, 210),
)  # fmt: skip


def _coins() -> tuple[Sample, ...]:
    from skimage import data  # its loader is slow to import

    picture = data.coins()  # (303, 384) uint8
    truth = np.zeros(picture.shape, np.int32)
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    for number, (row, column, long, short, angle) in enumerate(_COINS, start=1):
        along = (rows - row) * np.cos(angle) + (columns - column) * np.sin(angle)
        across = (columns - column) * np.cos(angle) - (rows - row) * np.sin(angle)
        truth[(along / long) ** 2 + (across / short) ** 2 <= 1] = number
    out = []
    for i, (top, left, bottom, right) in enumerate(_WINDOWS):
        gray, ids = picture[top:bottom, left:right], truth[top:bottom, left:right]
        numbers, flat = np.unique(ids, return_inverse=True)
        small = np.arange(len(numbers), dtype=np.int32) + int(numbers[0] > 0)
        rgb = np.repeat(gray[..., None], 3, axis=-1)
        out.append(Sample(f"coins-{i}", rgb, small[flat].reshape(ids.shape), i < 2))
    return tuple(out)
