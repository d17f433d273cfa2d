"""The boxes in which image, colors and model are chosen: fills them, and says what was chosen.

Must not know what happens then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox

from napari_samic.gui.annotate.view import AnnotatePanel
from napari_samic.gui.data import layer_choice
from napari_samic.gui.session import preferences

FILE_CHOICE = "a weights file ..."


class Chooser:
    """See the module.

    Parameters
    ----------
    viewer : napari.Viewer
    panel : AnnotatePanel
        Its boxes `image`, `channels` and `model` are filled.
    """

    def __init__(self, viewer: Any, panel: AnnotatePanel) -> None:
        self.viewer, self.panel = viewer, panel

    def fill_images(self, chosen: Any | None, colors: Sequence[Any] = ()) -> bool:
        """List the image layers, keep the chosen one; False if that is gone.

        Parameters
        ----------
        chosen : napari.layers.Image or None
        colors : sequence of napari.layers.Image
            The layers as which it is seen.
        """
        box, layers = self.panel.image, layer_choice.image_layers(self.viewer)
        _refill(box, [(str(layer.name), layer) for layer in layers])
        box.setCurrentIndex(layers.index(chosen) if chosen in layers else -1)
        self._fill_colors(chosen if chosen in layers else None, colors)
        return chosen is None or chosen in layers

    def _fill_colors(self, image: Any | None, colors: Sequence[Any]) -> None:
        """List how the image may be seen; the box is hidden if there is but one way."""
        box = self.panel.channels
        options = [] if image is None else layer_choice.color_choices(self.viewer, image)
        _refill(box, options)
        ways = [layers for _, layers in options]
        box.setCurrentIndex(ways.index(tuple(colors)) if tuple(colors) in ways else 0)
        self.panel.choices.setRowVisible(box, len(options) > 1)

    def image(self) -> Any | None:
        """The chosen image layer; a good first one if none is."""
        layers = layer_choice.image_layers(self.viewer)
        layer = self.panel.image.currentData() or layer_choice.first_choice(self.viewer)
        if layer in layers:
            self.panel.image.setCurrentIndex(layers.index(layer))
        return layer

    def fill_models(self) -> None:
        """List the segmenters; those that are not on this machine are grey and say why."""
        box = self.panel.model
        for row, (name, problem) in enumerate(layer_choice.models()):
            box.addItem(f"{name}  (not fetched)" if problem else name, name)
            box.setItemData(row, problem or name, Qt.ItemDataRole.ToolTipRole)
            if problem:
                box.setItemData(row, 0, Qt.ItemDataRole.UserRole - 1)  # Qt's own way to grey it out
        box.addItem(FILE_CHOICE, "")
        if not self.offers(preferences.model()):
            self.offers(preferences.DEFAULT_MODEL)

    def offers(self, name: str) -> bool:
        """Whether a model can be used here; if so, show it as the chosen one."""
        box, problems = self.panel.model, dict(layer_choice.models())
        if problems.get(name, "?") and not Path(name.removeprefix("path:")).is_file():
            return False
        if box.findData(name) < 0:
            box.insertItem(box.count() - 1, Path(name.removeprefix("path:")).name, name)
        box.setCurrentIndex(box.findData(name))
        return True

    def model(self, ask_file: Callable[[str], Any], before: str) -> str:
        """The chosen model; for a file of the user's, ask which."""
        box = self.panel.model
        name = str(box.currentData())
        if not name:
            path = ask_file("Weights of a segmenter")
            name = f"path:{path}" if path else before
            if box.findData(name) < 0:
                box.insertItem(box.count() - 1, getattr(path, "name", name), name)
        box.setCurrentIndex(box.findData(name))
        return name


def _refill(box: QComboBox, entries: list[tuple[str, Any]]) -> None:
    box.blockSignals(True)
    box.clear()
    for text, data in entries:
        box.addItem(text, data)
    box.blockSignals(False)
