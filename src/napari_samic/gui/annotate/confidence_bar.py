"""The confidence of the current object: a bar, its story, and whether more clicks would help.

Draws what it is given; knows no state.
"""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

LOW, MIDDLE, GOOD = "#ff5c5c", "#ffb224", "#3fcf6d"


class ConfidenceBar(QWidget):
    """A bar from 0 to 1 with its number, and a line of the confidences so far."""

    def __init__(self) -> None:
        super().__init__()
        self.scores: tuple[float, ...] = ()
        self.value: float | None = None
        self.steady = False
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "The model's own estimate of how good the shown mask is, and how it went from click to "
            "click. 'Steady': two clicks in a row changed it by less than 0.01, however high it is."
        )

    def sizeHint(self) -> QSize:
        """Two lines."""
        return QSize(220, 58)

    def show_scores(self, value: float | None, scores: Sequence[float], steady: bool) -> None:
        """Show the confidence of the mask, those of all clicks, and whether they settled."""
        self.value, self.scores, self.steady = value, tuple(scores), steady
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw."""
        del event
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().text().color()
        top = QRectF(0, 2, self.width(), 22)
        self._draw_bar(painter, top, text)
        self._draw_story(painter, QRectF(4, 30, self.width() - 8, self.height() - 34), text)
        painter.end()

    def _draw_bar(self, painter: QPainter, place: QRectF, text: QColor) -> None:
        ground = QColor(text)
        ground.setAlpha(40)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(ground)
        painter.drawRoundedRect(place, 4, 4)
        if self.value is not None:
            full = QRectF(place)
            full.setWidth(max(6.0, place.width() * min(max(self.value, 0.0), 1.0)))
            fill = QColor(_color(self.value))
            fill.setAlpha(190)
            painter.setBrush(fill)
            painter.drawRoundedRect(full, 4, 4)
        painter.setPen(text)
        inner = place.adjusted(8, 0, -8, 0)
        left = "confidence" + ("" if self.value is None else f"  {self.value:.2f}")
        middle = Qt.AlignmentFlag.AlignVCenter
        painter.drawText(inner, middle | Qt.AlignmentFlag.AlignLeft, left)
        right = "steady" if self.steady else ""
        painter.drawText(inner, middle | Qt.AlignmentFlag.AlignRight, right)

    def _draw_story(self, painter: QPainter, place: QRectF, text: QColor) -> None:
        if not self.scores:
            return
        recent = self.scores[-24:]
        step = place.width() / max(8, len(recent) - 1)
        points = [
            QPointF(
                place.left() + i * step, place.bottom() - place.height() * min(max(s, 0.0), 1.0)
            )
            for i, s in enumerate(recent)
        ]
        line = QColor(text)
        line.setAlpha(150)
        painter.setPen(QPen(line, 1.4))
        painter.drawPolyline(QPolygonF(points))
        painter.setPen(Qt.PenStyle.NoPen)
        for point, score in zip(points, recent, strict=True):
            painter.setBrush(QColor(_color(score)))
            painter.drawEllipse(point, 3.0, 3.0)


def _color(score: float) -> str:
    return GOOD if score >= 0.8 else MIDDLE if score >= 0.5 else LOW
