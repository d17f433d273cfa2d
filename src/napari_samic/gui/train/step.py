"""The Train step in the dock: wires its widgets to presenter, gallery and viewer.

Must not decide or compute.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtWidgets import QWidget

from napari_samic.core.settings import HeatMapSettings, PrompterSettings
from napari_samic.gui.session.session import Session
from napari_samic.gui.train.jobs import KINDS
from napari_samic.gui.train.layers import KIND, HeatLayer
from napari_samic.gui.train.presenter import TrainingModel
from napari_samic.gui.train.references import ReferenceGallery
from napari_samic.gui.train.view import TrainPanel
from napari_samic.gui.widgets.base import scrolled, with_foot


class TrainStep:
    """Wires panel, presenter, gallery and viewer.

    Parameters
    ----------
    session : Session
    """

    title = "Train"

    def __init__(self, session: Session) -> None:
        self.session, self._shown = session, False
        self.trainer = TrainingModel(session)
        self.gallery = ReferenceGallery(session, self._heat)
        self.layer = HeatLayer(session.viewer)
        handlers: dict[str, Callable[..., None]] = {
            "start": partial(self._start, resume=False),
            "resume": partial(self._start, resume=True),
            "stop": self.trainer.stop,
            "new": partial(self.trainer.take, True),
            "old": partial(self.trainer.take, False),
            "select": self.gallery.select,
            "heat": self._toggle_heat,
        }
        self.panel = TrainPanel(handlers)
        self.widget: QWidget = with_foot(scrolled(self.panel), self.panel.foot)
        self._fill_form()
        self._connect()

    def _connect(self) -> None:
        trainer, state, session = (
            self.trainer.events,
            self.session.scheduler.state.events,
            self.session.events,
        )
        trainer.state.connect(self._show_trainer)
        trainer.progress.connect(self._show_progress)
        trainer.history.connect(self._show_curves)
        self.gallery.events.thumbs.connect(lambda: self.panel.show_gallery(self.gallery))
        self.gallery.events.heat_overlay.connect(self._show_heat)
        self.panel.form.changed.connect(self._edited)
        self._wires: list[tuple[Any, Callable[..., None]]] = [
            (session.project, self._fill_form),
            (session.project, self._refresh),
            (session.image, self._refresh),
            (state.annotation, self._annotation_changed),
            (state.prompts, self._refresh),
            (state.classes, self._refresh),
            (self.session.scheduler.events.status, self._show_trainer),
            (self.session.viewer.layers.events.removed, self._removed),
        ]
        for signal, slot in self._wires:
            signal.connect(slot)

    def enter(self) -> None:
        """Draw the references, and whatever happened meanwhile."""
        self._shown = True
        self.gallery.open()
        self.panel.show_trainer(self.trainer)

    def leave(self) -> None:
        """The heat map goes; a training goes on."""
        self._shown = False
        self.panel.heat_button.setChecked(False)
        self.gallery.close()

    def release(self) -> None:
        """Let go of viewer and session."""
        self.leave()
        self.layer.hide()
        self.trainer.close()
        self.gallery.events.disconnect()
        for signal, slot in self._wires:
            signal.disconnect(slot)

    # --- settings

    def _heat(self) -> tuple[HeatMapSettings, bool]:
        squeeze = self.trainer.of(PrompterSettings).encoder != "segmenter"
        return self.trainer.of(HeatMapSettings), squeeze

    def _fill_form(self) -> None:
        self.panel.form.blockSignals(True)
        for settings in self.trainer.chosen.values():
            self.panel.form.show_values(settings)
        self.panel.form.blockSignals(False)

    def _edited(self) -> None:
        """Take what may be; what is wrong says so at its field."""
        before = self._heat()
        if self.panel.form.is_sound:
            self.trainer.choose(*(self.panel.form.values(kind) for kind in KINDS))
        if self._heat() != before:
            self.gallery.refresh()

    def _start(self, *, resume: bool) -> None:
        self.trainer.choose(*(self.panel.form.values(kind) for kind in KINDS))
        self.trainer.start(resume=resume)

    def _toggle_heat(self, on: bool) -> None:
        try:
            self.gallery.show_heat(on)
        finally:
            self.panel.heat_button.setChecked(self.gallery.wants_heat)

    # --- what changed

    def _show_trainer(self) -> None:
        if self._shown:
            self.panel.show_trainer(self.trainer)

    def _show_progress(self) -> None:
        if self._shown:
            self.panel.show_progress(self.trainer)

    def _show_curves(self) -> None:
        if self._shown:
            self.panel.show_progress(self.trainer)
            self.panel.show_curves(self.trainer)

    def _show_heat(self) -> None:
        heat_overlay = self.gallery.heat_overlay
        image_layer = (
            self.session.layer_of(heat_overlay.reference.annotation.name)
            if heat_overlay is not None
            else None
        )
        if heat_overlay is None or image_layer is None:
            self.layer.hide()
        else:
            self.layer.show(heat_overlay, image_layer)

    def _removed(self, _event: Any) -> None:
        if self.layer.layer is not None and not self.layer.has(KIND):
            self.layer.hide()
            self.panel.heat_button.setChecked(False)
            self.gallery.show_heat(False)

    def _refresh(self) -> None:
        if self._shown:
            self.gallery.refresh()
            self.panel.show_trainer(self.trainer)

    def _annotation_changed(self) -> None:
        if self._shown:
            self.gallery.follow()
            self._refresh()
