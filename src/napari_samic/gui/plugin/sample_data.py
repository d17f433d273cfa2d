"""Sample data as napari's layers.

Speaks napari's layer tuples, so that most of it needs no viewer. napari imports this to list the
sample data: whatever is heavy is imported inside the functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    from napari_samic.sample_data.samples import sample_set

    scenes = sample_set()
    names = [scene.name for scene in scenes]
    images = np.stack([scene.image for scene in scenes])  # (N, H, W, 3)
    truth = np.stack([scene.truth for scene in scenes])  # (N, H, W)
    of_images = {"name": "SAMIC samples", "rgb": True, "metadata": {"names": names}}
    of_truth = {"name": "SAMIC samples, truth", "visible": False, "metadata": {"names": names}}
    return [(images, of_images, "image"), (truth, of_truth, "labels")]


def sample_coins() -> list[LayerData]:
    """Open the six windows of a photograph of coins, each an image of its own with its truth."""
    from napari_samic.sample_data.samples import sample_set

    out: list[LayerData] = []
    for scene in reversed(sample_set("coins")):  # the first on top
        of_truth = {"name": f"{scene.name}, truth", "visible": False}
        of_image = {"name": scene.name, "rgb": True, "visible": scene.name.endswith("-0")}
        out += [(scene.image, of_image, "image"), (scene.truth, of_truth, "labels")]
    return out


def sample_kvasir() -> list[LayerData]:
    """Open the Kvasir-SEG images of one size as a lazy stack; fetch the set first, if need be."""
    from napari_samic.sample_data import kvasir

    if not kvasir.is_here():
        _fetch_then_open()
        return []
    return kvasir_layers()


def kvasir_layers() -> list[LayerData]:
    """Images and masks of the set that was fetched."""
    from napari_samic.gui.data.layer_pixels import FILES
    from napari_samic.gui.data.provenance import stack
    from napari_samic.sample_data import kvasir

    images, masks = zip(*kvasir.pairs(), strict=True)
    pictures = stack(images, "Kvasir-SEG")
    truth, options, _ = stack(masks, "Kvasir-SEG, truth")
    outlines = truth.max(axis=-1) if options["rgb"] else truth  # JPEG: black and white, blurred
    of_truth = {"name": options["name"], "visible": False}
    of_truth["metadata"] = {key: v for key, v in options["metadata"].items() if key != FILES}
    return [pictures, ((outlines > 127).astype(np.uint8), of_truth, "labels")]


def _fetch_then_open(jobs: Any = None) -> None:
    """Fetch in a worker; the layers come when it is done."""
    import napari

    from napari_samic.gui.runner.jobs import Calls, Jobs
    from napari_samic.sample_data import kvasir

    viewer = napari.current_viewer()

    def opened(_folder: Any) -> None:
        if viewer is not None:
            viewer.open_sample("napari-samic", "kvasir")

    (jobs or Jobs()).start(kvasir.fetch(), Calls(on_done=opened), title="SAMIC: Kvasir-SEG")
