"""The Propagate step on its viewer: wiring only.

Connects presenter, panel and layers, and lets all go when the dock or the viewer closes. Must not
decide or compute.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QWidget

from napari_samic.core.errors import SettingsError
from napari_samic.gui.propagate.jobs import methods
from napari_samic.gui.propagate.layers import PropagationLayers
from napari_samic.gui.propagate.presenter import PropagationModel
from napari_samic.gui.propagate.view import PropagatePanel
from napari_samic.gui.runner.jobs import notify_errors
from napari_samic.gui.session.session import Session
from napari_samic.gui.widgets.base import later, scrolled, with_foot

_PAUSE_MS = 80
"""A slice is looked at once it was shown for so long."""
_TYPING_MS = 200
_KEEP_MS = 400
"""What is painted goes into a file after so long."""


class PropagateStep:
    """From five images to five hundred.

    Parameters
    ----------
    session : Session
    """

    title = "Propagate"

    def __init__(self, session: Session) -> None:
        self.session, self.viewer = session, session.viewer
        self._closed = self._shown = False
        self.presenter = PropagationModel(session)
        self.owned_layers = PropagationLayers(session.viewer, self._stroked)
        self.panel = PropagatePanel(self._handlers(), methods())
        self.widget: QWidget = with_foot(scrolled(self.panel), self.panel.foot)
        self._pause = later(self.widget, _PAUSE_MS, self.presenter.refresh_preview)
        self._typed = later(self.widget, _TYPING_MS, notify_errors(self._change))
        self._keep = later(self.widget, _KEEP_MS, self.presenter.store.keep)
        self.panel.form.changed.connect(self._typed.start)
        session.viewer.dims.events.point.connect(self._slice_changed)
        session.scheduler.state.events.annotation.connect(self._slice_changed)
        self._connect()
        self._refresh_all()

    def _connect(self) -> None:
        events, store = self.presenter.events, self.presenter.store.events
        events.preview.connect(self._show_preview)
        events.settings.connect(self._show_settings)
        events.folder_image.connect(self._show_folder_image)
        events.connect(self._refresh)
        self.presenter.run.changed.connect(self._refresh)
        store.opened.connect(self._show_results)  # the layer may have been deleted meanwhile
        store.opened.connect(self._refresh)
        store.other.connect(self._show_results)
        store.slice.connect(self._show_slice)
        store.painted.connect(self._stroked)

    # --- actions

    def _handlers(self) -> dict[str, Callable[..., None]]:
        run = self.presenter.run
        plain: dict[str, Callable[..., None]] = {
            "preview": self._watch,
            "preset": self.presenter.choose_preset,
            "link": self.presenter.link,
            "method": lambda name: self.presenter.change(method=name),
            "rescale": self.presenter.rescale,
            "start": self._start,
            "cancel": run.cancel,
            "layer": lambda: run.choose(None),
            "folder": self._choose_folder,
            "again": run.again,
            "show": self.presenter.open_folder_image,
        }
        return {name: notify_errors(act) for name, act in plain.items()}

    def _watch(self, on: bool) -> None:
        try:
            self.presenter.watch(on)
        finally:
            self._refresh()

    def _change(self) -> None:
        form = self.panel.form
        try:
            groups = [form.values(kind) for kind in form.kinds]
        except SettingsError:
            return  # the field says what is wrong
        self.presenter.change(*groups)

    def _start(self) -> None:
        """Begin with what the fields say now; one that is wrong says so, and nothing begins."""
        self._typed.stop()
        form = self.panel.form
        self.presenter.change(*(form.values(kind) for kind in form.kinds))
        self.presenter.start()

    def _choose_folder(self) -> None:
        if (folder := self.ask_folder()) is not None:
            self.presenter.run.choose(folder)
        self._refresh()

    def ask_folder(self) -> Path | None:
        """A folder of images, or None."""
        chosen = QFileDialog.getExistingDirectory(self.widget, "Folder of images")
        return Path(chosen) if chosen else None

    # --- viewer to state

    def _slice_changed(self, _event: Any = None) -> None:
        if self.presenter.is_previewing:
            self.presenter.moved()
            self._pause.start()

    def _stroked(self) -> None:
        self._keep.start()

    # --- state to viewer

    def _show_settings(self) -> None:
        self.panel.show_settings(self.presenter)

    def _show_folder_image(self) -> None:
        if self.presenter.folder_image is not None:
            self.owned_layers.show_folder_image(self.presenter.folder_image)

    def _show_slice(self) -> None:
        self._show_results()
        self.owned_layers.refresh_results()

    def _show_preview(self) -> None:
        pixels, of = self.session.pixels, self.presenter
        if pixels is None or self.session.layer is None:
            self.owned_layers.hide_preview()
            return
        self.owned_layers.show_preview(self.session.layer, pixels.factor, of.heat, of.preview)

    def _show_results(self) -> None:
        """The layer comes with the first result."""
        store, pixels = self.presenter.store, self.session.pixels
        if pixels is None or self.session.layer is None:
            return
        labels = (store.stack or store.levels) if store.any_here else None
        self.owned_layers.show_results(self.session.layer, pixels.factor, pixels.name, labels)
        self._arrange()

    def _arrange(self) -> None:
        self.owned_layers.arrange(is_shown=self._shown, previewing=self.presenter.is_previewing)

    def _refresh(self) -> None:
        of, pixels = self.presenter, self.session.pixels
        self._arrange()
        self.panel.show_prompter(of.prompter)
        self.panel.show_preset(of)
        self.panel.show_preview_text(of)
        count = len(pixels.indices()) if pixels is not None else 0
        self.panel.show_source(pixels.name if pixels else "", count, of.run.folder)
        images = pixels is not None or of.run.folder is not None
        self.panel.show_run(of.run, ready=images and of.prompter is not None)

    def _refresh_all(self) -> None:
        self._show_settings()
        self._show_results()
        self._refresh()

    # --- coming and going

    def enter(self) -> None:
        """Look at what other steps have changed."""
        self._shown = True
        self._refresh_all()
        self.presenter.refresh_preview()

    def leave(self) -> None:
        """The preview goes, results are not seen any more; a run goes on."""
        self._shown = False
        self.presenter.watch(False)
        self.presenter.store.keep()

    def release(self) -> None:
        """See `session.WorkflowStep`."""
        if self._closed:
            return
        self._closed = True
        self.viewer.dims.events.point.disconnect(self._slice_changed)
        self.session.scheduler.state.events.annotation.disconnect(self._slice_changed)
        for timer in (self._pause, self._typed, self._keep):
            timer.stop()
        self.presenter.close()
        self.owned_layers.release()
