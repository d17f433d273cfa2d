"""Layers that we put into the viewer: still there or not, added and changed without a stir.

What the user has active stays active, and what we change ourselves is not taken for the user's.
Must not know any step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.gui.canvas.style import NEGATIVE, POSITIVE

OURS = "napari-samic"
"""Marks layers in their metadata: images that are not to be annotated, masks to be used again."""
_SYMBOLS = {True: "disc", False: "cross"}


class OwnedLayers:
    """Parent of what has layers of its own.

    Parameters
    ----------
    viewer : napari.Viewer

    Attributes
    ----------
    layers : dict of str to layer
        By kind; the user may have removed them.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.layers: dict[str, Any] = {}
        self._quiet = False

    def has(self, kind: str) -> bool:
        """Whether we made the layer and the user left it there."""
        return kind in self.layers and self.layers[kind] in self.viewer.layers

    def get(self, kind: str) -> Any | None:
        """The layer, if it is there."""
        return self.layers[kind] if self.has(kind) else None

    def insert(self, kind: str, layer: Any, *below: Any) -> None:
        """Put a layer above those that are there of some, and above the user's images.

        What is active stays active.
        """
        layers = self.viewer.layers
        active = layers.selection.active
        self.layers[kind] = layer
        under = [*(other for other in below if other in layers), *user_images(layers)]
        layers.insert(max((layers.index(other) + 1 for other in under), default=0), layer)
        if active is None or active in layers:
            layers.selection.active = active

    def remove(self, kind: str) -> None:
        """Take a layer away."""
        layer = self.layers.pop(kind, None)
        if layer is not None and layer in self.viewer.layers:
            self.viewer.layers.remove(layer)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Change layers without being told."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def is_edit(self, event: Any) -> bool:
        """Whether an event of a layer's data says that the user changed it, and is over."""
        action = getattr(event, "action", "")
        done = str(getattr(action, "value", action)) in ("added", "removed", "changed")
        return done and not self._quiet


def user_images(layers: Any) -> list[Any]:
    """Image layers that are not ours, from below to the top."""
    from napari.layers import Image

    return [x for x in layers if isinstance(x, Image) and not x.metadata.get(OURS)]


def points_layer(name: str, ndim: int, **more: Any) -> Any:
    """A Points layer without points, each of an object and of a sign."""
    from napari.layers import Points

    return Points(
        np.zeros((0, ndim)),
        name=name,
        canvas_size_limits=(2, 24),  # a lower limit above 2 turns all to border
        border_color="#101010",
        border_width=0.1,
        features={"object": np.zeros(0, int), "positive": np.zeros(0, bool)},
        **more,
    )


def draw_points(
    layer: Any, coordinates: Any, numbers: NDArray[Any], signs: NDArray[np.bool_], faces: Any
) -> None:
    """Draw points that are not drawn already: each setter draws the layer anew."""
    if layer.selected_data:
        layer.selected_data = set()
    if not np.array_equal(layer.data, coordinates):
        layer.data = coordinates
        if not layer.visible:  # napari looks later which points are shown, and at symbols now
            layer.set_view_slice()
    table = layer.features
    same = np.array_equal(table["object"], numbers) and np.array_equal(table["positive"], signs)
    if not same:
        layer.features = {"object": numbers, "positive": signs}
        if len(numbers):
            layer.symbol = [_SYMBOLS[bool(s)] for s in signs]
    if len(numbers) and not np.allclose(layer.face_color, faces, atol=0.01):
        layer.face_color = faces


def next_point(layer: Any, sign: bool, number: int | None = None) -> None:
    """Say what a new point will be; of the same object as before if no number is given."""
    defaults = dict(layer.feature_defaults.iloc[0])
    wanted = int(defaults["object"]) if number is None else number
    if (int(defaults["object"]), bool(defaults["positive"])) != (wanted, sign):
        layer.feature_defaults = {"object": wanted, "positive": sign}
    symbol, color = _SYMBOLS[sign], POSITIVE if sign else NEGATIVE
    if str(layer.current_symbol) != symbol or layer.current_face_color != color:
        layer.current_symbol, layer.current_face_color = symbol, color


def point_rows(layer: Any) -> Iterator[tuple[Any, int, tuple[float, float, bool]]]:
    """Of each point its place in the whole stack, its object, and the point."""
    features = layer.features
    for at, n, sign in zip(layer.data, features["object"], features["positive"], strict=True):
        yield at, int(n), (float(at[-2]), float(at[-1]), bool(sign))
