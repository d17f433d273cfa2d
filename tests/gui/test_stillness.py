"""A window that keeps still while a click is answered."""

import pytest

pytest.importorskip("qtpy")
from qtpy.QtWidgets import QApplication, QMainWindow, QWidget

from napari_samic.gui import stillness
from napari_samic.gui.stillness import Stillness


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
    still, before = Stillness(part), part.count
    still.begin()
    still._timer.stop()  # the test is as slow as it likes
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
    still, before = Stillness(part), part.count
    still._timer.setInterval(0)
    still.begin()
    part.update()
    qtbot.waitUntil(lambda: part.count == before + 1)
    assert still._window is None


def test_it_survives_its_window(qtbot):
    window = QMainWindow()
    window.setCentralWidget(QWidget())
    still = Stillness(window.centralWidget())
    still.begin()
    still.setParent(None)
    window.deleteLater()
    QApplication.sendPostedEvents(None, 0)
    QApplication.processEvents()
    still._is_due = True
    still.end()


def test_longest_is_not_felt():
    assert 0 < stillness.LONGEST_MS <= 100
