"""The layers of Propagate: the preview of a slice, the results of a stack, an image of a folder.

Preview layers lie flat over the slice that they were made of, and go when another is shown. The
results are one Labels layer for the whole stack; it is seen while the step is shown and no preview
lies over it. Layers of other steps are put aside meanwhile. Must not know jobs or the project.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from napari_samic.core.types import HeatMap, Segmentation
from napari_samic.gui.canvas import style
from napari_samic.gui.canvas.owned_layers import OURS, OwnedLayers
from napari_samic.gui.canvas.visibility import SUFFIX, LayerVisibility
from napari_samic.gui.data.lazy_labels import LabelStack
from napari_samic.gui.propagate.jobs import FolderImage, Preview

PREVIEW = ("heat map", "preview masks", "predicted points")
"""From below to the top."""
MOST_POINTS = 500
"""Of more, points and their scores would hide the image, and take napari minutes."""
OUTLINE = "#5fe3ff"
"""Of the masks of a preview: to be seen over a heat map, where napari's own colors may be dark."""


class PropagationLayers(OwnedLayers):
    """See the module.

    Parameters
    ----------
    viewer : napari.Viewer
    on_paint : callable
        Called at the end of a stroke on the results.
    """

    def __init__(self, viewer: Any, on_paint: Callable[[], None]) -> None:
        super().__init__(viewer)
        self._on_paint = on_paint
        self._visibility = LayerVisibility(viewer)
        self._covered: Any | None = None
        self._results: LabelStack | list[Any] | None = None

    # --- preview

    def show_preview(
        self, image: Any, factor: float, heat: HeatMap | None, preview: Preview | None
    ) -> None:
        """Show what is known of the preview; of a large image there is no heat map."""
        if (heat is None and preview is None) or image not in self.viewer.layers:
            self.hide_preview()
            return
        flat = style.flat_frame(image, factor)
        if heat is not None:
            self._show_heat(image, heat, flat)
        if preview is not None:
            self._show_masks(image, preview, flat)
            self._show_points(image, preview.result, flat)

    def hide_preview(self) -> None:
        """Take the layers of the preview away."""
        for kind in PREVIEW:
            self.remove(kind)

    def _show_heat(self, image: Any, heat: HeatMap, flat: dict[str, Any]) -> None:
        values = heat.values
        top = float(max(values.max(), 1e-6))
        if self.has("heat map"):
            layer = self.layers["heat map"]
            layer.data, layer.contrast_limits = values, (0.0, top)
            return
        from napari.layers import Image

        self._add("heat map", image, Image(
            values, opacity=0.7, contrast_limits=(0.0, top), metadata={OURS: True},
            **style.heat(), **flat,
        ))  # fmt: skip

    def _show_masks(self, image: Any, preview: Preview, flat: dict[str, Any]) -> None:
        labels = preview.levels or np.array(preview.result.labels)
        if self.has("preview masks") and self.layers["preview masks"].multiscale == isinstance(
            labels, list
        ):
            self.layers["preview masks"].data = labels
            return
        self.remove("preview masks")
        from napari.layers import Labels
        from napari.utils.colormaps import DirectLabelColormap

        bright = DirectLabelColormap(color_dict={None: OUTLINE, 0: "transparent"})
        layer = Labels(labels, colormap=bright, opacity=1.0,
                       metadata={OURS: True}, **flat)  # fmt: skip
        layer.contour = 2  # the heat map below stays to be seen
        layer.editable = False
        self._add("preview masks", image, layer)

    def _show_points(self, image: Any, segmentation: Segmentation, flat: dict[str, Any]) -> None:
        from napari.layers import Points

        places = [
            (p.points_rc[0], s)
            for p, s in zip(segmentation.objects, segmentation.scores, strict=True)
        ]
        data = np.array([at for at, _ in places], float).reshape(-1, 2)
        scores = np.array([float(score) for _, score in places])
        self.remove("predicted points")
        if len(places) > MOST_POINTS:
            return
        self._add("predicted points", image, Points(
            data, size=max(3.0, max(segmentation.labels.shape) / 60), canvas_size_limits=(2, 16),
            face_color="#ffe14d", border_color="#101010", border_width=0.12,
            features={"score": scores}, metadata={OURS: True}, **flat,
            text={"string": "{score:.2f}", "size": 9, "color": "white",
                  "anchor": "upper_left", "translation": np.array([0.0, 3.0])},
        ))  # fmt: skip

    # --- results

    def show_results(
        self, image: Any, factor: float, name: str, labels: LabelStack | list[Any] | None
    ) -> None:
        """Show the results of a stack, or levels of those of a large image; of None, none."""
        if self.has("results") and self._results is labels:
            return
        self._release_results(remove=True)
        self._results = labels
        if labels is None or image not in self.viewer.layers:
            return
        from napari.layers import Labels

        mark = {OURS: f"{name} results"}
        for left in [
            other for other in self.viewer.layers if other.metadata.get(OURS) == mark[OURS]
        ]:
            self.viewer.layers.remove(left)  # of the time before the dock was closed
        layer = Labels(labels, opacity=0.55, metadata=mark, **style.frame(image, factor))
        self._add("results", image, layer, above=True)
        layer.events.paint.connect(self._painted)

    def refresh_results(self) -> None:
        """The labels of the shown slice changed."""
        if self.has("results"):
            self.layers["results"].refresh(extent=False, thumbnail=False, highlight=False)

    def arrange(self, *, is_shown: bool, previewing: bool = False) -> None:
        """Let one thing be seen: results or preview, and none of it while another step is shown.

        Parameters
        ----------
        is_shown : bool
            Whether the step is.
        previewing : bool
            The preview is on, also where its layers are yet to come.
        """
        if is_shown:
            self._visibility.hide(keep=self.layers.values())
        else:
            self._visibility.bring_back()
        layer = self.layers["results"] if self.has("results") else None
        wanted = is_shown and not previewing
        if layer is not None and layer.visible and not wanted:
            layer.visible, self._covered = False, layer
        elif wanted and self._covered is not None:
            self._covered.visible, self._covered = True, None

    def _painted(self, _event: Any = None) -> None:
        self._on_paint()

    def _release_results(self, *, remove: bool) -> None:
        layer = self.layers.get("results")
        if layer is None:
            return
        with suppress(ValueError, RuntimeError):
            layer.events.paint.disconnect(self._painted)
        if remove:
            self.remove("results")
        else:
            layer.editable = False  # nobody would keep what is painted now

    # --- an image of a folder

    def show_folder_image(self, folder_image: FolderImage) -> None:
        """Show an image with its labels, in place of the one before."""
        from napari.layers import Image, Labels

        self.remove("labels")
        self.remove("image")
        picture = Image(
            folder_image.image,
            rgb=True,
            name=f"{folder_image.label} {SUFFIX}",
            metadata={OURS: True},
        )
        labels = Labels(
            folder_image.labels, name=f"{folder_image.label} labels {SUFFIX}", opacity=0.55
        )
        labels.metadata[OURS] = True
        labels.editable = False
        for kind, layer in (("image", picture), ("labels", labels)):
            self.layers[kind] = layer
            self.viewer.add_layer(layer)
        self.viewer.reset_view()

    # --- all of them

    def _add(self, kind: str, image: Any, layer: Any, *, above: bool = False) -> None:
        """Put a layer above the image, the kinds in their order; what is active stays active."""
        layer.name = f"{image.name} {kind} {SUFFIX}"
        under = () if above else PREVIEW[: PREVIEW.index(kind)]
        below = [self.layers[k] for k in (*under, "results") if self.has(k)]
        self.insert(kind, layer, image, *below)

    def release(self) -> None:
        """Let go of all layers: the preview and the image of a folder go, results stay."""
        self._visibility.bring_back()
        if self._covered is not None:
            self._covered.visible = True
        self._release_results(remove=False)
        for kind in (*PREVIEW, "labels", "image"):
            self.remove(kind)
        self.layers.clear()
