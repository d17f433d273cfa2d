"""The objects of all results as dots, by two figures; a click on a dot shows the object.

A view: it decides nothing. Must not know jobs, layers or models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QHelpEvent, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QToolTip, QVBoxLayout, QWidget

from napari_samic.gui.review.presenter import ObjectFigures, ReviewModel

AXES = {"Area, px": "area_px", "Brightness": "brightness", "Score": "score"}
"""Title of an axis to the figure of `ObjectFigures`."""
REACH_PX = 10.0
"""So far from a dot it is still meant."""


class ScatterPlot(QWidget):
    """Dots in a frame.

    Parameters
    ----------
    choose : callable
        Called with the number of the dot that was clicked.
    """

    def __init__(self, choose: Callable[[int], None]) -> None:
        super().__init__()
        self._choose = choose
        self._values = np.zeros((0, 2))
        self._colors: list[str] = []
        self._texts: Sequence[str] = ()
        self.chosen: int | None = None
        self.setAccessibleName("objects of all results")

    def sizeHint(self) -> QSize:
        """As wide as it may be, and as high."""
        return QSize(260, 260)

    def show_dots(self, values: np.ndarray, colors: list[str], texts: Sequence[str]) -> None:
        """Show other dots: (N, 2) figures, a color and a line of text each."""
        self._values, self._colors, self._texts = values, colors, texts
        self.chosen = None
        self.update()

    @property
    def _frame(self) -> QRectF:
        return QRectF(8, 8, max(1, self.width() - 16), max(1, self.height() - 30))

    def places(self) -> np.ndarray:
        """(N, 2) x and y of the dots on the widget."""
        frame = self._frame.adjusted(6, 6, -6, -6)
        low, high = self._ends()
        share = (self._values - low) / np.where(high > low, high - low, 1)
        return np.column_stack(
            [frame.left() + frame.width() * share[:, 0],
             frame.bottom() - frame.height() * share[:, 1]]
        )  # fmt: skip

    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        if not len(self._values):
            return np.zeros(2), np.ones(2)
        return self._values.min(0), self._values.max(0)

    def end_texts(self) -> tuple[str, ...]:
        """What stands at the ends of the axes: left, right, bottom, top."""
        return tuple(f"{end:.7g}" for ends in zip(*self._ends(), strict=True) for end in ends)

    def dot_at(self, at: QPointF) -> int | None:
        """The nearest dot within reach."""
        if not len(self._values):
            return None
        away = np.hypot(*(self.places() - (at.x(), at.y())).T)
        nearest = int(away.argmin())
        return nearest if away[nearest] <= REACH_PX else None

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw."""
        del event
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().text().color()
        painter.setPen(QPen(text, 0.5))
        painter.drawRect(self._frame)
        if not len(self._values):
            painter.drawText(self._frame, Qt.AlignmentFlag.AlignCenter, "no objects yet")
            return
        left, right, bottom, top = self.end_texts()
        below = QRectF(8, self.height() - 20, self.width() - 16, 18)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, left)
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, right)
        inner = self._frame.adjusted(3, 1, -3, -1)
        painter.drawText(inner, Qt.AlignmentFlag.AlignTop, top)
        painter.drawText(inner, Qt.AlignmentFlag.AlignBottom, bottom)
        places, colors = self.places(), np.array(self._colors)
        for color in dict.fromkeys(self._colors):
            painter.setPen(QPen(QColor(color), 5, cap=Qt.PenCapStyle.RoundCap))
            painter.drawPoints(QPolygonF([QPointF(x, y) for x, y in places[colors == color]]))
        if self.chosen is not None:
            painter.setPen(QPen(text, 1.5))
            painter.drawEllipse(QPointF(*places[self.chosen]), 6.0, 6.0)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Choose a dot."""
        if event is not None and (number := self.dot_at(event.position())) is not None:
            self.chosen = number
            self.update()
            self._choose(number)

    def event(self, event: QEvent | None) -> bool:
        """Say what the mouse is over."""
        if isinstance(event, QHelpEvent):
            number = self.dot_at(QPointF(event.pos()))
            QToolTip.showText(event.globalPos(), "" if number is None else self._texts[number])
            return True
        return bool(super().event(event))


class ObjectsView(QWidget):
    """See the module.

    Parameters
    ----------
    review : ReviewModel
    go : callable
        Called with the ObjectFigures that were clicked.
    """

    def __init__(self, review: ReviewModel, go: Callable[[ObjectFigures], None]) -> None:
        super().__init__()
        self.review, self._go = review, go
        self._objects: list[ObjectFigures] = []
        self.across, self.up = QComboBox(), QComboBox()
        for box, title in ((self.across, "Area, px"), (self.up, "Score")):
            box.addItems(list(AXES))
            box.setCurrentText(title)
            box.currentIndexChanged.connect(self.refresh)
        self.plot, self.text = ScatterPlot(self._clicked), QLabel()
        self.text.setWordWrap(True)
        layout, form = QVBoxLayout(self), QFormLayout()
        layout.setContentsMargins(8, 6, 8, 6)
        form.addRow("Across", self.across)
        form.addRow("Up", self.up)
        layout.addLayout(form)
        layout.addWidget(self.plot, 1)
        layout.addWidget(self.text)

    def refresh(self) -> None:
        """Show the objects that there are now."""
        names = [AXES[box.currentText()] for box in (self.across, self.up)]
        objects = self.review.object_figures()
        self._objects = [o for o in objects if None not in [getattr(o, n) for n in names]]
        values = [[float(getattr(o, n)) for n in names] for o in self._objects]
        classes = self.review.session.scheduler.state.classes
        colors = [classes.style(o.label).color for o in self._objects]
        self.plot.show_dots(
            np.array(values, float).reshape(-1, 2), colors, [o.text for o in self._objects]
        )
        rest = len(objects) - len(self._objects)
        lacking = f" {rest} have no such figure." if rest else ""
        self.text.setText(f"{len(self._objects)} objects; click on one to see it.{lacking}")

    def _clicked(self, number: int) -> None:
        self.text.setText(self._objects[number].text)
        self._go(self._objects[number])
