"""The window keeps still while a click is answered, so that the answer is not kept waiting.

napari's window handles `event` in Python, so Qt draws it with Python's lock held: with software
OpenGL 50 ms for a frame, in which a worker can't begin its next operation. A click and its mask in
one frame come 40 ms sooner than in two (measured with `benchmarks/window.py`).
"""

from __future__ import annotations

from contextlib import suppress

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication, QWidget

from napari_samic.gui.parts import later

LONGEST_MS = 80
"""After this the window is drawn though there is no answer: a click must be seen."""


class Stillness(QObject):
    """Holds back the drawing of the window that a widget is in, for a moment."""

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        self._window: QWidget | None = None
        self._is_due = False
        self._timer = later(self, LONGEST_MS, self.end)

    def begin(self) -> None:
        """Draw nothing until `end`, or for the longest time."""
        window = self._widget.window()
        if self._window is None and window is not None:
            self._window, self._is_due = window, False
            window.installEventFilter(self)
            self._timer.start()

    def end(self) -> None:
        """Draw what was held back."""
        self._timer.stop()
        window, self._window = self._window, None
        if window is None:
            return
        with suppress(RuntimeError):  # the window is gone
            window.removeEventFilter(self)
            if self._is_due:
                QApplication.postEvent(window, QEvent(QEvent.Type.UpdateRequest))

    def eventFilter(self, _watched: QObject | None, event: QEvent | None) -> bool:
        """Swallow the request to draw; Qt makes no second one until the first was answered."""
        if event is None or event.type() != QEvent.Type.UpdateRequest:
            return False
        self._is_due = True
        return True
