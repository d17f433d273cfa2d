"""Contracts to napari layers and back.

Speaks napari's layer tuples, so that it needs no viewer. napari imports this to list the sample
data: whatever is heavy is imported inside the functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari.types import LayerData


def sample_scenes() -> list[LayerData]:
    """Open the packaged scenes as one stack, with their truth in a hidden layer.

    Returns
    -------
    list of LayerData
        "SAMIC samples", (N, H, W, 3) uint8 RGB; "SAMIC samples, truth", (N, H, W) int32 labels.
    """
    from napari_samic.samples import sample_set

    scenes = sample_set()
    names = [scene.name for scene in scenes]
    images = np.stack([scene.image for scene in scenes])  # (N, H, W, 3)
    truth = np.stack([scene.truth for scene in scenes])  # (N, H, W)
    of_images = {"name": "SAMIC samples", "rgb": True, "metadata": {"names": names}}
    of_truth = {"name": "SAMIC samples, truth", "visible": False, "metadata": {"names": names}}
    return [(images, of_images, "image"), (truth, of_truth, "labels")]
