"""A strip of small pictures; a click on one brings its image up.

A view: shows what it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QListView, QListWidget, QListWidgetItem

from napari_samic.gui.state.thumbnails import SIDE_PX, Thumb


class ThumbList(QListWidget):
    """See the module; `select` is called with the name of a picture that was clicked."""

    def __init__(self, select: Callable[[str], None]) -> None:
        super().__init__()
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setMovement(QListView.Movement.Static)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setIconSize(QSize(SIDE_PX, SIDE_PX))
        self.setGridSize(QSize(SIDE_PX + 8, SIDE_PX + 24))
        self.setUniformItemSizes(True)
        self.setTextElideMode(Qt.TextElideMode.ElideLeft)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFixedHeight(SIDE_PX + 32)
        self.setStyleSheet(
            "QListWidget::item:selected { background: rgba(53, 184, 255, 70); "
            "border: 2px solid #35b8ff; border-radius: 3px; }"
        )
        self.itemClicked.connect(lambda item: select(str(item.data(Qt.ItemDataRole.UserRole))))

    def show_thumbs(self, thumbs: Sequence[Thumb], chosen: str) -> None:
        """Show pictures in their order; more than one row scrolls."""
        self.clear()
        for thumb in thumbs:
            item = QListWidgetItem(_icon(thumb), f"{thumb.name} · {thumb.objects}")
            item.setData(Qt.ItemDataRole.UserRole, thumb.name)
            item.setToolTip(_tooltip_text(thumb))
            item.setTextAlignment(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignBottom)
            self.addItem(item)
            if thumb.name == chosen:
                self.setCurrentItem(item)
        self.setVisible(bool(thumbs))
        rows = 2 if len(thumbs) > 3 else 1
        self.setFixedHeight(rows * (SIDE_PX + 24) + 8)


def _tooltip_text(thumb: Thumb) -> str:
    count = f"{thumb.objects} object{'s' * (thumb.objects != 1)}"
    rest = "Click to show the image." if thumb.is_open else "Open it in napari to show it."
    return f"{thumb.name}: {count}. {thumb.why or rest}"


def _icon(thumb: Thumb) -> QIcon:
    picture = thumb.picture if thumb.overlay is None else thumb.overlay
    pixels = np.ascontiguousarray(picture)
    height, width = pixels.shape[:2]
    image = QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    drawn, out = QPixmap.fromImage(image.copy()), QIcon()
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):  # else Qt tints the chosen one
        out.addPixmap(drawn, mode)
    return out
