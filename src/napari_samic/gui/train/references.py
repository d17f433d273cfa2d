"""The references as the Train step shows them: thumbnails, and one heat map on the image.

Plain Python over jobs: knows no Qt and no napari. What was asked for earlier and comes late is
dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal, SignalGroup

from napari_samic.core.errors import InputError
from napari_samic.core.settings import HeatMapSettings
from napari_samic.core.types import FloatArray, Job, JobProgress
from napari_samic.gui.data.materialize import OpenReference
from napari_samic.gui.runner.jobs import Calls, Handle
from napari_samic.gui.state.thumbnails import Thumb
from napari_samic.gui.train import thumbnails

if TYPE_CHECKING:
    from napari_samic.gui.session.session import Session


@dataclass(frozen=True, eq=False)
class HeatMapOverlay:
    """The heat map of a reference, (h, w) in [0, 1], and where it belongs."""

    reference: OpenReference
    values: FloatArray


class GalleryEvents(SignalGroup):
    """What changed."""

    thumbs = Signal()
    heat_overlay = Signal()


class ReferenceGallery:
    """See the module.

    Parameters
    ----------
    session : Session
    heat : callable
        The heat map settings as they are now, and whether the prompter squeezes images.

    Attributes
    ----------
    thumbs : list of Thumb
    name : str
        The chosen reference, marked among the others; "" if none is.
    heat_overlay : HeatMapOverlay or None
        While it is wanted, and known.
    events : GalleryEvents
    """

    def __init__(self, session: Session, heat: Callable[[], tuple[HeatMapSettings, bool]]) -> None:
        self.session, self._heat = session, heat
        self.thumbs: list[Thumb] = []
        self.name, self.heat_overlay = "", None
        self.events = GalleryEvents()
        self.is_open = self.wants_heat = False
        self._cached: dict[str, tuple[Any, Thumb]] = {}
        self._drawing: Handle | None = None
        self._stale = False
        self._newest = 0

    heat_overlay: HeatMapOverlay | None

    def open(self) -> None:
        """The references became visible: draw them, and from now on whenever they change."""
        self.is_open = True
        self.refresh()

    def close(self) -> None:
        """They are not visible any more."""
        self.is_open = False
        self.show_heat(False)

    # --- thumbnails

    def refresh(self) -> None:
        """References, prompts or settings changed: draw again; one job at a time."""
        if not self.is_open:
            return
        if self._drawing is not None:
            self._stale = True
            return
        references, self._stale = self.session.references(), False
        heat, squeeze = self._heat()
        cached = {
            reference.annotation.name: thumb
            for reference in references
            if (kept := self._cached.get(reference.annotation.name)) and kept[0] is reference.pixels
            for thumb in kept[1:]
        }
        project = self.session.project
        folder = project.images_folder if project is not None else None
        job = thumbnails.draw(references, heat, cached, folder, squeeze=squeeze)
        calls = Calls(on_done=partial(self._drawn, references), on_end=self._ended)
        self._drawing = self.session.runner.start(job, calls)
        self._redraw_heat()

    def _drawn(self, references: list[OpenReference], thumbs: list[Thumb]) -> None:
        pairs = zip(references, thumbs, strict=True)
        self._cached = {t.name: (reference.pixels, t) for reference, t in pairs}
        if not self._stale:
            self.thumbs = thumbs
            self.events.thumbs.emit()

    def _ended(self) -> None:
        self._drawing = None
        if self._stale:
            self.refresh()

    # --- one of them

    def select(self, name: str) -> None:
        """Bring a reference on the screen, and its heat map if that is wanted.

        Raises
        ------
        InputError
            It is not open.
        """
        self.session.show_image(name)
        self._choose(name)
        self._redraw_heat()

    def show_heat(self, on: bool, name: str = "") -> None:
        """Show or hide the heat map of a reference, and choose that one.

        It is that of `name`, else of the image on the screen, else the one chosen last, else the
        first, which are then brought on the screen.

        Raises
        ------
        InputError
            None is open; nothing is shown.
        """
        self.wants_heat = False
        if on:
            open_names = self._open_names()
            wanted = [
                n
                for n in (name, self.session.image_name, self.name, *open_names)
                if n in open_names
            ]
            if not wanted:
                raise InputError("no reference is open in napari. Open the image of one.")
            self.wants_heat = True
            self._choose(wanted[0])
            if self.session.image_name != self.name:
                self.session.show_image(self.name)
        self._redraw_heat()

    def follow(self) -> None:
        """Another image is on the screen: while heat maps are shown, its own is, if it has one."""
        if self.wants_heat and self.session.image_name in self._open_names():
            self._choose(self.session.image_name)

    def _choose(self, name: str) -> None:
        if name != self.name:
            self.name = name
            self.events.thumbs.emit()

    def _open_names(self) -> list[str]:
        return [reference.annotation.name for reference in self._open_references()]

    def _open_references(self) -> list[OpenReference]:
        return [
            reference for reference in self.session.references() if reference.pixels is not None
        ]

    def _redraw_heat(self) -> None:
        self._newest += 1
        chosen = self._open_references() if self.wants_heat else []
        chosen = [reference for reference in chosen if reference.annotation.name == self.name]
        if not chosen:
            self._heat_drawn(self._newest, None)
            return
        heat, squeeze = self._heat()
        job = draw_heat_overlay(chosen[0], heat, squeeze=squeeze)
        self.session.runner.start(job, Calls(on_done=partial(self._heat_drawn, self._newest)))

    def _heat_drawn(self, request: int, heat_overlay: HeatMapOverlay | None) -> None:
        if request == self._newest and heat_overlay is not self.heat_overlay:
            self.heat_overlay = heat_overlay
            self.events.heat_overlay.emit()


def draw_heat_overlay(
    reference: OpenReference, heat: HeatMapSettings, *, squeeze: bool
) -> Job[HeatMapOverlay]:
    """Draw the heat map of one reference."""
    yield JobProgress(0, 1, reference.annotation.name)
    side = min(thumbnails.MAP_PX, max(reference.annotation.shape))
    objects = thumbnails.objects_of(reference)
    values = thumbnails.heat_map(objects, reference.annotation.shape, side, heat, squeeze=squeeze)
    return HeatMapOverlay(reference, values)
