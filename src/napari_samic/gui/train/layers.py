"""The heat map of a reference as an image layer over its slice, without the masks over it.

Must not know jobs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_samic.gui.canvas import style
from napari_samic.gui.canvas.owned_layers import OURS, OwnedLayers
from napari_samic.gui.canvas.visibility import LayerVisibility
from napari_samic.gui.train.references import HeatMapOverlay

KIND = "heat map"


class HeatLayer(OwnedLayers):
    """One layer that comes and goes.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer)
        self._visibility = LayerVisibility(viewer)

    @property
    def layer(self) -> Any | None:
        """The layer while it is shown; the user may have removed it."""
        return self.layers.get(KIND)

    def show(self, heat_overlay: HeatMapOverlay, image: Any) -> None:
        """Put a heat map over the slice of `image`, the layer that it belongs to."""
        self.hide()
        from napari.layers import Image, Points

        pixels, index = heat_overlay.reference.pixels, heat_overlay.reference.index
        if pixels is None:
            return
        factor = (
            pixels.factor
            * max(heat_overlay.reference.annotation.shape)
            / max(heat_overlay.values.shape)
        )
        frame = style.frame(image, factor)
        leading = image.ndim - 2
        place = np.zeros(image.ndim)
        place[leading - len(index) : leading] = index
        frame["translate"] = frame["translate"] + np.asarray(image.scale) * place
        layer = Image(
            heat_overlay.values[(None,) * leading],
            name=f"{heat_overlay.reference.annotation.name} heat map [SAMIC]",
            opacity=0.8,
            contrast_limits=(0.0, 1.0),
            metadata={OURS: True},
            **style.heat(),
            **frame,
        )
        self.insert(KIND, layer, image)
        points = [other for other in self.viewer.layers if isinstance(other, Points)]
        self._visibility.hide(keep=(layer, *points))

    def hide(self) -> None:
        """Take it away."""
        self._visibility.bring_back()
        self.remove(KIND)
