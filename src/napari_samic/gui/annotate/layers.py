"""Our own layers over the chosen image: clicks, boxes, masks, hints; drawn and read back.

The annotation is the truth: layers show the current slice of it, and what the user does to them is
read as a whole, so that dragging, deleting and pasting need no code of their own. A layer that the
user deletes is made again when it is needed. Must not know jobs, models or what an action does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_samic.core.types import BoolArray, FloatArray, IntArray
from napari_samic.gui.canvas import style
from napari_samic.gui.canvas.owned_layers import (
    OURS,
    OwnedLayers,
    draw_points,
    next_point,
    point_rows,
    points_layer,
    user_images,
)
from napari_samic.gui.canvas.style import NEGATIVE, POSITIVE
from napari_samic.gui.data import layer_choice
from napari_samic.gui.data.layer_pixels import LayerPixels
from napari_samic.gui.state.classes import Classes
from napari_samic.gui.state.image_annotation import ImageAnnotation
from napari_samic.gui.state.objects import Box, Hint, Point

_OPAQUE = ("opaque", "translucent", "translucent_no_depth")
"""Ways of blending in which an image hides what is below it."""


class AnnotationLayers(OwnedLayers):
    """See the module.

    Parameters
    ----------
    viewer : napari.Viewer
    image : napari.layers.Image
    pixels : LayerPixels
        Of `image`.
    on_points, on_boxes : callable
        Called when the user changed the points or boxes.
    on_stroke : callable
        Called with the line that was scribbled, (N, 2) in (row, column).
    on_paint : callable
        Called with labels and where the user painted each on the masks of the shown slice; draws
        them anew.

    Attributes
    ----------
    sign : bool
        Of the next click.
    """

    def __init__(
        self,
        viewer: Any,
        image: Any,
        pixels: LayerPixels,
        *,
        on_points: Callable[[], None],
        on_boxes: Callable[[], None],
        on_stroke: Callable[[FloatArray], None],
        on_paint: Callable[[list[tuple[int, BoolArray]]], None],
    ) -> None:
        super().__init__(viewer)
        self.image, self.pixels = image, pixels
        self.sign = True
        self.on_new: Callable[[Any], None] = lambda _layer: None
        self._callbacks = {"clicks": on_points, "boxes": on_boxes}
        self._on_paint, self._on_stroke = on_paint, on_stroke
        self._resting = False
        self._index: tuple[int, ...] = (0,) * len(pixels.stack_shape)
        self._has_drawn = False
        self._colors: dict[int, str] = {}
        self._tints: tuple[str, ...] = ()
        self._painted: tuple[Any, ...] = ()

    # --- where

    def index(self) -> tuple[int, ...] | None:
        """The slice on the screen; None if it is not the last two axes, flat, of this image."""
        dims, ndim = self.viewer.dims, self.viewer.dims.ndim
        if dims.ndisplay != 2 or tuple(dims.displayed) != (ndim - 2, ndim - 1):
            return None
        place = np.round(self.image.world_to_data(dims.point)[:-2]).astype(int)
        index = tuple(int(i) for i in place)
        stack = self.pixels.stack_shape
        inside = all(0 <= i < n for i, n in zip(index, stack, strict=True))
        return index if inside else None

    # --- layers

    def bring_forward(self) -> None:
        """Move the image above those that cover it: clicks go to it, so it must be what is seen."""
        layers, image = self.viewer.layers, self.image
        places = [layers.index(x) for x in layer_choice.image_layers(self.viewer) if _covers(x)]
        if (top := max(places, default=0)) > layers.index(image):
            layers.move(layers.index(image), top + 1)

    def ensure(self) -> None:
        """Make the layers that are missing, masks below, clicks on top; activate the clicks.

        None of an image that is too large to be clicked in.
        """
        if not self.pixels.is_clicked:
            return
        missing = [kind for kind in ("masks", "boxes", "clicks") if not self.has(kind)]
        active = self.viewer.layers.selection.active
        make = {"masks": self._make_masks, "boxes": self._make_boxes, "clicks": self._make_clicks}
        for kind in missing:
            layer = make[kind]()
            self.layers[kind] = layer
            if layer not in self.viewer.layers:
                self.viewer.add_layer(layer)
            elif (place := self.viewer.layers.index(layer)) < self.viewer.layers.index(self.image):
                self.viewer.layers.move(place, self.viewer.layers.index(self.image) + 1)
            if kind in self._callbacks:
                layer.events.data.connect(self._on_data)
            else:
                layer.editable = True
                layer.events.paint.connect(self._painted_by_hand)
                layer.events.n_edit_dimensions.connect(self._keep_flat)
            self.on_new(layer)
        if set(self._callbacks) & set(missing):
            self._has_drawn = False
        if "clicks" in missing:
            self.use_points(self.sign)
        if missing and self._resting and active in self.viewer.layers:
            self.viewer.layers.selection.active = active

    def _make_masks(self) -> Any:
        from napari.layers import Labels

        shape = (*self.pixels.stack_shape, *self.pixels.shape)
        for existing in self.viewer.layers:  # of the time before the user looked at another image
            is_mask = isinstance(existing, Labels) and existing is not self.get("live")
            is_of_image = existing.metadata.get(OURS) == self.pixels.name
            if is_mask and is_of_image and existing.data.shape == shape:
                return existing
        layer = Labels(
            style.sparse(shape),
            name=f"{self.pixels.name} masks",
            opacity=0.55,
            metadata={OURS: self.pixels.name},
            **style.frame(self.image, self.pixels.factor),
        )
        self._colors, self._painted = style.palette({}, Classes()), ()
        layer.colormap = style.colormap(self._colors)  # compiles napari's painter now, not later
        return layer

    def _make_boxes(self) -> Any:
        from napari.layers import Shapes

        width = max(1.0, max(self.pixels.shape) / 200)
        return Shapes(
            ndim=len(self._index) + 2,
            name=f"{self.pixels.name} boxes",
            edge_color=POSITIVE,
            face_color="transparent",
            edge_width=width,
            opacity=0.9,
            features={"object": np.zeros(0, int)},
            metadata={OURS: self.pixels.name},
            **style.frame(self.image, self.pixels.factor),
        )

    def _make_clicks(self) -> Any:
        return points_layer(
            f"{self.pixels.name} clicks",
            len(self._index) + 2,
            size=max(3.0, max(self.pixels.shape) / 45),
            metadata={OURS: self.pixels.name},
            **style.frame(self.image, self.pixels.factor),
        )

    # --- to the layers

    def aim(self, number: int) -> None:
        """Let the next click and the next box be of an object, before all else is drawn."""
        for kind in ("clicks", "boxes"):
            if self.has(kind):
                defaults = dict(self.layers[kind].feature_defaults.iloc[0])
                if int(defaults["object"]) != number:
                    self.layers[kind].feature_defaults = {**defaults, "object": number}
        if self.has("masks") and self.layers["masks"].selected_label != number:
            self.layers["masks"].selected_label = number

    def show(self, annotation: ImageAnnotation, index: tuple[int, ...], classes: Classes) -> None:
        """Draw everything of an annotation that is not drawn already."""
        self._index, self._has_drawn = index, True
        self.show_prompts(annotation, classes)
        self.show_masks(annotation, classes)

    def show_prompts(self, annotation: ImageAnnotation, classes: Classes) -> None:
        """Draw clicks and boxes; the current object's are bright."""
        with self.silent():
            if self.has("clicks"):
                self._draw_points(self.layers["clicks"], annotation)
            if self.has("boxes"):
                self._draw_boxes(self.layers["boxes"], annotation, classes)

    def _draw_points(self, layer: Any, annotation: ImageAnnotation) -> None:
        rows = [(item.number, point) for item in annotation.items for point in item.points]
        coordinates = np.array([(*self._index, p[0], p[1]) for _, p in rows], float)
        coordinates = coordinates.reshape(-1, len(self._index) + 2)
        numbers = np.array([n for n, _ in rows], int)
        signs = np.array([p[2] for _, p in rows], bool)
        faces = style.faces(numbers == annotation.current, signs)
        draw_points(layer, coordinates, numbers, signs, faces)
        next_point(layer, self.sign, annotation.current)

    def _draw_boxes(self, layer: Any, annotation: ImageAnnotation, classes: Classes) -> None:
        items = [item for item in annotation.items if item.box is not None]
        wanted = [style.corners(item.box, self._index) for item in items if item.box is not None]
        tints = tuple(style.tint(item.number, item.label, classes) for item in items)
        numbers = [item.number for item in items]
        same = len(wanted) == layer.nshapes and all(
            np.array_equal(a, b) for a, b in zip(wanted, layer.data, strict=True)
        )
        if int(layer.feature_defaults["object"].iloc[0]) != annotation.current:
            layer.feature_defaults = {"object": annotation.current}
        if same and self._tints == tints and list(layer.features["object"]) == numbers:
            return
        self._tints = tints
        if not same:
            layer.selected_data = set()
            layer.data = []
            if wanted:
                layer.add_rectangles(wanted)
        layer.features = {"object": np.array(numbers, int)}
        if items:
            layer.edge_color = list(tints)
            layer.face_color = [(0.0, 0.0, 0.0, 0.0)] * len(items)
        layer.selected_data = set()

    def show_masks(self, annotation: ImageAnnotation, classes: Classes) -> None:
        """Paint the masks of the current slice, each in the color of its class."""
        if not self.has("masks"):
            return
        layer = self.layers["masks"]
        if str(layer.mode) != "pan_zoom" and self._painted and self._painted[0] == self._index:
            self._read_brush()  # an answer in the middle of a stroke would paint over it
        colors = style.palette({item.number: item.label for item in annotation.items}, classes)
        if colors != self._colors:
            self._colors = colors
            layer.colormap = style.colormap(colors)
        masks = annotation.painted()
        if self._painted != (self._index, masks):  # cutouts compare by identity
            self._painted = (self._index, masks)
            labels = annotation.labels()
            if labels.any() or np.any(layer.data[self._index]):  # a zero written takes memory too
                layer.data[self._index] = labels
            layer.refresh(extent=False, thumbnail=False, highlight=False)

    def show_hint(self, hint: Hint | None) -> None:
        """Show or remove the overlay of what the encoder sees, with a dot at the next click."""
        if hint is None:
            self.remove("hints")
            return
        picture = style.with_dot(hint)
        if self.has("hints"):
            self.layers["hints"].data = picture
            return
        from napari.layers import Image

        flat = style.flat_frame(self.image, self.pixels.factor)
        name = f"{self.pixels.name} hints"
        layer = Image(
            picture, rgb=True, name=name, opacity=0.6, metadata={OURS: self.pixels.name}, **flat
        )
        self.insert("hints", layer, self.image)

    def show_live(self, labels: IntArray | None, classes: Classes) -> None:
        """Show or remove what would be found now, (H, W), each pixel in the color of its class."""
        if labels is None:
            self.remove("live")
            return
        if self.has("live"):
            self.layers["live"].data = labels
            return
        from napari.layers import Labels

        layer = Labels(
            labels,
            name=f"{self.pixels.name} live",
            opacity=0.35,
            colormap=style.colormap({n: classes.style(n).color for n in classes.labels}),
            metadata={OURS: self.pixels.name},
            **style.flat_frame(self.image, self.pixels.factor),
        )
        layer.editable = False
        self.insert("live", layer, self.image)

    def has_drawn(self, index: tuple[int, ...]) -> bool:
        """Whether the layers hold the prompts of this slice, not still those of another."""
        return self._has_drawn and index == self._index

    # --- from the layers

    def _on_data(self, event: Any) -> None:
        for kind, callback in self._callbacks.items():
            if self.is_edit(event) and self.layers.get(kind) is event.source:
                line = self._scribbled() if kind == "boxes" else None
                callback() if line is None else self._on_stroke(line)

    def _scribbled(self) -> FloatArray | None:
        """A line in the boxes layer, where the next drawing leaves out what is no box."""
        layer = self.layers["boxes"]
        if not (layer.nshapes and layer.shape_type[-1] == "path"):
            return None
        return np.asarray(layer.data[-1], float)[:, -2:]

    def _painted_by_hand(self, _event: Any = None) -> None:
        """Read what was painted; once more soon, as napari tells of its lasso and bucket before."""
        self._read_brush()
        QTimer.singleShot(0, self._read_brush)

    def _read_brush(self) -> None:
        """Tell what differs from the masks that were painted last."""
        if not self._painted or not self.has("masks"):
            return
        index, masks = self._painted
        before = np.zeros(self.pixels.shape, np.int32)
        for number, mask in masks:
            mask.paint(before, number)
        now = np.array(self.layers["masks"].data[index])
        changed = now != before
        if not changed.any():
            return
        self._painted = ()  # a number may become another
        self._on_paint([(int(n), changed & (now == n)) for n in np.unique(now[changed])])

    def _keep_flat(self, _event: Any = None) -> None:
        """Each slice is painted by itself: a brush in 3-D would change some that are not shown."""
        if self.layers["masks"].n_edit_dimensions != 2:
            self.layers["masks"].n_edit_dimensions = 2

    def points(self) -> list[tuple[int, Point]]:
        """What the clicks layer holds: the object's number and the point.

        Not those of another slice, which stay in the layer until the new one is drawn.
        """
        here = self.index()
        return [(n, p) for at, n, p in point_rows(self.layers["clicks"]) if _is_on(here, at)]

    def boxes(self) -> list[tuple[int, Box]]:
        """What the boxes layer holds for the shown slice; of any shape its bounds."""
        layer, here = self.layers["boxes"], self.index()
        out: list[tuple[int, Box]] = []
        for corners, number in zip(layer.data, layer.features["object"], strict=True):
            flat = np.asarray(corners, float)[:, -2:]
            (r0, c0), (r1, c1) = flat.min(0), flat.max(0)
            if _is_on(here, corners[0]):
                out.append((int(number), (float(r0), float(c0), float(r1), float(c1))))
        return out

    # --- tools

    @property
    def is_active(self) -> bool:
        """Whether clicks and keys on the image come to our layers, not to one of the user's."""
        takers = [self.layers[kind] for kind in (*self._callbacks, "masks") if self.has(kind)]
        return self.viewer.layers.selection.active in takers

    def raise_above_images(self) -> None:
        """Put masks, boxes and clicks on top again, where an image was opened above them."""
        layers = self.viewer.layers
        own = [self.layers[kind] for kind in ("masks", "boxes", "clicks") if self.has(kind)]
        images = user_images(layers)
        if own and images and layers.index(images[-1]) > min(map(layers.index, own)):
            for layer in own:
                layers.move(layers.index(layer), len(layers))

    def use_points(self, sign: bool) -> None:
        """Let the next click be a positive or negative point."""
        self.sign = sign
        layer = self.layers["clicks"]
        with self.silent():
            layer.selected_data = set()
            next_point(layer, self.sign)
            if not self._resting:
                self.viewer.layers.selection.active = layer
                layer.mode = "add"

    def use_boxes(self) -> None:
        """Let the next drag be a box."""
        layer = self.layers["boxes"]
        self.viewer.layers.selection.active = layer
        layer.mode = "add_rectangle"

    def use_scribble(self) -> None:
        """Let the next drag be a stroke: by `sign` on the object, or on what is too much."""
        self.use_boxes()
        layer = self.layers["boxes"]
        layer.mode = "add_path"
        layer.current_edge_color = POSITIVE if self.sign else NEGATIVE

    def use_brush(self) -> None:
        """Let napari's brush correct the masks: it paints the current object."""
        layer = self.layers["masks"]
        self.viewer.layers.selection.active = layer
        layer.mode = "paint"

    def rest(self, on: bool) -> None:
        """While another step is shown, clicks on the image make no prompts."""
        self._resting = on
        for kind in ("masks", *self._callbacks):
            if on and self.has(kind):
                self.layers[kind].mode = "pan_zoom"

    def release(self, *, remove: bool) -> None:
        """Let go of the layers; masks stay in the viewer, clicks and boxes unless `remove`."""
        self._quiet = True
        if self.image in self.viewer.layers:
            self.show_hint(None)
            self.remove("live")
        if self.has("masks"):
            masks = self.layers["masks"]
            masks.events.paint.disconnect(self._read_brush)
            masks.events.n_edit_dimensions.disconnect(self._keep_flat)
            masks.editable = False  # nobody would keep what is painted now
        for kind in self._callbacks:
            if not self.has(kind):
                continue
            layer = self.layers[kind]
            layer.events.data.disconnect(self._on_data)
            layer.mode = "pan_zoom"
            if remove:
                self.viewer.layers.remove(layer)


def _covers(image: Any) -> bool:
    return bool(image.visible and image.opacity == 1 and str(image.blending) in _OPAQUE)


def _is_on(here: tuple[int, ...] | None, at: Any) -> bool:
    """Whether a place of the whole stack is on this slice."""
    return here is None or tuple(np.round(at[:-2]).astype(int)) == here
