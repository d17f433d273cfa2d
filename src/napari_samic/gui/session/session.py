"""What the steps of the dock share: viewer, project, chosen image, jobs; and what a step is.

Brings no widget of its own and must not know any step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from psygnal import Signal, SignalGroup

from napari_samic.core.errors import InputError
from napari_samic.gui.data import layer_choice, materialize, trusted_files
from napari_samic.gui.data.layer_pixels import LayerNames, LayerPixels
from napari_samic.gui.runner.jobs import Runner
from napari_samic.gui.session.live import LivePreview
from napari_samic.gui.session.scheduler import PromptScheduler

if TYPE_CHECKING:
    from pathlib import Path

    from qtpy.QtWidgets import QWidget

    from napari_samic.core.types import Job
    from napari_samic.gui.data.project import Project


class WorkflowStep(Protocol):
    """One of the steps in the dock's bar.

    Attributes
    ----------
    title : str
        For the bar.
    widget : QWidget
    """

    title: str
    widget: QWidget

    def enter(self) -> None:
        """The step became visible."""
        ...

    def leave(self) -> None:
        """Another step is shown, or the dock closes."""
        ...

    def release(self) -> None:
        """The dock or the viewer closes: no key, callback or job of the step is left."""
        ...


class SessionEvents(SignalGroup):
    """What changed for all steps."""

    project = Signal()
    image = Signal()
    prompter = Signal()
    results = Signal()
    review = Signal()


class Session:
    """See the module.

    Parameters
    ----------
    viewer : napari.Viewer
    runner : Runner

    Attributes
    ----------
    scheduler : PromptScheduler
        Annotations, model and the jobs that answer clicks.
    live : LivePreview
        What would be found now in the shown slice.
    layer : napari.layers.Image or None
        The chosen image.
    pixels : LayerPixels or None
        Of `layer`.
    events : SessionEvents
    ask_project : callable or None
        Lets the user choose a project; None where nobody can be asked.
    ask_images : callable
        Asks whether a project may open images that lie elsewhere: `trusted_files.Ask`; the dock
        sets it.
    choose_layer : callable
        Makes an image layer the chosen one; the Annotate step sets it.
    go_to : callable
        Shows a step by its title; the dock sets it.
    """

    def __init__(self, viewer: Any, runner: Runner) -> None:
        self.viewer, self.runner = viewer, runner
        self.scheduler = PromptScheduler(runner)
        self.live = LivePreview(runner, self.scheduler, self.annotated)
        self.names = LayerNames()
        self.layer: Any | None = None
        self.pixels: LayerPixels | None = None
        self.events = SessionEvents()
        self.ask_project: Callable[[], None] | None = None
        self.ask_images: trusted_files.Ask = lambda _files: False
        self.choose_layer: Callable[[Any], None] = lambda _layer: None
        self.go_to: Callable[[str], None] = lambda _title: None
        self.scheduler.autosaver.on_project = self.events.project.emit

    @property
    def project(self) -> Project | None:
        """The open project."""
        return self.scheduler.autosaver.project

    def need_project(self) -> Project:
        """The open project; if there is none, the user is asked for one.

        Raises
        ------
        InputError
            There is still none.
        """
        if self.project is None and self.ask_project is not None:
            self.ask_project()
        if self.project is None:
            raise InputError("Choose a project folder first: New or Open at the top of the dock.")
        return self.project

    def need_pixels(self) -> LayerPixels:
        """Pixels of the chosen image.

        Raises
        ------
        InputError
            None is chosen.
        """
        if self.pixels is None:
            raise InputError("Choose an image first, in the Annotate step.")
        return self.pixels

    @property
    def image_name(self) -> str:
        """Name of the image on the screen, as `ImagePlane.label`; "" if it is none of ours."""
        annotation = self.scheduler.state.annotation
        return "" if annotation is None else annotation.name

    # --- files for the pipeline

    def images(self) -> Job[list[Path]]:
        """Make files of all images of the chosen layer: their own, or TIFFs in the project.

        Returns
        -------
        Job of list of Path
            In the order of the slices.

        Raises
        ------
        InputError
            No project or no image, here; while it runs: an image that can't be read, or another
            of its name in the project.
        """
        pixels, project = self.need_pixels(), self.need_project()
        return materialize.as_files(pixels, pixels.indices(), project.images_folder)

    def reference_images(self) -> Job[tuple[list[Path], Path]]:
        """Make files of the images to learn from, and one of their prompts.

        These are the annotated images that are marked as references, or all if none is.

        Returns
        -------
        Job of (list of Path, Path)
            The images, and the prompts: one of `Project.references_files`.

        Raises
        ------
        InputError
            As `images`; or nothing is annotated, or a reference is neither open nor in the project.
        """
        project = self.need_project()
        references = materialize.references(self.scheduler.state, self.find)
        return materialize.references_as_files(references, self.scheduler.state, project)

    def other_images(self) -> Callable[[int], Job[list[Path]]]:
        """Make files of open images that are not annotated: see `materialize.others_as_files`.

        Raises
        ------
        InputError
            No project.
        """
        folder = self.need_project().images_folder
        slices = [(pixels, index) for pixels in self.open_images() for index in pixels.indices()]
        annotated = {p.name for p in self.scheduler.state.annotations.values() if p.items}
        return materialize.others_as_files(slices, annotated, folder)

    def open_images(self) -> list[LayerPixels]:
        """Pixels of the open images, each once."""
        images: list[LayerPixels] = []
        for _, pixels in self._open():  # the chosen one first; its channels are no images
            if not any(pixels.overlaps(other) for other in images):
                images.append(pixels)
        return images

    def drawing(self) -> materialize.Drawing:
        """What is drawn on the images to learn from, as it is now."""
        return materialize.Drawing.of(self.scheduler.state, self.scheduler.segmenter)

    def references(self) -> list[materialize.OpenReference]:
        """The images to learn from and their open slices; none if nothing is annotated."""
        try:
            return materialize.references(self.scheduler.state, self.find)
        except InputError:
            return []

    def annotated(self) -> list[materialize.OpenReference]:
        """All images with an object, whether marked or not, and their open slices."""
        annotations = self.scheduler.state.annotations.values()
        return materialize.open_slices([a for a in annotations if a.items], self.find)

    # --- the screen

    def _open(self) -> Iterator[tuple[Any, LayerPixels]]:
        """Image layers and their pixels; the chosen one first, and again in its place."""
        for layer in [self.layer, *layer_choice.image_layers(self.viewer)]:
            if layer is None:
                continue
            chosen = layer is self.layer and self.pixels is not None
            pixels = self.pixels if chosen else self.names.open(layer)
            if pixels is not None:
                yield layer, pixels

    def find(self, name: str) -> tuple[Any, LayerPixels, tuple[int, ...]] | None:
        """The open image of that name: its layer, its pixels, and which slice."""
        for layer, pixels in self._open():
            if (index := pixels.index_of(name)) is not None:
                return layer, pixels, index
        return None

    def layer_of(self, name: str) -> Any | None:
        """The open layer that an image belongs to."""
        location = self.find(name)
        return None if location is None else location[0]

    def show_image(self, name: str) -> None:
        """Bring an image on the screen.

        Parameters
        ----------
        name : str
            As `ImagePlane.label`.

        Raises
        ------
        InputError
            No open layer has it.
        """
        location = self.find(name)
        if location is None:
            raise InputError(f"{name}: not open in napari. Open the image it belongs to.")
        layer, _, index = location
        if layer is not self.layer:
            self.choose_layer(layer)
        world = layer.data_to_world((*index, *np.zeros(layer.ndim - len(index))))
        first = self.viewer.dims.ndim - layer.ndim
        for axis in range(len(index)):
            self.viewer.dims.set_point(first + axis, world[axis])

    # --- the end

    def close(self) -> None:
        """Stop all work; what is not saved is saved, or kept to be offered again."""
        self.events.disconnect()
        self.live.pause()
        self.live.changed.disconnect()
        self.scheduler.close()
