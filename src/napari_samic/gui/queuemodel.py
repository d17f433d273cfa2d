"""The queue as a table. A view: it decides nothing. Must not know jobs, layers or models."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt
from qtpy.QtWidgets import QStyledItemDelegate

from napari_samic.gui.review import MARKS, Reviewer

COLUMNS = ("", "Image", "Score", "Doubt")


class QueueModel(QAbstractTableModel):
    """The queue as a table; asks for what is seen only, so it may be long."""

    def __init__(self, review: Reviewer) -> None:
        super().__init__()
        self.review = review

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: D102
        return 0 if parent is not None and parent.isValid() else len(self.review.order)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: ARG002, D102
        return len(COLUMNS)

    def headerData(self, section: int, way: Any, role: int = 0) -> Any:  # noqa: D102
        shown = role == Qt.ItemDataRole.DisplayRole and way == Qt.Orientation.Horizontal
        return COLUMNS[section] if shown else None

    def data(self, index: QModelIndex, role: int = 0) -> Any:  # noqa: D102
        if role == Qt.ItemDataRole.DisplayRole:
            return self._cell(index.row(), index.column())
        if role == Qt.ItemDataRole.ToolTipRole:
            return self.review.order[index.row()].text
        return None

    def _cell(self, row: int, column: int) -> str:
        doubt = self.review.order[row]
        if column == 0:
            return MARKS[self.review.opinion(doubt.name).verdict]
        if column == 2:
            score = self.review.looked.facts[doubt.name].score if self.review.looked else None
            return "" if score is None else f"{score:.2f}"
        return doubt.name if column == 1 else (doubt.text if doubt.reasons else "")

    def renew(self) -> None:
        """Other results."""
        self.beginResetModel()
        self.endResetModel()

    def renew_marks(self) -> None:
        """Other verdicts."""
        if self.review.order:
            last = self.index(len(self.review.order) - 1, 0)
            self.dataChanged.emit(self.index(0, 0), last)


class Names(QStyledItemDelegate):
    """Names are cut in the middle, for they differ at their ends."""

    def initStyleOption(self, option: Any, index: QModelIndex) -> None:  # noqa: D102
        super().initStyleOption(option, index)
        option.textElideMode = Qt.TextElideMode.ElideMiddle
