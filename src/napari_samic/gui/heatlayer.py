"""The heat map of a reference as an image layer over its slice, without the masks over it.

Must not know jobs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_samic.gui import drawing
from napari_samic.gui.aside import Aside
from napari_samic.gui.gallery import Glow
from napari_samic.gui.stage import OURS


class HeatLayer:
    """One layer that comes and goes.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.layer: Any | None = None
        self._aside = Aside(viewer)

    @property
    def is_there(self) -> bool:
        """Whether it is in the viewer: the user may have removed it."""
        return self.layer is not None and self.layer in self.viewer.layers

    def show(self, glow: Glow, image: Any) -> None:
        """Put a heat map over the slice of `image`, the layer that it belongs to."""
        self.hide()
        from napari.layers import Image, Points

        pixels, index = glow.found.pixels, glow.found.index
        if pixels is None:
            return
        factor = pixels.factor * max(glow.found.page.shape) / max(glow.values.shape)
        frame = drawing.frame(image, factor)
        leading = image.ndim - 2
        place = np.zeros(image.ndim)
        place[leading - len(index) : leading] = index
        frame["translate"] = frame["translate"] + np.asarray(image.scale) * place
        self.layer = Image(
            glow.values[(None,) * leading],
            name=f"{glow.found.page.name} heat map [SAMIC]",
            colormap="inferno",
            blending="additive",
            opacity=0.8,
            contrast_limits=(0.0, 1.0),
            metadata={OURS: True},
            **frame,
        )
        active = self.viewer.layers.selection.active
        above = self.viewer.layers.index(image) + 1 if image in self.viewer.layers else 0
        self.viewer.layers.insert(above, self.layer)
        self.viewer.layers.selection.active = active
        points = [one for one in self.viewer.layers if isinstance(one, Points)]
        self._aside.hide(keep=(self.layer, *points))

    def hide(self) -> None:
        """Take it away."""
        self._aside.bring_back()
        layer, self.layer = self.layer, None
        if layer is not None and layer in self.viewer.layers:
            self.viewer.layers.remove(layer)
