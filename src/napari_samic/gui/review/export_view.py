"""The page Export as the user sees it.

A view: it decides nothing. Must not know jobs, layers or models.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_samic.core.settings import ExportSettings
from napari_samic.gui.review.export import ACCEPTED_RESULTS, ALL_RESULTS, Exporter
from napari_samic.gui.runner.jobs import notify_errors
from napari_samic.gui.widgets.field_specs import entries


class ExportView(QWidget):
    """What is exported, where to, and in which formats.

    Parameters
    ----------
    exporter : Exporter
    """

    def __init__(self, exporter: Exporter) -> None:
        super().__init__()
        self.exporter = exporter
        self._helps = {spec.name: spec.metadata["help"] for spec in fields(ExportSettings)}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 6)
        layout.setSpacing(8)
        for part in (self._what(), self._formats(), self._details(), self._action()):
            layout.addWidget(part)
        layout.addStretch(1)
        exporter.changed.connect(self._changed)

    def _what(self) -> QWidget:
        self.source = QComboBox()
        self.source.addItems([ACCEPTED_RESULTS, ALL_RESULTS])
        self.source.setToolTip("Accepted and edited results, or all as they were predicted")
        self.place = QLineEdit()
        self.place.setPlaceholderText("folder")
        self.browse = QPushButton("...")
        self.browse.setFixedWidth(32)
        self.browse.setToolTip("Choose the folder")
        self.browse.clicked.connect(self._browse)
        row = QHBoxLayout()
        row.setSpacing(4)
        row.addWidget(self.place, 1)
        row.addWidget(self.browse)
        part = QWidget()
        form = _form(part)
        form.addRow("What", self.source)
        form.addRow("To", row)
        return part

    def _formats(self) -> QWidget:
        self.boxes: dict[str, QCheckBox] = {}
        part = QWidget()
        grid = QGridLayout(part)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(4)
        formats = [entry for entry in entries(ExportSettings) if entry.type is bool]
        for number, entry in enumerate(formats):
            box = self.boxes[entry.name] = QCheckBox(entry.title)
            box.setToolTip(entry.help)
            grid.addWidget(box, number, 0)
        return part

    def _details(self) -> QWidget:
        self.masks, self.unit = QComboBox(), QLineEdit()
        self.masks.addItems(["rle", "polygons"])
        self.unit.setPlaceholderText("as known")
        self.pixel: dict[str, QDoubleSpinBox] = {}
        for name in ("pixel_height", "pixel_width"):
            box = self.pixel[name] = QDoubleSpinBox()
            box.setDecimals(4)
            box.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
            box.setRange(0.0001, 1e6)
            box.setToolTip(self._helps[name])
        self.masks.setToolTip(self._helps["coco_masks"])
        self.unit.setToolTip(self._helps["unit"])
        part = QWidget()
        form = _form(part)
        form.addRow("COCO masks", self.masks)
        form.addRow("Pixel height", self.pixel["pixel_height"])
        form.addRow("Pixel width", self.pixel["pixel_width"])
        form.addRow("Unit", self.unit)
        return part

    def _action(self) -> QWidget:
        self.replace = QCheckBox("Replace earlier files")
        self.replace.setToolTip("Files of the same names in that folder; others stay")
        self.button = QPushButton("Export")
        self.button.clicked.connect(lambda: notify_errors(self.export)())
        self.stop = QPushButton("Stop")
        self.stop.clicked.connect(self.exporter.stop)
        self.bar = QProgressBar()
        self.bar.setRange(0, 100)
        self.status = QLabel()
        self.status.setWordWrap(True)
        part = QWidget()
        grid = QGridLayout(part)
        grid.setContentsMargins(0, 0, 0, 0)
        for row, column, widget in ((0, 0, self.replace), (0, 1, self.button), (1, 0, self.bar),
                                    (1, 1, self.stop)):  # fmt: skip
            grid.addWidget(widget, row, column)
        grid.addWidget(self.status, 2, 0, 1, 2)
        grid.setColumnStretch(0, 1)
        self.bar.hide()
        self.stop.hide()
        return part

    # --- values

    def settings(self) -> ExportSettings:
        """What is chosen."""
        return ExportSettings(
            **{name: box.isChecked() for name, box in self.boxes.items()},
            coco_masks=self.masks.currentText(),
            pixel_height=self.pixel["pixel_height"].value(),
            pixel_width=self.pixel["pixel_width"].value(),
            unit=self.unit.text().strip(),
        )

    def show_settings(self, settings: ExportSettings, folder: Path | None) -> None:
        """Show what was chosen before."""
        for name, box in self.boxes.items():
            box.setChecked(bool(getattr(settings, name)))
        self.masks.setCurrentText(settings.coco_masks)
        for name, field in self.pixel.items():
            field.setValue(getattr(settings, name))
        self.unit.setText(settings.unit)
        self.place.setText("" if folder is None else str(folder))
        self.place.setCursorPosition(0)

    def export(self) -> None:
        """Do it."""
        folder = Path(self.place.text()).expanduser()
        self.exporter.export(
            self.source.currentText(), folder, self.settings(), overwrite=self.replace.isChecked()
        )

    def _browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder for the exported files")
        if chosen:
            self.place.setText(chosen)

    def _changed(self) -> None:
        running = self.exporter.progress is not None
        self.status.setText(self.exporter.status)
        self.bar.setVisible(running)
        self.stop.setVisible(running)
        self.button.setEnabled(not running)
        self.bar.setValue(round(100 * (self.exporter.progress or 0.0)))


def _form(part: QWidget) -> QFormLayout:
    form = QFormLayout(part)
    form.setContentsMargins(0, 0, 0, 0)
    form.setVerticalSpacing(6)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return form
