"""The pages Export and Recipe as the user sees them.

Views: they decide nothing. Must not know jobs, layers or models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from qtpy.QtGui import QFontDatabase
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
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_samic.gui.finishing import ACCEPTED_RESULTS, ALL_RESULTS, Finisher
from napari_samic.gui.guarding import shown
from napari_samic.gui.replayer import Replayer
from napari_samic.settings import ExportSettings

NAMES = {
    "tiff": "Label TIFF",
    "png": "Label PNG",
    "ome_zarr": "OME-Zarr labels",
    "coco": "COCO JSON",
    "geojson": "GeoJSON outlines",
    "table": "CSV of measurements",
    "prompt_file": "Prompts JSON",
}
KINDS = "Recipes (*.yaml *.yml)"


class ExportView(QWidget):
    """What is exported, where to, and in which formats.

    Parameters
    ----------
    finisher : Finisher
    """

    def __init__(self, finisher: Finisher) -> None:
        super().__init__()
        self.finisher = finisher
        self._helps = {spec.name: spec.metadata["help"] for spec in fields(ExportSettings)}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 6)
        layout.setSpacing(8)
        for part in (self._what(), self._formats(), self._details(), self._action()):
            layout.addWidget(part)
        layout.addStretch(1)
        finisher.listeners.append(self._changed)

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
        for number, (name, text) in enumerate(NAMES.items()):
            box = self.boxes[name] = QCheckBox(text)
            box.setToolTip(self._helps[name])
            grid.addWidget(box, number // 2, number % 2)
        return part

    def _details(self) -> QWidget:
        self.masks, self.unit = QComboBox(), QLineEdit()
        self.masks.addItems(["rle", "polygons"])
        self.unit.setPlaceholderText("px")
        self.pixel: dict[str, QDoubleSpinBox] = {}
        row = QHBoxLayout()
        row.setSpacing(4)
        for name in ("pixel_height", "pixel_width"):
            box = self.pixel[name] = QDoubleSpinBox()
            box.setDecimals(4)
            box.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
            box.setRange(0.0001, 1e6)
            box.setToolTip(self._helps[name])
            row.addWidget(box, 1)
        row.addWidget(self.unit, 1)
        self.masks.setToolTip(self._helps["coco_masks"])
        self.unit.setToolTip(self._helps["unit"])
        part = QWidget()
        form = _form(part)
        form.addRow("COCO masks", self.masks)
        form.addRow("Pixel size", row)
        return part

    def _action(self) -> QWidget:
        self.replace = QCheckBox("Replace earlier files")
        self.replace.setToolTip("Files of the same names in that folder; others stay")
        self.button = QPushButton("Export")
        self.button.clicked.connect(lambda: shown(self.export)())
        self.stop = QPushButton("Stop")
        self.stop.clicked.connect(self.finisher.stop)
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
        self.finisher.export(
            self.source.currentText(), folder, self.settings(), overwrite=self.replace.isChecked()
        )

    def _browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder for the exported files")
        if chosen:
            self.place.setText(chosen)

    def _changed(self, what: str) -> None:
        del what
        running = self.finisher.progress is not None
        self.status.setText(self.finisher.status)
        self.bar.setVisible(running)
        self.stop.setVisible(running)
        self.button.setEnabled(not running)
        self.bar.setValue(round(100 * (self.finisher.progress or 0.0)))


class RecipeView(QWidget):
    """What was done, to be read, saved and run again.

    Parameters
    ----------
    replayer : Replayer
    """

    def __init__(self, replayer: Replayer) -> None:
        super().__init__()
        self.replayer = replayer
        replayer.on_change = self.refresh
        self.text = QPlainTextEdit()
        self.text.setReadOnly(True)
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setPlaceholderText("Nothing was recorded yet.")
        self.text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.status = QLabel()
        self.status.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 6)
        layout.addWidget(self.text, 1)
        layout.addWidget(self._buttons())
        layout.addWidget(self.status)

    def _buttons(self) -> QWidget:
        part = QWidget()
        grid = QGridLayout(part)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        self.buttons: dict[str, QPushButton] = {}
        for number, (name, act, tip) in enumerate((
            ("Save as ...", self.save, "A copy whose paths hold where it lies"),
            ("Stop", self.replayer.stop, "End the replay; what is done stays"),
            ("Replay ...", self.replay, "Run all steps again, into another folder"),
            ("Replay on others ...", self.replay_on, "Run it on another folder of images"),
        )):  # fmt: skip
            button = self.buttons[name] = _button(name, act, tip)
            grid.addWidget(button, number // 2, number % 2)
        return part

    def refresh(self) -> None:
        """Show the recipe as it is now."""
        shown(self._show_text)()
        self.status.setText(self.replayer.status)
        known, running = bool(self.text.toPlainText()), self.replayer.is_running
        for name, button in self.buttons.items():
            button.setEnabled(running if name == "Stop" else known and not running)

    def _show_text(self) -> None:
        text = self.replayer.text()
        if text != self.text.toPlainText():
            self.text.setPlainText(text)

    # --- questions

    def ask_target(self) -> Path | None:
        """Where to save, or None."""
        chosen, _ = QFileDialog.getSaveFileName(self, "Save the recipe", "recipe.yaml", KINDS)
        return Path(chosen) if chosen else None

    def ask_folder(self, title: str) -> Path | None:
        """A folder, or None."""
        chosen = QFileDialog.getExistingDirectory(self, title)
        return Path(chosen) if chosen else None

    def save(self) -> None:
        """Save a copy."""
        if path := self.ask_target():
            self.replayer.save_as(path)

    def replay(self) -> None:
        """Run it again."""
        if out := self.ask_folder("Empty folder for the results"):
            self.replayer.replay(out)

    def replay_on(self) -> None:
        """Run it again on other images."""
        if images := self.ask_folder("Folder of other images"):
            out = self.ask_folder("Empty folder for the results")
            if out is not None:
                self.replayer.replay(out, images=images)


def _form(part: QWidget) -> QFormLayout:
    form = QFormLayout(part)
    form.setContentsMargins(0, 0, 0, 0)
    form.setVerticalSpacing(6)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return form


def _button(name: str, act: Callable[[], None], tip: str) -> QPushButton:
    button = QPushButton(name)
    button.setToolTip(tip)
    button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    button.clicked.connect(lambda: shown(act)())
    return button
