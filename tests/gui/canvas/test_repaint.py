"""A window that keeps still while a click is answered."""

import pytest

pytest.importorskip("qtpy")
from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QApplication, QDockWidget, QMainWindow, QWidget

from napari_samic.gui.canvas import repaint
from napari_samic.gui.canvas.repaint import RepaintBlocker


@pytest.fixture(autouse=True)
def slow_test(monkeypatch):
    """No drawing before the answer, however slow this machine is."""
    monkeypatch.setattr(repaint, "LONGEST_MS", 60_000)


class Painted(QWidget):
    count = 0

    def paintEvent(self, event):
        self.count += 1


@pytest.fixture
def window(qtbot):
    made = QMainWindow()
    qtbot.addWidget(made)
    made.setCentralWidget(Painted())
    with qtbot.waitExposed(made):
        made.show()
    qtbot.waitUntil(lambda: made.centralWidget().count > 0)
    QApplication.processEvents()
    return made


def test_nothing_is_drawn_until_the_end_and_then_what_was_asked_for(window, qtbot):
    part = window.centralWidget()
    still, before = RepaintBlocker(part), part.count
    still.begin()
    part.update()
    for _ in range(3):
        QApplication.processEvents()
    assert part.count == before
    still.end()
    qtbot.waitUntil(lambda: part.count == before + 1)
    part.update()
    qtbot.waitUntil(lambda: part.count == before + 2)  # Qt asks again by itself


def test_it_ends_by_itself(window, qtbot, monkeypatch):
    part = window.centralWidget()
    monkeypatch.setattr(repaint, "LONGEST_MS", 0)
    still, before = RepaintBlocker(part), part.count
    still.begin()
    part.update()
    qtbot.waitUntil(lambda: part.count == before + 1)
    assert still.is_idle


def test_what_follows_at_once_does_not_take_the_frame_that_is_owed(window, qtbot):
    part = window.centralWidget()
    still, before = RepaintBlocker(part), part.count
    for _ in range(6):  # a row of questions: each begins before Qt draws
        still.begin()
        part.update()
        QApplication.processEvents()
        still.end()
    assert part.count >= before + 3
    qtbot.waitUntil(lambda: still.is_idle)
    drawn = part.count
    still.begin()
    part.update()
    for _ in range(3):
        QApplication.processEvents()
    assert part.count == drawn  # held back again, now that the frame was drawn


def test_a_dock_that_floats_keeps_its_main_window_still(window, qtbot):
    inside = QWidget()
    dock = QDockWidget()
    dock.setWidget(inside)
    window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)
    dock.setFloating(True)
    QApplication.processEvents()
    part = window.centralWidget()
    still, before = RepaintBlocker(inside), part.count
    still.begin()
    part.update()
    for _ in range(3):
        QApplication.processEvents()
    assert part.count == before


def test_it_survives_its_window(qtbot):
    window = QMainWindow()
    part = Painted()
    window.setCentralWidget(part)
    with qtbot.waitExposed(window):
        window.show()
    qtbot.waitUntil(lambda: part.count > 0)
    still, gone = RepaintBlocker(part), []
    still.begin()
    part.update()
    QApplication.processEvents()  # asked for a frame, which is owed now
    still.setParent(None)
    window.destroyed.connect(lambda: gone.append(True))
    window.deleteLater()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    assert gone
    still.end()
