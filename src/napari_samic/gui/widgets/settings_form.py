"""Settings dataclasses to a form, and back: the few that matter first, the rest folded away.

    form = SettingsForm(SegmentSettings, PeakSettings, basic=("threshold", "instances"))
    form.changed.connect(...)           # after each edit
    form.values(PeakSettings)           # SettingsError, and the field says why, if one is wrong
    form.show_values(PeakSettings(threshold=0.4))

A view: what a setting may be is said by `core.settings`, and put in words by `field_specs`. Must
not know who uses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_samic.core.errors import SettingsError
from napari_samic.core.settings import Settings
from napari_samic.gui.widgets.field_editors import SettingField
from napari_samic.gui.widgets.field_specs import entries, heading_of

S = TypeVar("S", bound=Settings)
MANY = 8
"""Folded settings above which they can be searched."""


class SettingsForm(QWidget):
    """See the module.

    Parameters
    ----------
    *kinds : type of Settings
        No two may have a setting of the same name.
    basic : sequence of str
        Names that are always shown, in this order; () shows all.

    Notes
    -----
    What is internal is not shown, and stays as `show_values` gave it.
    """

    changed = Signal()

    def __init__(self, *kinds: type[Settings], basic: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.kinds, self._quiet = kinds, True
        self._given: dict[type[Settings], Any] = {kind: kind() for kind in kinds}
        self.fields = {
            entry.name: SettingField(entry, self._edited)
            for kind in kinds
            for entry in entries(kind)
        }
        first = basic or tuple(self.fields)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        top = _rows()
        for name in first:
            self.fields[name].join(top)
        column.addLayout(top)
        self.advanced = self._advanced([f for n, f in self.fields.items() if n not in first])
        column.addLayout(self._foot())
        column.addWidget(self.advanced)
        self._quiet = False
        self._changed_number()

    # --- building

    def _foot(self) -> QHBoxLayout:
        self.more = QToolButton()
        self.more.setText("Advanced")
        self.more.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.more.setArrowType(Qt.ArrowType.RightArrow)
        self.more.setCheckable(True)
        self.more.setAutoRaise(True)
        self.more.toggled.connect(self.show_advanced)
        self.more.setVisible(not self.advanced.is_empty)
        self.defaults = QPushButton("Reset")
        self.defaults.setToolTip("Put every setting of this form back to its default")
        self.defaults.clicked.connect(self.reset)
        row = QHBoxLayout()
        row.addWidget(self.more)
        row.addStretch(1)
        row.addWidget(self.defaults)
        return row

    def _advanced(self, rest: list[SettingField]) -> _Folded:
        part = _Folded()
        column = QVBoxLayout(part)
        column.setContentsMargins(10, 0, 0, 0)
        self.search = QLineEdit()
        self.search.setPlaceholderText("Find a setting")
        self.search.setClearButtonEnabled(True)
        self.search.setVisible(len(rest) > MANY)
        self.search.textChanged.connect(self._filter)
        column.addWidget(self.search)
        self._groups: list[tuple[QLabel, list[SettingField]]] = []
        for kind in self.kinds:
            own = [field for field in rest if field.entry.kind is kind]
            heading = _heading(heading_of(kind))
            heading.setVisible(bool(own) and len(self.kinds) > 1)
            column.addWidget(heading)
            self._groups.append((heading, own))
            rows = _rows()
            for field in own:
                field.join(rows)
                part.is_empty = False
            column.addLayout(rows)
        part.hide()
        return part

    def _filter(self, text: str) -> None:
        """Show the folded settings that have all these words."""
        words = text.casefold().split()
        for heading, group in self._groups:
            count = sum(field.show_if(words) for field in group)
            heading.setVisible(count > 0 and len(self.kinds) > 1)

    # --- values

    def values(self, kind: type[S]) -> S:
        """The settings of one kind.

        Raises
        ------
        SettingsError
            A field is wrong, which says so and is unfolded; or two don't fit each other.
        """
        values: dict[str, Any] = {}
        faults = []
        for entry in entries(kind):
            field = self.fields[entry.name]
            value, fault = field.read()
            values[entry.name] = value
            if fault:
                faults.append(f"{entry.title}: {fault}")
                if self.advanced.isAncestorOf(field.editor):
                    self.more.setChecked(True)
                    self.search.clear()
        if faults:
            raise SettingsError("; ".join(faults) + ".")
        settings: S = replace(self._given[kind], **values)
        return settings

    def show_values(self, settings: Settings) -> None:
        """Show the values of one kind; `changed` comes once."""
        with self._one_change():
            self._given[type(settings)] = settings
            for entry in entries(type(settings)):
                self.fields[entry.name].write(getattr(settings, entry.name))

    def reset(self) -> None:
        """Show the defaults; `changed` comes once."""
        with self._one_change():
            self._given = {kind: kind() for kind in self.kinds}
            for field in self.fields.values():
                field.write(field.entry.default)

    @property
    def is_sound(self) -> bool:
        """Whether every field has a value that may be, and they fit each other."""
        if any(field.read()[1] for field in self.fields.values()):
            return False
        try:
            for kind in self.kinds:
                self.values(kind)
        except SettingsError:
            return False
        return True

    def show_advanced(self, on: bool) -> None:
        """Unfold or fold the settings that seldom matter."""
        self.more.setChecked(on)
        self.more.setArrowType(Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow)
        self.advanced.setVisible(on)

    @contextmanager
    def _one_change(self) -> Iterator[None]:
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False
            self._edited()

    def _edited(self) -> None:
        if not self._quiet:
            self._changed_number()
            self.changed.emit()

    def _changed_number(self) -> None:
        """Say how many settings of the folded part are not as usual."""
        changed = [f for f in self.fields.values() if f.read() != (f.entry.default, "")]
        folded = sum(self.advanced.isAncestorOf(f.editor) for f in changed)
        self.more.setText(f"Advanced ({folded} changed)" if folded else "Advanced")
        given = any(settings != kind() for kind, settings in self._given.items())
        self.defaults.setEnabled(given or bool(changed))


class _Folded(QWidget):
    """The part that is folded away."""

    is_empty = True


def _heading(text: str) -> QLabel:
    label = QLabel(text)
    label.setWordWrap(True)
    label.setStyleSheet("QLabel { font-weight: bold; margin-top: 4px; }")
    return label


def _rows() -> QFormLayout:
    rows = QFormLayout()
    rows.setContentsMargins(0, 0, 0, 0)
    rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return rows
