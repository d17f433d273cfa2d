"""Layers of Review over an image: the labels, which can be painted, and their points.

Layers show the reviewed result, and what the user does to them is read back as a whole. Other
layers of ours are hidden meanwhile. Must not know jobs, models or verdicts.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.gui.canvas import style
from napari_samic.gui.canvas.owned_layers import (
    OURS,
    OwnedLayers,
    draw_points,
    next_point,
    point_rows,
    points_layer,
)
from napari_samic.gui.canvas.visibility import SUFFIX, LayerVisibility
from napari_samic.gui.review.result import NEW, ReviewedResult
from napari_samic.gui.review.verdicts import Placed


class ReviewLayers(OwnedLayers):
    """See the module.

    Parameters
    ----------
    viewer : napari.Viewer
    on_points, on_labels : callable
        Called when the user changed them.

    Attributes
    ----------
    sign : bool
        Of the next point.
    layers : dict of str to layer
        "picture", "labels" and "points".
    on_new : callable
        Called with every layer that is made, to bind keys.
    """

    def __init__(
        self, viewer: Any, *, on_points: Callable[[], None], on_labels: Callable[[], None]
    ) -> None:
        super().__init__(viewer)
        self.sign = True
        self.on_new: Callable[[Any], None] = lambda _layer: None
        self._on_points, self._on_labels = on_points, on_labels
        self.aside = LayerVisibility(viewer)

    # --- to the layers

    def show(
        self, reviewed: ReviewedResult, location: tuple[Any, Any, Any] | None, picture: Any
    ) -> None:
        """Show a result.

        Parameters
        ----------
        location : (layer, Pixels, index) or None
            Where its image is, if it is open.
        picture : (H, W, 3) uint8 or None
            The image, if it is not.
        """
        frame = _frame(location)
        with self.silent():
            self._show_picture(picture)
            self._show_labels(reviewed, frame)
            self._show_points(reviewed, frame)

    def _show_picture(self, picture: Any) -> None:
        from napari.layers import Image

        layer = self._fitting("picture", picture)
        if picture is None:
            if layer is not None:
                self.viewer.layers.remove(layer)
        elif layer is not None:
            layer.data = picture
        else:
            image_layer = Image(
                picture, rgb=True, name=f"review image {SUFFIX}", metadata={OURS: True}
            )
            self._add("picture", image_layer)

    def _fitting(self, kind: str, data: Any) -> Any | None:
        """The layer, if it can take the data; one of levels takes no array, nor the reverse."""
        layer = self.get(kind)
        if layer is not None and data is not None and layer.multiscale != isinstance(data, list):
            self.viewer.layers.remove(layer)
            return None
        return layer

    def _show_labels(self, reviewed: ReviewedResult, frame: dict[str, Any]) -> None:
        from napari.layers import Labels

        labels = reviewed.levels or np.array(reviewed.labels)
        layer = self._fitting("labels", labels)
        if layer is None:
            labels_layer = Labels(labels, opacity=0.5, name=f"review labels {SUFFIX}",
                          metadata={OURS: True}, **frame)  # fmt: skip
            labels_layer.events.labels_update.connect(self._painted)
            labels_layer.events.paint.connect(self._painted)
            self._add("labels", labels_layer)
        else:
            layer.data = labels
            _place(layer, frame)
        if reviewed.numbered and reviewed.levels is None:
            # the brush paints a new object, not one of another place
            self.layers["labels"].selected_label = reviewed.next_number

    def _show_points(self, reviewed: ReviewedResult, frame: dict[str, Any]) -> None:
        layer = self.get("points")
        if layer is None:
            layer = points_layer(f"review points {SUFFIX}", 2, metadata={OURS: True}, **frame)
            layer.events.data.connect(self._moved)
            self._add("points", layer)
            self.use_hand()
        _place(layer, frame)
        layer.size = layer.current_size = max(3.0, max(reviewed.labels.shape) / 45)
        self.draw_points(reviewed)

    def draw_points(self, reviewed: ReviewedResult) -> None:
        """Draw the points anew."""
        layer = self.get("points")
        if layer is None:
            return
        numbers = np.array([n for n, _ in reviewed.points], int)
        signs = np.array([p[2] for _, p in reviewed.points], bool)
        places = np.array([p[:2] for _, p in reviewed.points], float).reshape(-1, 2)
        with self.silent():
            draw_points(layer, places, numbers, signs, style.faces(np.ones_like(signs), signs))
            next_point(layer, self.sign, NEW)

    def draw_labels(self, reviewed: ReviewedResult) -> None:
        """Draw the labels anew."""
        layer = self.get("labels")
        if layer is not None and reviewed.levels is None:
            with self.silent():
                layer.data = np.array(reviewed.labels)

    def look_at(self, number: int, reviewed: ReviewedResult) -> None:
        """Bring an object to the middle of the canvas, and let it take a quarter of its height."""
        layer = self.get("labels")
        if reviewed.levels is not None:
            inside = np.reshape(reviewed.boxes.get(number, ()), (-1, 2))
        else:
            inside = np.argwhere(reviewed.labels == number)
        if layer is None or not len(inside):
            return
        low, high = (np.array(layer.data_to_world(p)) for p in (inside.min(0), inside.max(0)))
        layer.selected_label = number
        camera = getattr(self.viewer, "scene", self.viewer).camera  # napari 0.9 moved it
        camera.center = (0, *((low + high) / 2)[-2:])
        height_px = self.viewer.window._qt_viewer.canvas.native.height()
        camera.zoom = height_px / (4 * max(1e-6, *(high - low)[-2:]))

    def use_points(self, sign: bool) -> None:
        """Let the next click be a positive or negative point."""
        self.sign = sign
        layer = self.get("points")
        if layer is not None:
            with self.silent():
                layer.selected_data = set()
                next_point(layer, self.sign, NEW)
                self.viewer.layers.selection.active = layer
                layer.mode = "add"

    def use_hand(self) -> None:
        """Let the mouse change nothing, and keys of Review act."""
        for kind in ("labels", "points"):
            layer = self.get(kind)
            if layer is not None:
                layer.mode = "pan_zoom"
                self.viewer.layers.selection.active = layer

    def use_select(self) -> None:
        """Let points be dragged and deleted."""
        layer = self.get("points")
        if layer is not None:
            self.viewer.layers.selection.active = layer
            layer.mode = "select"

    def use_brush(self) -> None:
        """Let labels be painted."""
        layer = self.get("labels")
        if layer is not None:
            self.viewer.layers.selection.active = layer
            layer.mode = "paint"

    # --- from the layers

    def points(self) -> list[Placed]:
        """What the points layer holds; 0 is of no object yet."""
        layer = self.get("points")
        return [] if layer is None else [(n, point) for _, n, point in point_rows(layer)]

    def labels(self) -> NDArray[Any] | None:
        """What the labels layer holds."""
        layer = self.get("labels")
        return None if layer is None else np.asarray(layer.data)

    def _moved(self, event: Any) -> None:
        if self.is_edit(event):
            self._on_points()

    def _painted(self, _event: Any = None) -> None:
        if not self._quiet:
            self._on_labels()

    # --- coming and going

    def _add(self, kind: str, layer: Any) -> None:
        self.layers[kind] = layer
        self.viewer.add_layer(layer)
        if kind != "picture":
            self.on_new(layer)

    def hide_others(self) -> None:
        """Hide our other layers; `aside` shows them again."""
        self.aside.hide(keep=self.layers.values())

    def clear(self) -> None:
        """Take our layers off the viewer; the labels are files of the project."""
        with self.silent():
            for layer in list(self.layers.values()):
                if layer in self.viewer.layers:
                    self.viewer.layers.remove(layer)
        if (points := self.layers.get("points")) is not None:
            with suppress(ValueError, KeyError):
                points.events.data.disconnect(self._moved)
        if (labels := self.layers.get("labels")) is not None:
            for event in (labels.events.paint, labels.events.labels_update):
                with suppress(ValueError, KeyError):
                    event.disconnect(self._painted)
        self.layers.clear()


def _frame(location: tuple[Any, Any, Any] | None) -> dict[str, Any]:
    """Scale and place of a flat layer over the image."""
    if location is None:
        return {"scale": np.ones(2), "translate": np.zeros(2)}
    return style.flat_frame(location[0], location[1].factor)


def _place(layer: Any, frame: dict[str, Any]) -> None:
    for name, value in frame.items():
        if not np.array_equal(getattr(layer, name), value):
            setattr(layer, name, value)
