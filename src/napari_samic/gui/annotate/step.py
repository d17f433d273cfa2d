"""The Annotate step on its viewer: wiring only.

Viewer and layers on one side, state and jobs on the other: this room connects them, and lets all
go when the dock or the viewer closes. Must not decide or compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from qtpy.QtWidgets import QScrollArea, QWidget

from napari_samic.core.errors import SamicError
from napari_samic.core.types import BoolArray, FloatArray
from napari_samic.gui.annotate import guide, keys
from napari_samic.gui.annotate.chooser import Chooser
from napari_samic.gui.annotate.dialogs import Dialogs
from napari_samic.gui.annotate.layers import AnnotationLayers
from napari_samic.gui.annotate.view import AnnotatePanel, short
from napari_samic.gui.canvas.owned_layers import OURS
from napari_samic.gui.canvas.repaint import RepaintBlocker
from napari_samic.gui.data import autosave, layer_choice, masks_io, provenance, trusted_files
from napari_samic.gui.data.project import Project, is_project
from napari_samic.gui.runner import jobs
from napari_samic.gui.runner.jobs import Calls, notify_errors
from napari_samic.gui.session.jobs import open_folder
from napari_samic.gui.session.notices import sentence
from napari_samic.gui.session.session import Session
from napari_samic.gui.state.objects import AnnotatedObject
from napari_samic.gui.widgets.base import CoalescedCall, later, scrolled
from napari_samic.io.outlines import SUFFIXES
from napari_samic.io.prompts import holds_prompts
from napari_samic.io.readers import READABLE

if TYPE_CHECKING:
    from napari.types import LayerData

_PAUSE_MS = 60
"""A slice is read once it was shown for so long, and encoded where clicks are made."""
_DRAWN_MS = 50
"""By then the dock is on the screen; our layers take napari a second, the model's import two."""
_LIVE_PAUSE_MS = 50
"""Live looks again once nothing has changed for so long; a click ends what it does then."""


