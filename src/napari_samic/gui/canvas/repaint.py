"""The window keeps still while a click is answered, so that the answer is not kept waiting.

napari's window handles `event` in Python, so Qt draws it with Python's lock held: with software
OpenGL 50 ms for a frame, in which a worker can't begin its next operation. A click and its mask in
one frame come 40 ms sooner than in two (measured with `benchmarks/window.py`). Must not know steps.
"""

from __future__ import annotations

from contextlib import suppress

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QApplication, QWidget

from napari_samic.gui.widgets.base import later

LONGEST_MS = 80
"""After this the window is drawn though there is no answer: a click must be seen."""


class RepaintBlocker(QObject):
    """Holds back the drawing of the window that a widget is in, for a moment.

    Between two moments the window is drawn at least once, however fast questions follow.
    """

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        self._window: QObject | None = None
        self._holds = self._is_due = False
        self._timer = later(self, LONGEST_MS, self.end)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held back and no frame is owed."""
        return self._window is None

    def begin(self) -> None:
        """Draw nothing until `end`, or for the longest time; not while a frame is owed."""
        if not self.is_idle:
            return
        self._window = self._widget
        while (above := self._window.parent()) is not None:  # also of a dock that floats
            self._window = above
        self._holds, self._is_due = True, False
        self._window.installEventFilter(self)
        self._timer.start()

    def end(self) -> None:
        """Draw what was held back, after what Qt has to tell."""
        self._timer.stop()
        self._holds = False
        if not self._is_due:
            self._let_go()
        elif self._window is not None:
            request = QEvent(QEvent.Type.UpdateRequest)
            low = int(Qt.EventPriority.LowEventPriority.value)  # type: ignore[call-overload]
            with suppress(RuntimeError):  # the window is gone
                QApplication.postEvent(self._window, request, low)

    def eventFilter(self, _watched: QObject | None, event: QEvent | None) -> bool:
        """Swallow the request to draw; Qt makes no second one until the first was answered."""
        if event is None or event.type() != QEvent.Type.UpdateRequest:
            return False
        if self._holds:
            self._is_due = True
            return True
        self._let_go()
        return False

    def _let_go(self) -> None:
        window, self._window = self._window, None
        self._is_due = False
        if window is not None:
            with suppress(RuntimeError):
                window.removeEventFilter(self)
