"""The curves of a training: loss and held-out score by epoch. Draws what it is given."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_samic.gui.train.progress import TrainingHistory, finite

LOSS, SCORE = "#35b8ff", "#ffb224"
_MOST = 400
"""Points of a curve that are drawn."""


class CurvePlot(QWidget):
    """Loss on the left axis, score on the right one from 0 to 1, the best epoch marked."""

    def __init__(self) -> None:
        super().__init__()
        self.history = TrainingHistory()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "<qt>Blue: training loss of the encoder's batches, or mean of each epoch of SAMIC's "
            "own network, where the ring marks the best, whose weights are kept. Orange: "
            "correlation of predicted and true heat map on the references that "
            "are kept aside, at most 1; there are some from four references on.</qt>"
        )

    def sizeHint(self) -> QSize:
        """Wide and low."""
        return QSize(240, 132)

    def show_curves(self, history: TrainingHistory) -> None:
        """Show curves as they are now."""
        self.history = history
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw."""
        del event
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = painter.font()
        font.setPointSizeF(max(7.0, font.pointSizeF() * 0.85))
        painter.setFont(font)
        text = self.palette().text().color()
        place = QRectF(40, 20, self.width() - 72, self.height() - 38)
        self._draw_frame(painter, place, text)
        if finite(self.history.losses):
            self._draw_curves(painter, place, text)
        else:
            painter.setPen(_faint(text, 120))
            painter.drawText(place, Qt.AlignmentFlag.AlignCenter, "no epoch yet")
        painter.end()

    def _draw_frame(self, painter: QPainter, place: QRectF, text: QColor) -> None:
        painter.setPen(QPen(_faint(text, 60), 1))
        painter.drawRect(place)
        top = QRectF(0, 1, self.width(), 17)
        middle = Qt.AlignmentFlag.AlignVCenter
        best = self.history.best
        caption = (
            "loss" if best is None else f"loss {self.history.losses[best]:.3f} at epoch {best}"
        )
        if self.history.batches and self.history.losses:
            caption = f"loss {self.history.losses[max(self.history.losses)]:.3f}"
        painter.setPen(QColor(LOSS))
        painter.drawText(top, middle | Qt.AlignmentFlag.AlignLeft, caption)
        scores = self.history.scores
        painter.setPen(QColor(SCORE))
        latest = f"held out {scores[max(scores)]:.3f}" if scores else "held out"
        painter.drawText(top, middle | Qt.AlignmentFlag.AlignRight, latest)

    def _draw_curves(self, painter: QPainter, place: QRectF, text: QColor) -> None:
        losses, scores = self.history.losses, self.history.scores
        last = max(2, *losses, *(scores or [0]))
        known = finite(losses).values()
        low, high = min(known), max(known)
        high = high if high > low else low + 1
        _draw_axis(painter, QRectF(0, place.top(), 36, place.height()), (low, high), LOSS, "right")
        if scores:
            right = QRectF(place.right() + 4, place.top(), 30, place.height())
            _draw_axis(painter, right, (0.0, 1.0), SCORE, "left")
            _draw_line(painter, _points(scores, place, last, 0.0, 1.0), SCORE)
        _draw_line(painter, _points(losses, place, last, low, high), LOSS)
        best = self.history.best
        if best is not None:
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawEllipse(_points({best: losses[best]}, place, last, low, high)[0], 4.0, 4.0)
        painter.setPen(_faint(text, 150))
        below = QRectF(place.left(), place.bottom() + 1, place.width(), 16)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, "1")
        painter.drawText(
            below, Qt.AlignmentFlag.AlignHCenter, "batch" if self.history.batches else "epoch"
        )
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, str(last))


def _points(
    values: Mapping[int, float], place: QRectF, last: int, low: float, high: float
) -> list[QPointF]:
    """Where values by epoch are in a frame; of many, some."""
    known = sorted(finite(values).items())
    sampled = known[:: max(1, len(known) // _MOST)]
    sampled += known[-1:] if sampled and sampled[-1] != known[-1] else []
    return [
        QPointF(
            place.left() + place.width() * (n - 1) / (last - 1),
            place.bottom() - place.height() * (min(max(v, low), high) - low) / (high - low),
        )
        for n, v in sampled
    ]


def _draw_line(painter: QPainter, points: list[QPointF], color: str) -> None:
    painter.setPen(QPen(QColor(color), 1.6))
    painter.setBrush(QColor(color))
    if len(points) > 1:
        painter.drawPolyline(QPolygonF(points))
    elif points:
        painter.drawEllipse(points[0], 1.5, 1.5)


def _draw_axis(
    painter: QPainter, place: QRectF, ends: tuple[float, float], color: str, side: str
) -> None:
    """The two ends of an axis, as numbers beside the frame."""
    across = Qt.AlignmentFlag.AlignRight if side == "right" else Qt.AlignmentFlag.AlignLeft
    painter.setPen(QColor(color))
    for value, down in zip(
        ends, (Qt.AlignmentFlag.AlignBottom, Qt.AlignmentFlag.AlignTop), strict=True
    ):
        painter.drawText(place, across | down, f"{value:.3g}")


def _faint(color: QColor, alpha: int) -> QColor:
    out = QColor(color)
    out.setAlpha(alpha)
    return out
