"""The Propagate step as the user sees it: builds the widgets, shows the state, passes actions on.

A view: it decides nothing. Must not know jobs or layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGridLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_samic.core.settings import PRESETS, PeakSettings
from napari_samic.gui.session.notices import RESCALE
from napari_samic.gui.widgets.field_editors import WRONG, leave_wheel
from napari_samic.gui.widgets.settings_form import SettingsForm
from napari_samic.recipes.schema import STEP_SCHEMAS

if TYPE_CHECKING:
    from napari_samic.core.types import Segmentation
    from napari_samic.gui.propagate.presenter import PropagationModel
    from napari_samic.gui.propagate.run import PropagationRun

Verbs = Mapping[str, Callable[..., None]]
BASIC = ("threshold", "map_cut", "min_score", "instances")
_KEY = Qt.ItemDataRole.UserRole


class PropagatePanel(QWidget):
    """See the module.

    Parameters
    ----------
    handlers : mapping of str to callable
        preview(on), preset(name), link(on), method(name), rescale(on), start(), cancel(), layer(),
        folder(), again(on), show(name).
    methods : mapping of str to str
        Names, and a line for each.

    Attributes
    ----------
    foot : QWidget
        What begins and ends a run, to be shown below the panel.
    """

    def __init__(self, handlers: Verbs, methods: Mapping[str, str]) -> None:
        super().__init__()
        self.handlers, self._methods = handlers, methods
        self.layout_ = QVBoxLayout(self)
        self.layout_.setContentsMargins(8, 6, 8, 6)
        self.layout_.setSpacing(8)
        for part in (self._head(), self._preview(), self._settings(), self._lists()):
            self.layout_.addWidget(part)
        self.layout_.addStretch(1)
        self.foot = self._run()

    # --- building

    def _head(self) -> QWidget:
        self.prompter = _wrapped()
        return self.prompter

    def _preview(self) -> QWidget:
        part = QWidget()
        column = QVBoxLayout(part)
        column.setContentsMargins(0, 0, 0, 0)
        self.preview = QPushButton("Preview this slice")
        self.preview.setCheckable(True)
        self.preview.setToolTip(
            "Show what the prompter finds on the shown slice: its heat map, the points, and the "
            "masks with their scores. While it is on, it follows the slice and the settings."
        )
        self.preview.clicked.connect(lambda on: self.handlers["preview"](on))
        self.preview_text = _wrapped()
        self.preview_text.setMinimumHeight(34)
        self.preview_text.setAlignment(Qt.AlignmentFlag.AlignTop)
        column.addWidget(self.preview)
        column.addWidget(self.preview_text)
        return part

    def _settings(self) -> QWidget:
        self.preset, self.preset_text, self.method = _choice(), _wrapped(), _choice()
        self.preset.setToolTip("Settings for a kind of image; change them below as you like")
        self.preset.setPlaceholderText("Your own settings")
        for preset in PRESETS:
            if "link" not in preset.values:  # that has a box of its own
                self.preset.addItem(preset.title, preset.name)
        self.link = QCheckBox("Link objects through slices")
        self.link.clicked.connect(lambda on: self.handlers["link"](on))
        self.rescale = QCheckBox(RESCALE)
        self.rescale.setToolTip(
            "<qt>Images of another bit depth or scale than those of the training get a range of "
            "their own. Else they are refused.</qt>"
        )
        self.rescale.clicked.connect(lambda on: self.handlers["rescale"](on))
        self.method.setToolTip("What says where objects are")
        for name, text in self._methods.items():
            self.method.addItem(name, name)
            self.method.setItemData(self.method.count() - 1, text, Qt.ItemDataRole.ToolTipRole)
        for box, verb in ((self.preset, "preset"), (self.method, "method")):
            box.activated.connect(partial(self._picked, box, verb))
        self.form = SettingsForm(*STEP_SCHEMAS["segment"].groups.values(), basic=BASIC)
        part = QWidget()
        rows = QFormLayout(part)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addRow("Preset", self.preset)
        rows.addRow(self.preset_text)
        rows.addRow(self.link)
        rows.addRow("Method", self.method)
        rows.addRow(self.rescale)
        rows.addRow(self.form)
        return part

    def _picked(self, box: QComboBox, verb: str, _place: int) -> None:
        self.handlers[verb](box.currentData())

    def _run(self) -> QWidget:
        part = QWidget()
        grid = QGridLayout(part)
        grid.setContentsMargins(8, 4, 8, 6)
        self.source = QComboBox()
        self.source.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.source.setToolTip("Which images are segmented")
        self.source.activated.connect(self._chosen)
        self.again = QCheckBox("Do again what has a result")
        self.again.setToolTip(
            "<qt>Else images that have a result are passed over. Results that you accepted or "
            "painted on are never done again. The others are kept in results/before until the next "
            "time.</qt>"
        )
        self.again.clicked.connect(lambda on: self.handlers["again"](on))
        self.start = QPushButton("Propagate")
        self.start.clicked.connect(lambda: self.handlers["start"]())
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("Stop after the image that is being done; what is done stays")
        self.cancel.clicked.connect(lambda: self.handlers["cancel"]())
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(10)
        self.status = _wrapped()
        grid.addWidget(self.source, 0, 0, 1, 2)
        grid.addWidget(self.again, 1, 0, 1, 2)
        grid.addWidget(self.start, 2, 0)
        grid.addWidget(self.cancel, 2, 1)
        grid.addWidget(self.bar, 3, 0, 1, 2)
        grid.addWidget(self.status, 4, 0, 1, 2)
        return part

    def _lists(self) -> QWidget:
        part = QWidget()
        column = QVBoxLayout(part)
        column.setContentsMargins(0, 0, 0, 0)
        self.failed, self.failures = QLabel(), _list(90)
        self.failures.setWordWrap(True)
        self.done, self.finished = QLabel(), _list(150)
        self.finished.setToolTip("Click to see an image with its result")
        self.finished.itemClicked.connect(lambda item: self.handlers["show"](item.data(_KEY)))
        for widget in (self.failed, self.failures, self.done, self.finished):
            column.addWidget(widget)
            widget.hide()
        return part

    def _chosen(self, place: int) -> None:
        self.handlers["layer" if place == 0 else "folder"]()

    # --- showing

    def show_prompter(self, file: Path | None) -> None:
        """Say which prompter is used."""
        if file is None:
            self.prompter.setText("No prompter yet: train one in the Train step.")
            return
        when = datetime.fromtimestamp(file.stat().st_mtime)
        self.prompter.setText(f"Prompter of {when:%d %B, %H:%M}")

    def show_settings(self, of: PropagationModel) -> None:
        """Show the settings in use; the form does not answer."""
        options = of.options
        self.form.blockSignals(True)
        for group in (options.settings, options.memory, options.strategy, options.refine):
            self.form.show_values(group)
        self.form.show_values(options.peaks or of.stored or PeakSettings())
        self.form.blockSignals(False)
        self.show_preset(of)

    def show_preset(self, of: PropagationModel) -> None:
        """Say what is in use beside the form, and why settings can't act together."""
        follows = of.options.follows
        self.link.setChecked(of.options.memory.link != "never")
        self.link.setEnabled(not follows or self.link.isChecked())
        self.link.setToolTip(
            "Objects that are followed keep their numbers anyway"
            if follows
            else "An object has a single number through a stack; else each slice counts anew"
        )
        self.rescale.setChecked(of.options.rescale)
        self.method.setCurrentIndex(self.method.findData(of.options.method))
        self.preset.setCurrentIndex(self.preset.findData(of.preset))
        helps = {preset.name: preset.help for preset in PRESETS}
        self.preset_text.setText(of.fault.capitalize() or helps.get(of.preset, ""))
        self.preset_text.setStyleSheet(f"QLabel {{ color: {WRONG}; }}" if of.fault else "")

    def show_preview_text(self, of: PropagationModel) -> None:
        """Say what the preview has found, or what it is doing."""
        self.preview.setChecked(of.is_previewing)
        result = of.preview.result if of.preview is not None else None
        text = of.preview_status or (_summary(result) if result is not None else "")
        if result is not None and of.options.follows:
            text += " Alone: a run looks where the slice before had objects."
        self.preview_text.setText(text)

    def show_source(self, layer: str, count: int, folder: Path | None) -> None:
        """Say which images can be chosen."""
        slices = f"{count} slices" if count > 1 else "The image"
        texts = [f"{slices} of {layer}" if layer else "No image is chosen", "A folder ..."]
        texts += [f"Folder {folder.name}"] if folder is not None else []
        if texts != [self.source.itemText(i) for i in range(self.source.count())]:
            self.source.clear()
            self.source.addItems(texts)
        self.source.setCurrentIndex(2 if folder is not None else 0)

    def show_run(self, run: PropagationRun, *, ready: bool) -> None:
        """Show how far the run is."""
        idle = run.state == "idle"
        self.start.setText("Resume" if run.can_resume else "Propagate")
        self.start.setEnabled(idle and ready)
        self.cancel.setEnabled(run.state == "running")
        self.source.setEnabled(idle)
        self.again.setEnabled(idle)
        self.again.setChecked(run.anew)
        progress = run.progress
        self.bar.setRange(0, max(1, progress.total))  # never 0: a moving bar draws all anew
        self.bar.setValue(progress.done)
        self.bar.setVisible(not idle or progress.total > 0)
        self.status.setText(run.status)
        self._show_lists(run)

    def _show_lists(self, run: PropagationRun) -> None:
        _fill(self.failures, run.failures.items())
        _fill(self.finished, ((k, f"{k}: {v}") for k, v in run.finished.items()))
        count = len(run.failures)
        self.failed.setText(f"{count} image{'s' * (count != 1)} failed:")
        self.done.setText("Done in this run:")
        for widgets, is_visible in (
            ((self.failed, self.failures), count),
            ((self.done, self.finished), len(run.finished)),
        ):
            for widget in widgets:
                widget.setVisible(bool(is_visible))


def _summary(result: Segmentation) -> str:
    count = len(result.scores)
    if not count:
        return "Nothing found. Lower the threshold, or annotate more references."
    scores = ", ".join(f"{score:.2f}" for score in sorted(result.scores, reverse=True)[:8])
    more = ", ..." if count > 8 else ""
    return f"{count} object{'s' * (count != 1)}, score {result.score:.2f} ({scores}{more})"


def _fill(list_: QListWidget, rows: object) -> None:
    """Add what is new; begin anew if it became less."""
    wanted = list(rows)  # type: ignore[call-overload]
    if len(wanted) < list_.count():
        list_.clear()
    for name, text in wanted[list_.count() :]:
        item = QListWidgetItem(text)
        item.setData(_KEY, name)
        item.setToolTip(text)
        list_.addItem(item)
        list_.scrollToBottom()


def _choice() -> QComboBox:
    box = QComboBox()
    box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    leave_wheel(box)
    return box


def _list(height: int) -> QListWidget:
    widget = QListWidget()
    widget.setMaximumHeight(height)
    widget.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    return widget


def _wrapped() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    return label
