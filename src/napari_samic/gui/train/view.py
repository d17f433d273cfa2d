"""The Train step as the user sees it: builds the widgets, shows the state, passes actions on.

A view: it decides nothing. Must not know jobs, layers or models.
"""

from __future__ import annotations

import html
from collections.abc import Callable

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_samic.core.settings import LEAST_STEPS
from napari_samic.gui.runner.jobs import notify_errors
from napari_samic.gui.session.notices import sentences
from napari_samic.gui.train.curve_plot import CurvePlot
from napari_samic.gui.train.jobs import KINDS, PrompterComparison
from napari_samic.gui.train.presenter import CHOOSING, RUNNING, STOPPING, TrainingModel
from napari_samic.gui.train.references import ReferenceGallery
from napari_samic.gui.widgets.settings_form import SettingsForm
from napari_samic.gui.widgets.thumbnail_list import ThumbList

BASIC = ("epochs", "shots", "sigma_frac", "threshold", "adapt")


class TrainPanel(QWidget):
    """See the module.

    Parameters
    ----------
    handlers : dict of str to callable
        start, resume, stop, new, old, select, heat.

    Attributes
    ----------
    foot : QWidget
        What begins and ends a training, how far it is and what came of it, to be shown below the
        panel.
    """

    def __init__(self, handlers: dict[str, Callable[..., None]]) -> None:
        super().__init__()
        self.handlers = {name: notify_errors(act) for name, act in handlers.items()}
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 6, 8, 6)
        column.setSpacing(8)
        self.guide = _wrapped()
        self.guide.setStyleSheet(
            "QLabel { background: rgba(53, 184, 255, 40); border-radius: 4px; padding: 6px; }"
        )
        column.addWidget(self.guide)
        column.addWidget(self._references())
        self.form = SettingsForm(*KINDS, basic=BASIC)
        column.addWidget(self.form)
        self.plot = CurvePlot()
        column.addWidget(self.plot)
        column.addStretch(1)
        self.foot = QWidget()
        foot = QVBoxLayout(self.foot)
        foot.setContentsMargins(8, 4, 8, 6)
        for part in (self._buttons(), self._progress(), self._comparison()):
            foot.addWidget(part)

    # --- building

    def _references(self) -> QWidget:
        part = QWidget()
        grid = QGridLayout(part)
        grid.setContentsMargins(0, 0, 0, 0)
        self.count = QLabel()
        self.heat_button = QPushButton("Show heat map")
        self.heat_button.setCheckable(True)
        self.heat_button.setToolTip(
            "<qt>Put the heat map of the reference on the screen, or else of the chosen one, over "
            "its image: what the prompter is to find. It follows the slice.</qt>"
        )
        self.heat_button.clicked.connect(lambda on: self.handlers["heat"](on))
        self.thumbs = ThumbList(lambda name: self.handlers["select"](name))
        grid.addWidget(self.count, 0, 0)
        grid.addWidget(self.heat_button, 0, 1, Qt.AlignmentFlag.AlignRight)
        grid.addWidget(self.thumbs, 1, 0, 1, 2)
        return part

    def _buttons(self) -> QWidget:
        part = QWidget()
        grid = QGridLayout(part)
        grid.setContentsMargins(0, 0, 0, 0)
        self.start = self._button("Start", "start", "Train a new prompter from the references")
        self.stop = self._button(
            "Stop", "stop", "End the training and keep what was learned so far"
        )
        self.resume = self._button(
            "Resume",
            "resume",
            "Go on from where the last training ended, if references and settings are the same; "
            "Epochs and Patience may be others",
        )
        for place, button in enumerate((self.start, self.stop, self.resume)):
            grid.addWidget(button, 0, place)
        self.device = QLabel()
        self.device.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        grid.addWidget(self.device, 1, 0, 1, 3)
        return part

    def _progress(self) -> QWidget:
        part = QWidget()
        column = QVBoxLayout(part)
        column.setContentsMargins(0, 0, 0, 0)
        self.bar, self.eta, self.news = QProgressBar(), _wrapped(), _wrapped()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        for widget in (self.bar, self.eta, self.news):
            column.addWidget(widget)
        return part

    def _comparison(self) -> QWidget:
        self.comparison = QFrame()
        self.comparison.setObjectName("verdict")
        self.comparison.setStyleSheet("#verdict { background: rgba(255, 178, 36, 45); }")
        self.verdict_text = _wrapped()
        self.new = self._button("Use the new one", "new", "The old one is kept under a number")
        self.old = self._button("Keep the old one", "old", "The new one is kept under a number")
        row = QHBoxLayout()
        row.addWidget(self.new)
        row.addWidget(self.old)
        column = QVBoxLayout(self.comparison)
        column.addWidget(self.verdict_text)
        column.addLayout(row)
        return self.comparison

    def _button(self, text: str, verb: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(f"<qt>{html.escape(tip)}.</qt>")
        button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        button.clicked.connect(lambda: self.handlers[verb]())
        return button

    # --- showing

    def show_trainer(self, trainer: TrainingModel) -> None:
        """Show all but the references."""
        busy, choosing = trainer.is_busy, trainer.phase == CHOOSING
        self.guide.setVisible(not busy)
        self.guide.setText("" if busy else trainer.guide())
        self.form.setEnabled(not busy)
        may = not busy and not choosing and not trainer.missing()
        self.start.setEnabled(may)
        self.resume.setEnabled(may and trainer.can_resume)
        self.stop.setEnabled(trainer.phase == RUNNING)
        self.stop.setText("Stopping ..." if trainer.phase == STOPPING else "Stop")
        in_use = "a prompter is in use" if trainer.has_prompter else "no prompter yet"
        self.device.setText(f"Device: {trainer.device} · {in_use}")
        self.news.setText(trainer.news)
        self.news.setVisible(bool(trainer.news) and not busy)
        self.show_progress(trainer)
        self.show_curves(trainer)
        self.comparison.setVisible(choosing)
        if trainer.comparison is not None:
            self._show_comparison(trainer.comparison)

    def show_progress(self, trainer: TrainingModel) -> None:
        """Show how far it is."""
        for widget in (self.bar, self.eta):
            widget.setVisible(trainer.is_busy)
        if trainer.eta is not None and trainer.is_busy:
            stops = trainer.phase == STOPPING and trainer.is_short
            least = f" · stops at {LEAST_STEPS}, the fewest that can be used" if stops else ""
            self.eta.setText(trainer.eta.text + least)
            share = trainer.eta.share
            self.bar.setRange(0, 0 if share is None else 1000)
            self.bar.setValue(round(1000 * (share or 0.0)))

    def show_curves(self, trainer: TrainingModel) -> None:
        """Show the curves."""
        self.plot.setVisible(trainer.is_busy or bool(trainer.history.losses))
        self.plot.show_curves(trainer.history)

    def _show_comparison(self, comparison: PrompterComparison) -> None:
        self.verdict_text.setText(comparison_text(comparison))
        self.new.setDefault(not comparison.is_worse)
        self.old.setEnabled(comparison.has_old)
        better = "QPushButton { font-weight: bold; }"
        self.new.setStyleSheet("" if comparison.is_worse else better)
        self.old.setStyleSheet(better if comparison.is_worse else "")

    def show_gallery(self, gallery: ReferenceGallery) -> None:
        """Show the references."""
        count = len(gallery.thumbs)
        self.count.setText(f"{count} reference{'s' * (count != 1)}")
        self.thumbs.show_thumbs(gallery.thumbs, gallery.name)
        self.heat_button.setEnabled(count > 0)


def comparison_text(comparison: PrompterComparison) -> str:
    """Both numbers side by side, and what they are worth."""

    def number(value: float | None) -> str:
        return "not known" if value is None else f"<b>{value:.3f}</b>"

    lines = [f"New prompter {number(comparison.new)}, the one in use {number(comparison.old)}."]
    if comparison.why:
        lines.append(f"The one in use can't be judged: {html.escape(comparison.why)}")
    elif comparison.old is None:
        lines.append(
            "Nothing was kept aside to judge them by, which takes four references, or the "
            "training ended before."
        )
    else:
        names = html.escape(", ".join(comparison.held_out[:3]))
        which = "as good" if comparison.old == comparison.new else "better"
        which = "worse" if comparison.is_worse else which
        what = "overlap (IoU) of the masks" if comparison.by_masks else "map correlation"
        lines.append(f"The new one is {which}: {what} of {names}, kept aside.")
    if not comparison.helped:
        lines.append("Training did not help, so the new one has the weights it began with.")
    lines += map(html.escape, sentences(comparison.notices))
    return " ".join(lines)


def _wrapped() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    return label
