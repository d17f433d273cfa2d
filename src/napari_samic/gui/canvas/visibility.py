"""Our layers of other steps, hidden while a step has its own to show, and brought back.

Must not know any step.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from napari_samic.gui.canvas.owned_layers import OURS

SUFFIX = "[SAMIC]"
"""Ends the names of layers that belong to a step."""


class LayerVisibility:
    """See the module.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self._hidden: list[Any] = []

    def hide(self, keep: Collection[Any] = ()) -> None:
        """Hide our layers but those of `keep`; each only once until `bring_back`."""
        for layer in self.viewer.layers:
            if layer.visible and is_ours(layer) and not _among(layer, (*keep, *self._hidden)):
                layer.visible = False
                self._hidden.append(layer)

    def bring_back(self) -> None:
        """Show what was hidden."""
        for layer in self._hidden:
            if layer in self.viewer.layers:
                layer.visible = True
        self._hidden.clear()


def _among(layer: Any, others: Collection[Any]) -> bool:
    return any(layer is other for other in others)


def is_ours(layer: Any) -> bool:
    """Whether we made a layer, in whichever step."""
    features = getattr(layer, "features", None)
    marked = bool(layer.metadata.get(OURS)) or str(layer.name).endswith(SUFFIX)
    return marked or (features is not None and {"object"} <= set(features.columns))
