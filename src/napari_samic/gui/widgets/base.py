"""Pieces that every step's widget is made of: a page that scrolls, and a call that comes later."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject, Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QScrollArea, QVBoxLayout, QWidget


def scrolled(annotation: QWidget, area: QScrollArea | None = None) -> QScrollArea:
    """The page in an area that scrolls up and down only; a new one unless one is given."""
    area = area or QScrollArea()
    area.setWidget(annotation)
    area.setWidgetResizable(True)
    area.setFrameShape(QScrollArea.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    return area


def with_foot(area: QScrollArea, foot: QWidget) -> QWidget:
    """A page that scrolls, and below it what always stays in sight."""
    page = QWidget()
    column = QVBoxLayout(page)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(0)
    column.addWidget(area, 1)
    column.addWidget(foot)
    return page


class CoalescedCall(QObject):
    """Calls once after `start`, before the window is drawn the next time.

    Qt draws before it looks at timers, also those of no wait, so that what they change is drawn
    once more. Where OpenGL is software each time takes 50 ms.
    """

    _due = Signal()

    def __init__(self, owner: QObject, act: Callable[[], None]) -> None:
        super().__init__(owner)
        self._act, self._waits = act, False
        self._due.connect(self._call, Qt.ConnectionType.QueuedConnection)

    def start(self) -> None:
        """Call once control is back at Qt; only once, however often this is called."""
        if not self._waits:
            self._waits = True
            self._due.emit()

    def _call(self) -> None:
        self._waits = False
        self._act()


def later(owner: QObject, wait_ms: int, act: Callable[[], None]) -> QTimer:
    """A timer that calls once, so long after it was last started, unless its owner is gone."""
    timer = QTimer(owner)
    timer.setSingleShot(True)
    timer.setInterval(wait_ms)
    timer.timeout.connect(act)
    return timer
