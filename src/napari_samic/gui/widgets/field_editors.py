"""One setting in a form: the widget that edits it, its title, and what is wrong with it.

Must not know other settings, nor who uses the form.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_samic.core.errors import SettingsError
from napari_samic.gui.widgets.field_specs import FormEntry, fault_of, read_number, text_of

LARGEST = 2**31 - 1
WRONG = "#ff5c5c"
Editor = tuple[QWidget, Callable[[], Any], Callable[[Any], None]]


class SettingField:
    """One setting: its editor, and below it what is wrong.

    Parameters
    ----------
    entry : FormEntry
    edited : callable
        Called after each change.
    """

    def __init__(self, entry: FormEntry, edited: Callable[[], None]) -> None:
        self.entry, self._edited = entry, edited
        self._fault: tuple[Any, str] = entry.default, ""
        self.editor, self._get, self._set = _editor(entry, self._on_edit)
        self.editor.setToolTip(_tooltip(entry))
        self._row, self._label = QWidget(), QLabel()
        self.error = QLabel()
        self.error.setWordWrap(True)
        self.error.setStyleSheet(f"QLabel {{ color: {WRONG}; }}")
        self.error.hide()
        self.write(entry.default)

    def join(self, rows: QFormLayout) -> None:
        """Add the setting to a form."""
        column = QVBoxLayout(self._row)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(1)
        column.addWidget(self.editor)
        column.addWidget(self.error)
        if self.entry.type is bool:
            rows.addRow(self._row)
            return
        self._label.setText(self.entry.title)
        self._label.setToolTip(_tooltip(self.entry))
        rows.addRow(self._label, self._row)

    def show_if(self, words: Sequence[str]) -> bool:
        """Show the setting if its name, title and help have all these words; else hide it."""
        entry = self.entry
        text = f"{entry.name} {entry.title} {entry.help}".casefold()
        is_shown = all(word in text for word in words)
        self._row.setVisible(is_shown)  # a widget: a layout would leave a gap
        self._label.setVisible(is_shown and entry.type is not bool)  # a checkbox has its own
        return is_shown

    def read(self) -> tuple[Any, str]:
        """The value, and what is wrong with it ("": nothing); the field shows it."""
        try:
            value = self._get()
        except SettingsError as error:
            value, fault = None, str(error)
        else:
            fault = self._fault[1] if value == self._fault[0] else fault_of(self.entry, value)
            self._fault = value, fault
        if fault != self.error.text():
            self.error.setText(fault)
            self.error.setVisible(bool(fault))
            self.editor.setStyleSheet(f"border: 1px solid {WRONG};" if fault else "")
        return value, fault

    def write(self, value: Any) -> None:
        """Show a value."""
        self._set(value)
        self.read()

    def _on_edit(self, *_: Any) -> None:
        self.read()
        self._edited()


def _editor(entry: FormEntry, heard: Callable[..., None]) -> Editor:
    """The widget for a setting, and how to read and write it."""
    if entry.choices:
        return _choices(entry, heard)
    if entry.type is bool:
        check = QCheckBox(entry.title)
        check.toggled.connect(heard)
        return check, check.isChecked, check.setChecked
    if entry.type is int:
        return _whole(entry, heard)
    line = QLineEdit()
    line.textChanged.connect(heard)
    line.setPlaceholderText(text_of(entry.default))
    if entry.type is float:
        return line, lambda: read_number(line.text()), lambda value: line.setText(text_of(value))
    return line, lambda: line.text().strip(), line.setText


def _choices(entry: FormEntry, heard: Callable[..., None]) -> Editor:
    box = QComboBox()
    box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    for value in entry.choices:
        box.addItem(text_of(value), value)
    box.currentIndexChanged.connect(heard)
    leave_wheel(box)
    return box, box.currentData, lambda value: box.setCurrentIndex(entry.choices.index(value))


def _whole(entry: FormEntry, heard: Callable[..., None]) -> Editor:
    spin = QSpinBox()
    low = -LARGEST if entry.ge is None else int(entry.ge)
    spin.setRange(low, LARGEST if entry.le is None else int(entry.le))
    spin.setSuffix(f" {entry.unit}" if entry.unit else "")
    spin.valueChanged.connect(heard)
    leave_wheel(spin)
    return spin, spin.value, spin.setValue


class _WheelGuard(QObject):
    """Scrolling the dock does not change a field that the pointer happens to pass."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Pass wheels on, unless the field was clicked into."""
        if event is None or event.type() != QEvent.Type.Wheel:
            return False
        if isinstance(watched, QWidget) and watched.hasFocus():
            return False
        event.ignore()
        return True


def leave_wheel(widget: QWidget) -> None:
    """Let a widget ignore the wheel until it is clicked into."""
    widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    widget.installEventFilter(_WheelGuard(widget))


def _tooltip(entry: FormEntry) -> str:
    return f"<qt>{html.escape(entry.tooltip)}</qt>"  # rich text is wrapped
