"""The list of objects: number, class, confidence, clicks, time. A view: knows no jobs."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_samic.gui.state.classes import Classes
from napari_samic.gui.state.image_annotation import ImageAnnotation
from napari_samic.gui.state.objects import AnnotatedObject

COLUMNS = ("#", "Class", "Score", "Clicks", "Time")


class ObjectTable(QTableWidget):
    """See the module; `select` is called with the number of a row that was clicked."""

    def __init__(self, select: Callable[[int], None]) -> None:
        super().__init__(0, len(COLUMNS))
        self._select = select
        self.setHorizontalHeaderLabels(COLUMNS)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setShowGrid(False)
        self.setMinimumHeight(110)
        across, down = self.horizontalHeader(), self.verticalHeader()
        if across is not None and down is not None:
            across.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
            across.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
            across.setHighlightSections(False)
            down.hide()
            down.setDefaultSectionSize(22)
        self.cellClicked.connect(self._clicked)

    def sizeHint(self) -> QSize:
        """A few rows: more where the page has room, so that what is below stays in sight."""
        return self.minimumSize()

    def show_objects(self, annotation: ImageAnnotation | None, classes: Classes) -> None:
        """Show the objects of an image; cells that stay the same are left alone."""
        items = () if annotation is None else annotation.items
        self.setRowCount(len(items))
        selected = -1
        for row, item in enumerate(items):
            if annotation is not None:
                self._show_row(row, item, annotation, classes)
                selected = row if item.number == annotation.current else selected
        if selected < 0:
            self.clearSelection()
        elif self.currentRow() != selected or not self.selectedItems():
            self.selectRow(selected)
            if (cell := self.item(selected, 0)) is not None:
                self.scrollToItem(cell)

    def _show_row(
        self, row: int, item: AnnotatedObject, annotation: ImageAnnotation, classes: Classes
    ) -> None:
        cost, style = annotation.cost(item.number), classes.style(item.label)
        waiting = "drawn" if item.drawn is not None else "..."
        score = waiting if item.score is None else f"{item.score:.2f}"
        texts = (str(item.number), style.name, score, str(item.clicks), f"{cost.seconds:.0f} s")
        for column, text in enumerate(texts):
            cell = self.item(row, column)
            if cell is None:
                cell = QTableWidgetItem()
                self.setItem(row, column, cell)
            if cell.text() != text:
                cell.setText(text)
            if column == 1:
                cell.setForeground(QColor(style.color))

    def _clicked(self, row: int, _column: int) -> None:
        cell = self.item(row, 0)
        if cell is not None:
            self._select(int(cell.text()))
