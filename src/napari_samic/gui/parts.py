"""Pieces that every step's widget is made of: a page that scrolls, and a call that comes later."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtWidgets import QScrollArea, QWidget


def scrolled(page: QWidget, area: QScrollArea | None = None) -> QScrollArea:
    """The page in an area that scrolls up and down only; a new one unless one is given."""
    area = area or QScrollArea()
    area.setWidget(page)
    area.setWidgetResizable(True)
    area.setFrameShape(QScrollArea.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    return area


def later(owner: QObject, wait_ms: int, act: Callable[[], None]) -> QTimer:
    """A timer that calls once, so long after it was last started, unless its owner is gone."""
    timer = QTimer(owner)
    timer.setSingleShot(True)
    timer.setInterval(wait_ms)
    timer.timeout.connect(act)
    return timer