class AnnotateStep:
    """Annotate with a segment-anything model: click, look, go on.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    scheduler : PromptScheduler
    dialogs : Dialogs
    panel : AnnotatePanel
    owned_layers : AnnotationLayers or None
        Our layers; None while no image is chosen.
    """

    title = "Annotate"

    def __init__(self, session: Session) -> None:
        self.session, self.viewer, self.scheduler = session, session.viewer, session.scheduler
        self.owned_layers: AnnotationLayers | None = None
        self._bound: list[Any] = []
        self._closed = self._left = self._hinted = False
        self._scroll = QScrollArea()
        self.widget: QWidget = self._scroll
        self.dialogs = Dialogs(self.widget, self.scheduler)
        self.panel = AnnotatePanel(self.handlers())
        self.chooser = Chooser(self.viewer, self.panel)
        scrolled(self.panel, self._scroll)
        self._pause = later(
            self.widget, _PAUSE_MS, lambda: self.scheduler.prepare(encode=not self._left)
        )
        self._live_pause = later(self.widget, _LIVE_PAUSE_MS, self._look_live)
        self._soon = CoalescedCall(self.widget, self.redraw)
        self._opened: Any | None = None
        self._colors: tuple[Any, ...] = ()
        self._tidy_soon = CoalescedCall(self.widget, self._tidy)
        self._raising = CoalescedCall(self.widget, self._raise_layers)
        self._repaint_blocker = RepaintBlocker(self.widget)
        self._connect()
        self.chooser.fill_models()
        self.panel.model.activated.connect(self._choose_model)
        self.dialogs.offer_recovery(self.panel)
        self._begin = later(self.widget, _DRAWN_MS, self._begin_work)
        self._begin.start()
        self._fill_images()

    def _begin_work(self) -> None:
        self._tidy()
        self.scheduler.choose_model(str(self.panel.model.currentData()))

    def enter(self) -> None:
        """Let clicks make prompts."""
        self._slice_changed()
        self._left, was_left = False, self._left
        self._live_pause.start()
        if self.owned_layers is not None and was_left:
            self._pause.start()
            self.owned_layers.rest(False)
            tools = self.panel.tools.items()
            self.use_tool(next((name for name, b in tools if b.isChecked()), "positive"))
        self._tidy_soon.start()

    def leave(self) -> None:
        """Clicks make no prompts now; layers stay, and answers under way still come."""
        self._left = True
        self.session.live.forget()
        if self.owned_layers is not None:
            self.owned_layers.rest(True)

    # --- actions

    def handlers(self) -> dict[str, Callable[..., Any]]:
        """What buttons and keys do, by name."""
        state = self.scheduler.state
        plain: dict[str, Callable[..., None]] = {
            "new": self._new_object,
            "previous": lambda: state.step_object(-1),
            "next": lambda: state.step_object(+1),
            "delete": state.delete_object,
            "cycle": state.cycle_mask,
            "class": lambda: state.set_class(state.classes.after(state.class_here)),
            "undo": state.undo,
            "redo": state.redo,
            "select": state.select,
            "classed": state.choose_class,
            "reference": self._toggle_reference,
            "sign": self.toggle_sign,
            "box": self.toggle_box,
            "positive": lambda: self.use_tool("positive"),
            "negative": lambda: self.use_tool("negative"),
            "draw": lambda: self.use_tool("draw"),
            "scribble": lambda: self.use_tool("scribble"),
            "brush": lambda: self.use_tool("brush"),
            "one_click": self._use_one_click,
            "hint": self.toggle_hint,
            "folder": self._ask_folder,
            "live": lambda: self.session.live.switch(not self.session.live.is_on),
        }
        plain |= {
            "load": self._ask_annotations,
            "load_folder": self._ask_masks,
            "load_paths": self.drop,
            "load_layer": self.load_layer,
            "show_image": self.session.show_image,
        }
        plain |= self.dialogs.handlers()
        acts: dict[str, Callable[..., Any]] = {n: notify_errors(act) for n, act in plain.items()}
        return acts | {"labels": self._labels_choices}

    def use_tool(self, tool: str) -> None:
        """Choose what the next click or drag does: "positive", "negative", "draw", "scribble" or
        "brush".
        """
        if self.owned_layers is None:
            return
        if not self.owned_layers.pixels.is_clicked:
            self.panel.show_tool(tool)
            return
        self.owned_layers.ensure()
        self.redraw()
        if tool == "draw":
            self.owned_layers.use_boxes()
        elif tool == "scribble":
            self.owned_layers.use_scribble()
            self.panel.show_sign(self.owned_layers.sign)
        elif tool == "brush":
            self.owned_layers.use_brush()
        else:
            self.owned_layers.use_points(tool == "positive")
        self.panel.show_tool(tool)

    def load(self, paths: Sequence[Path]) -> None:
        """Take over prompts, or masks and outlines of the open images, from files or a folder."""
        saver = self.scheduler.autosaver
        if len(paths) == 1 and holds_prompts(paths[0]):
            saver.load(paths[0])
        else:
            images, state = self.session.open_images(), self.scheduler.state
            name = state.classes.style(state.label).name
            saver.load_masks(masks_io.read_files(paths, images, name))

    def drop(self, paths: Sequence[Path]) -> None:
        """Load what is dropped; a folder that has no masks of the open images is opened."""
        self.session.go_to(self.title)
        (folder,) = paths if len(paths) == 1 and paths[0].is_dir() else (None,)
        if folder is None or masks_io.has_masks(folder, self.session.open_images()):
            self.load(paths)
        else:
            self.open_folder(folder)

    def _ask_annotations(self) -> None:
        kinds = " ".join(f"*{ending}" for ending in (*SUFFIXES, *READABLE))
        if path := self.dialogs.ask_file("Prompts, masks or outlines", f"Annotations ({kinds})"):
            self.load([path])

    def _ask_masks(self) -> None:
        if folder := self.dialogs.ask_folder("Folder of masks"):
            self.load([folder])

    def load_layer(self, layer: Any, whole: bool) -> None:
        """Take a Labels layer as the masks of the shown slice, or of all slices."""
        pixels = self.session.need_pixels()
        indices = pixels.indices() if whole else [self.scheduler.index]
        levels = list(layer.data) if layer.multiscale else [layer.data]
        sizes = [tuple(level.shape)[-2:] for level in levels]
        level = levels[sizes.index(pixels.shape) if pixels.shape in sizes else 0]
        state = self.scheduler.state
        class_name = state.classes.style(state.label).name
        job = masks_io.read_layer(str(layer.name), level, pixels, indices, class_name)
        self.scheduler.autosaver.load_masks(job)

    def _labels_choices(self) -> list[tuple[str, Any, bool]]:
        """Labels layers that may be taken: what to call it, the layer, and whether as a whole."""
        stack = self.session.pixels is not None and self.session.pixels.stack_shape
        annotation = self.scheduler.state.annotation
        here = "" if annotation is None else short(annotation.name)
        out: list[tuple[str, Any, bool]] = []
        for layer in layer_choice.labels_layers(self.viewer):
            flat = f"{layer.name}, this slice: {here}" if stack else str(layer.name)
            out.append((flat, layer, False))
            if stack and layer.ndim > 2:
                out.append((f"{layer.name}, all slices", layer, True))
        return out

    def toggle_sign(self) -> None:
        """From positive to negative clicks and back, and of strokes; from box or brush to negative
        clicks.
        """
        if self.owned_layers is None:
            return
        if self.panel.tools["scribble"].isChecked():
            self._scribble(not self.owned_layers.sign)
        else:
            was_negative = self.panel.tools["negative"].isChecked()
            self.use_tool("positive" if was_negative else "negative")

    def _scribble(self, sign: bool) -> None:
        if self.owned_layers is not None:
            self.owned_layers.sign = sign
            self.use_tool("scribble")

    def toggle_box(self) -> None:
        """From clicks to boxes and back."""
        if self.owned_layers is not None:
            drawing = self.panel.tools["draw"].isChecked()
            self.use_tool(
                ("positive" if self.owned_layers.sign else "negative") if drawing else "draw"
            )

    def toggle_hint(self) -> None:
        """Show or hide what the encoder sees."""
        self._hinted = not self._hinted
        self.panel.hint.setChecked(self._hinted)
        self.scheduler.show_hint(self._hinted)

    def _use_one_click(self, on: bool) -> None:
        self.scheduler.state.one_click = on
        self._refresh()

    def _new_object(self) -> None:
        self.scheduler.state.new_object()
        self._aim_positive()

    def _aim_positive(self) -> None:
        """A new object begins with a positive click, whatever the last one ended with."""
        annotation = self.scheduler.state.annotation
        is_new = annotation is not None and annotation.item() is None
        if is_new and self.panel.tools["negative"].isChecked():
            self.use_tool("positive")
        elif is_new and self.panel.tools["scribble"].isChecked():
            self._scribble(True)

    def _toggle_reference(self) -> None:
        annotation = self.scheduler.state.annotation
        if annotation is not None:
            self.scheduler.state.use_as_reference(not annotation.is_reference)

    # --- choosing

    def _ask_folder(self) -> None:
        if folder := self.dialogs.ask_folder("Folder of images, or of a project"):
            self.open_folder(folder)

    def open_folder(self, folder: Path) -> None:
        """Open the images of a folder, each read when it is looked at; or the project it is."""
        if is_project(folder):
            self.scheduler.autosaver.open_project(Project.open(folder))
            return
        self.session.go_to(self.title)
        self.panel.folder.setEnabled(False)
        calls = Calls(on_done=self._add_images, on_end=lambda: self.panel.folder.setEnabled(True))
        self.session.runner.start(open_folder(folder), calls, title=f"SAMIC: opening {folder.name}")

    def _add_images(self, opened: tuple[list[LayerData], list[str]]) -> None:
        layers, lines = opened
        for data, options, _ in layers:
            self.viewer.add_image(data, **options)
        for line in lines:
            show_info(sentence(line))

    def _choose_model(self) -> None:
        if name := self.chooser.model(self.dialogs.ask_file, self.scheduler.state.model):
            self.scheduler.choose_model(name)

    def _fill_images(self, _event: Any = None) -> None:
        """List the image layers; if the chosen one is gone, let it go."""
        if self._closed:
            return
        chosen = self.owned_layers.image if self.owned_layers is not None else None
        if not self.chooser.fill_images(chosen, self._colors):
            self._leave(remove=False)
            self._refresh()
            self.session.events.image.emit()
        self._tidy_soon.start()

    def choose_layer(self, layer: Any) -> None:
        """Make an image layer the one that is annotated."""
        self._enter(layer, (layer,))
        self._refresh()

    def _choose_image(self) -> None:
        if (layer := self.chooser.image()) is not None:
            self._enter(layer, (layer,))
        self._refresh()

    def _choose_colors(self, _event: Any = None) -> None:
        layers = self.panel.channels.currentData()
        if self.owned_layers is not None and layers:
            self._enter(self.owned_layers.image, layers)
        elif self.owned_layers is not None and layers == ():
            self._split()

    def _split(self) -> None:
        """Make a layer of each channel of the image, as napari does, and take them for colors."""
        if self.owned_layers is None:
            return
        image, layers = self.owned_layers.image, self.viewer.layers
        channels = layer_choice.channel_layers(image, self.owned_layers.pixels.name)
        place = layers.index(image)
        if not self._is_drawn_on():
            self.owned_layers.remove("masks")
        layers.remove(image)
        for number, channel in enumerate(channels):
            layers.insert(place + number, channel)
        _, colors = layer_choice.color_choices(self.viewer, channels[0])[-1]
        self._enter(channels[0], colors)
        self._refresh()

    def _raise_layers(self) -> None:
        """After layers came, as the channels that one was split into, ours lie on top."""
        if self.owned_layers is not None and not (self._closed or self._left):
            self.owned_layers.raise_above_images()

    def _is_drawn_on(self) -> bool:
        """Whether something is annotated on the chosen image, on any slice."""
        annotations, pixels = self.scheduler.state.annotations, self.session.pixels
        names = (name for name, annotation in annotations.items() if annotation.items)
        return pixels is not None and any(pixels.index_of(name) is not None for name in names)

    def _tidy(self) -> None:
        """Annotate what was opened last, or any image if none is; drop our layers of images that
        are gone. Clicks go to ours where no layer is left that takes them.

        Not while napari adds or removes layers: it makes what it adds active at the end, and does
        not bear that others are removed meanwhile.
        """
        if self._closed or self._begin.isActive():
            return
        names, layers = self.session.names, self.viewer.layers
        here = {names.of(layer) for layer in names.layers if layer in layers}
        gone = {names.of(layer) for layer in names.layers} - here
        for layer in [layer for layer in layers if layer.metadata.get(OURS) in gone]:
            layers.remove(layer)
        if self.owned_layers is None:
            self._choose_image()
        elif not self._left and self._opened in layer_choice.image_layers(self.viewer):
            self.choose_layer(self._opened)
        elif not (self._left or layers.selection) and self.owned_layers.has("clicks"):
            self.owned_layers.use_points(self.owned_layers.sign)

    def _enter(self, image: Any, layers: tuple[Any, ...]) -> None:
        self._leave()
        self._opened, self._colors = None, layers
        self.chooser.fill_images(image, layers)
        try:
            pixels = self.session.names.open(image, layers)
        except SamicError as error:
            jobs.show(error)
            return
        self.owned_layers = AnnotationLayers(
            self.viewer, image, pixels, on_points=self._on_points, on_boxes=self._on_boxes,
            on_stroke=self._on_stroke, on_paint=self._on_paint,
        )  # fmt: skip
        self.session.layer, self.session.pixels = image, pixels
        self.owned_layers.on_new = self._bind
        self.owned_layers.rest(self._left)
        self.owned_layers.bring_forward()
        image.events.data.connect(self._choose_colors)  # other pixels: begin anew
        self.owned_layers.ensure()
        self._raising.start()
        self.panel.show_tool("positive")
        self.scheduler.state.message = guide.CHANNELS if layer_choice.is_channels(image) else ""
        self._slice_changed()
        self.session.events.image.emit()

    def _leave(self, *, remove: bool = True) -> None:
        owned_layers, self.owned_layers = (
            self.owned_layers,
            None,
        )  # first: removing layers comes back here
        if owned_layers is not None:
            owned_layers.image.events.data.disconnect(self._choose_colors)
            keys.release(self._bound)
            self._bound.clear()
            owned_layers.release(remove=remove)
            self.session.live.forget()
            self.scheduler.leave()
            self.session.layer = self.session.pixels = None

    # --- viewer to state

    def _connect(self) -> None:
        state, scheduler = self.scheduler.state.events, self.scheduler.events
        state.answer.connect(self._answered)
        for signal in (state.annotation, state.prompts, state.classes):
            signal.connect(self._state_changed)
        scheduler.requested.connect(self._repaint_blocker.begin)
        scheduler.answered.connect(self._repaint_blocker.end)
        scheduler.hint.connect(self._show_hint)
        self.session.live.changed.connect(self._show_live)
        scheduler.status.connect(self._refresh)
        self.panel.image.activated.connect(lambda _: self._choose_image())
        self.panel.channels.activated.connect(lambda _: self._choose_colors())
        layers, dims = self.viewer.layers.events, self.viewer.dims.events
        self._wires: list[tuple[Any, Callable[..., None]]] = [
            (layers.inserted, self._inserted),
            (layers.removed, self._fill_images),
            (layers.reordered, self._fill_images),
            (dims.point, self._slice_changed),
            (dims.ndisplay, self._slice_changed),
            (dims.order, self._slice_changed),
            (self.viewer.layers.selection.events.active, self._show_guide),
        ]
        for event, slot in self._wires:
            event.connect(slot)
        for layer in self.viewer.layers:
            layer.events.name.connect(self._fill_images)
        self.session.choose_layer = self.choose_layer
        self.session.events.project.connect(self._project_changed)
        self.session.events.image.connect(self._image_changed)

    def _inserted(self, event: Any) -> None:
        event.value.events.name.connect(self._fill_images)
        if event.value in layer_choice.image_layers(self.viewer):
            self._opened = event.value
        self._fill_images()

    def _slice_changed(self, _event: Any = None) -> None:
        if self.owned_layers is None or self._closed:
            return
        index = self.owned_layers.index()
        if index is None:
            self.scheduler.leave()
        elif self.scheduler.pixels is not self.owned_layers.pixels or index != self.scheduler.index:
            self.scheduler.show(self.owned_layers.pixels, index)
            self.session.live.forget()
            self._pause.start()
            self._live_pause.start()
        self._refresh()

    def _on_points(self) -> None:
        if self.owned_layers is not None and self.scheduler.pixels is not None:
            undrawn = [(i.number, p) for i in self._undrawn() for p in i.points]
            self.scheduler.state.replace_points([*undrawn, *self.owned_layers.points()])

    def _on_boxes(self) -> None:
        if self.owned_layers is not None and self.scheduler.pixels is not None:
            undrawn = [(i.number, i.box) for i in self._undrawn() if i.box is not None]
            self.scheduler.state.replace_boxes([*undrawn, *self.owned_layers.boxes()])

    def _on_stroke(self, line: FloatArray) -> None:
        if self.owned_layers is not None and self.scheduler.pixels is not None:
            self.scheduler.state.add_stroke(line, self.owned_layers.sign)
            self._soon.start()  # takes the line away

    def _on_paint(self, strokes: list[tuple[int, BoolArray]]) -> None:
        for number, where in strokes:
            self.scheduler.state.paint(number, where)
        self.redraw()

    def _undrawn(self) -> Sequence[AnnotatedObject]:
        """What is on the shown slice while the layers hold what was shown before it."""
        annotation, owned_layers = self.scheduler.state.annotation, self.owned_layers
        if (
            annotation is None
            or owned_layers is None
            or owned_layers.has_drawn(self.scheduler.index)
        ):
            return ()
        return annotation.items

    # --- state to viewer

    def _state_changed(self) -> None:
        annotation = self.scheduler.state.annotation
        if self.owned_layers is not None and annotation is not None:
            self.owned_layers.aim(annotation.current)
            self._aim_positive()
        self._live_pause.start()
        self._soon.start()  # napari may be in the middle of adding a point: draw once it is done

    def redraw(self) -> None:
        """Draw the shown image's annotation, and all of the panel."""
        annotation = self.scheduler.state.annotation
        if self._closed:
            return
        if self.owned_layers is not None and annotation is not None:
            self.owned_layers.show(annotation, self.scheduler.index, self.scheduler.state.classes)
        self._refresh()

    def _answered(self) -> None:
        annotation = self.scheduler.state.annotation
        if self.owned_layers is not None and annotation is not None:
            self.owned_layers.ensure()
            self.owned_layers.show_masks(annotation, self.scheduler.state.classes)
        self._live_pause.start()
        self._refresh()

    def _look_live(self) -> None:
        if not self._closed and not self._left:
            self.session.live.refresh()

    def _show_live(self) -> None:
        live = self.session.live
        thumbs = list(live.thumbs.values())
        self.panel.show_live(is_on=live.is_on, status=live.status, thumbs=thumbs)
        if self.owned_layers is not None:
            labels = None if live.result is None else live.result.labels
            self.owned_layers.show_live(labels, self.scheduler.state.classes)

    def _show_hint(self) -> None:
        if self.owned_layers is not None:
            self.owned_layers.show_hint(self.scheduler.hint)
        self._refresh()

    def _refresh(self) -> None:
        if self._closed:
            return
        self.panel.show_state(self.scheduler.state)
        self.panel.status.setText(self.scheduler.status)
        for button in (self.panel.hint, self.panel.live):
            button.setEnabled(self.scheduler.can_hint)
        self._show_guide()

    def _show_guide(self, _event: Any = None) -> None:
        owned_layers = self.owned_layers
        if owned_layers is not None and not owned_layers.pixels.is_clicked:
            self.panel.guide.setText(guide.TOO_LARGE)
            return
        self.panel.guide.setText(
            guide.what_next(
                self.scheduler.state,
                has_image=owned_layers is not None,
                is_flat=owned_layers is not None and owned_layers.index() is not None,
                is_active=owned_layers is not None and owned_layers.is_active,
                has_model=self.scheduler.segmenter is not None,
            )
        )

    def _project_changed(self) -> None:
        if (project := self.session.project) is not None:
            name = autosave.model_of(project.notes)
            if name and name != self.scheduler.state.model and self.chooser.offers(name):
                self.scheduler.choose_model(name)
            self._bring_back(project)
            self.redraw()

    def _image_changed(self) -> None:
        if (project := self.session.project) is not None:
            self._note_images(project)

    def _bring_back(self, project: Project) -> None:
        """Open the project's images; one without images takes those that are here."""
        try:
            layer = provenance.bring_back(
                self.viewer, self.session.names, project, self.session.ask_images
            )
        except SamicError as error:
            jobs.show(error)
            return
        if layer is not None:
            self._enter(layer, provenance.noted_colors(self.viewer, project, layer))
            self._refresh()
        self._note_images(project)

    def _note_images(self, project: Project) -> None:
        layers = [layer for layer in self.session.names.layers if layer in self.viewer.layers]
        provenance.note_images(project.notes, layers, self.session.layer, self._colors)
        trusted_files.remember(path for layer in layers for path in provenance.files_of(layer))
        self.scheduler.autosaver.note()

    def _bind(self, layer: Any) -> None:
        keys.bind(layer, {verb: self.panel.handlers[verb] for verb in keys.KEYS})
        self._bound.append(layer)

    # --- the end

    def release(self) -> None:
        """Let go of the viewer: no key and no callback of ours is left."""
        if self._closed:
            return
        self._leave()
        self._closed = True
        self._begin.stop()
        self._repaint_blocker.end()
        self.disconnect()
        for layer in self.viewer.layers:
            layer.events.name.disconnect(self._fill_images)

    def disconnect(self) -> None:
        """Take our callbacks off the viewer, without touching any widget."""
        for event, slot in self._wires:
            event.disconnect(slot)
