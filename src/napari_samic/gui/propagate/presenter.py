"""The state and actions of Propagate: one slice as a preview, then all the others.

The preview follows slice and settings; what takes long is kept, so that changing how peaks are
found asks no network again. A late answer is dropped. Plain Python: must not know Qt or napari;
jobs are run by the session's runner, which tests replace by one without threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal, SignalGroup, SignalInstance

from napari_samic.core.errors import InputError, SettingsError
from napari_samic.core.settings import PRESETS, PeakSettings, Preset, Settings, preset
from napari_samic.core.types import HeatMap, JobProgress
from napari_samic.gui.propagate import jobs as work
from napari_samic.gui.propagate.results import ResultStore
from napari_samic.gui.propagate.run import PropagationRun
from napari_samic.gui.runner.jobs import Calls, Handle
from napari_samic.gui.session.notices import in_words
from napari_samic.recipes.schema import STEP_SCHEMAS

if TYPE_CHECKING:
    from napari_samic.gui.session.session import Session

NOTES = "propagate"
GROUP_NAMES = {kind: name for name, kind in STEP_SCHEMAS["segment"].groups.items()}
"""Of each group of settings, what `pipeline.segment` calls it."""


class PropagationEvents(SignalGroup):
    """What changed; of results `ResultStore.events` tell, of the run `PropagationRun.changed`."""

    state = Signal()
    settings = Signal()
    preview = Signal()
    folder_image = Signal()


class PropagationModel:
    """See the module.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    options : SegmentOptions
        What is asked for; `peaks` is None as long as those of the prompter hold.
    stored : PeakSettings or None
        Those of the prompter, once they are known.
    heat : HeatMap or None
        Of the shown slice; comes before `preview`.
    preview : Preview or None
    is_previewing : bool
        The preview follows slice and settings.
    preview_status : str
        What the preview is doing; "" if nothing.
    run : PropagationRun
        The run over all images.
    store : ResultStore
        Results of the chosen image layer, and what is painted on them.
    folder_image : FolderImage or None
        An image of a folder that is shown with its labels.
    events : PropagationEvents
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events = PropagationEvents()
        self.options = work.SegmentOptions()
        self.stored: PeakSettings | None = None
        self.heat: HeatMap | None = None
        self.preview: work.Preview | None = None
        self.is_previewing, self.preview_status = False, ""
        self.folder_image: work.FolderImage | None = None
        self.store = ResultStore(session)
        self.run = PropagationRun(session, self.store, self._request)
        self._predictor: work.LoadedPredictor | None = None
        self._features: work.ImagePreview | None = None
        self._newest: object = None
        self._handle: Handle | None = None
        self._reading: Handle | None = None
        self._wires: list[tuple[SignalInstance, Callable[[], None]]] = [
            (session.events.project, self._project_changed),
            (session.events.prompter, self._read_prompter),
            (session.events.image, self._image_changed),
            (session.events.review, self.store.reread),
        ]
        for signal, slot in self._wires:
            signal.connect(slot)
        self._take_notes()
        self._read_prompter()

    # --- the prompter

    @property
    def prompter(self) -> Path | None:
        """The prompter's file, if there is one."""
        project = self.session.project
        return project.prompter_file if project and project.prompter_file.is_file() else None

    def need_prompter(self) -> Path:
        """The prompter's file.

        Raises
        ------
        InputError
            No project, or no prompter in it.
        """
        self.session.need_project()
        if (path := self.prompter) is None:
            raise InputError("There is no prompter yet. Train one first, in the Train step.")
        return path

    def _project_changed(self) -> None:
        self.run.leave_project()
        self._take_notes()
        self._read_prompter()
        self._image_changed()

    def _image_changed(self) -> None:
        self._features = None
        if self.options.rescale:
            self._predictor = None  # with a range that was fitted to the image before
        self.moved()
        self.store.open()

    def _read_prompter(self) -> None:
        self.stored, self._predictor, self._features = None, None, None
        self._clear_preview()
        if self._reading is not None:
            self._reading.cancel()
        if (file := self.prompter) is not None:
            calls = Calls(on_done=self._peaks_read)
            self._reading = self.session.runner.start(work.read_peaks(file), calls)
        self.events.settings.emit()
        self.refresh_preview()

    def _peaks_read(self, peaks: PeakSettings) -> None:
        self.stored = peaks
        self.events.settings.emit()

    # --- settings

    def change(self, *groups: Settings, method: str | None = None) -> None:
        """Use other settings, or another method; the preview follows."""
        changed: dict[str, Any] = {GROUP_NAMES[type(group)]: group for group in groups}
        if "peaks" in changed:
            changed["peaks"] = self._own_peaks(changed["peaks"])
        changed |= {"method": method} if method is not None else {}
        self._use(replace(self.options, **changed))

    @property
    def preset(self) -> str:
        """Name of the preset that is in use; "" if the settings are the user's own."""
        own = replace(_unlinked(self.options), rescale=False)
        names = (p.name for p in PRESETS if _unlinked(self._options_of(p)) == own)
        return next(names, "")

    def choose_preset(self, name: str) -> None:
        """Use what a preset sets, and the defaults of all else, but for linking and rescaling."""
        options = replace(self._options_of(preset(name)), rescale=self.options.rescale)
        if not options.is_chained:
            link = self.options.memory.link
            options = replace(options, memory=replace(options.memory, link=link))
        self._use(options)
        self.events.settings.emit()

    def link(self, on: bool) -> None:
        """Give an object a single number through the slices of a stack, or let each count anew."""
        memory = replace(self.options.memory, link="stacks" if on else "never")
        self._use(replace(self.options, memory=memory))
        self.events.settings.emit()

    def rescale(self, on: bool) -> None:
        """Fit a range to images of another scale than those of the training, or refuse them."""
        self._use(replace(self.options, rescale=on))

    def _options_of(self, preset: Preset) -> work.SegmentOptions:
        groups: dict[str, Any] = {
            name: kind.from_dict(preset.of(kind)) for kind, name in GROUP_NAMES.items()
        }
        peaks = replace(self.stored or PeakSettings(), **preset.of(PeakSettings))
        groups["peaks"] = self._own_peaks(peaks)
        return work.SegmentOptions(method=preset.values.get("method", "auto"), **groups)

    def _own_peaks(self, peaks: PeakSettings) -> PeakSettings | None:
        """None if they are those of the prompter, also while these are not known yet."""
        return None if peaks == (self.stored or PeakSettings()) else peaks

    def _use(self, options: work.SegmentOptions) -> None:
        if options == self.options:
            return
        self.options = options
        self.note(
            method=options.method,
            rescale=options.rescale,
            **{name: (group := getattr(options, name)) and group.to_dict()
               for name in GROUP_NAMES.values()},
        )  # fmt: skip
        self.events.state.emit()
        self.refresh_preview()

    @property
    def fault(self) -> str:
        """Why the options can't act together; "" if they can."""
        try:
            self.options.check()
        except SettingsError as error:
            return in_words(str(error))
        return ""

    def _take_notes(self) -> None:
        notes = self.notes
        try:
            groups: dict[str, Any] = {
                name: kind.from_dict(values)
                for kind, name in GROUP_NAMES.items()
                if (values := notes.get(name))
            }
            method = notes.get("method", "auto")
            known = method in work.methods()  # a package may be gone
            self.options = work.SegmentOptions(
                method=method if known else "auto", rescale=bool(notes.get("rescale")), **groups
            )
        except (SettingsError, TypeError):  # of another version
            self.options = work.SegmentOptions()

    @property
    def notes(self) -> dict[str, Any]:
        """What the project keeps of this step."""
        project = self.session.project
        notes = project.notes.get(NOTES) if project is not None else None
        return notes if isinstance(notes, dict) else {}

    def note(self, **values: Any) -> None:
        """Let the project keep something."""
        if (project := self.session.project) is not None:
            project.notes[NOTES] = self.notes | values
            self.session.scheduler.autosaver.note()

    # --- the run

    def _request(self, anew: bool) -> work.PropagateRequest:
        prompter, project = self.need_prompter(), self.session.need_project()
        self.options.check()
        options = self.options
        if options.is_chained and self.run.folder is None:  # each slice has a file of its own
            if len(shape := self.session.need_pixels().stack_shape) > 1:
                axes = " x ".join(map(str, shape))
                raise InputError(f"slices follow each other along one axis, this image has {axes}.")
            memory = options.memory
            if options.follows:
                memory = replace(memory, follow="always")
            else:
                memory = replace(memory, link="always")
            options = replace(options, memory=memory)
        return work.PropagateRequest(
            prompter, project.recipe, options, self.session.drawing(), project.annotated_folder,
            anew=anew,
        )  # fmt: skip

    def start(self) -> None:
        """Begin the run, or go on with it; the preview goes, so that its results are seen.

        Raises
        ------
        SamicError
            As `PropagationRun.start`; the preview stays.
        """
        self.run.start()
        if self.is_previewing:
            self.watch(False)

    # --- the preview

    def watch(self, on: bool) -> None:
        """Show the preview and let it follow, or take it away.

        Raises
        ------
        InputError
            No image, project or prompter.
        """
        if on:
            self.session.need_pixels()
            self.need_prompter()
        self.is_previewing = on
        self._clear_preview()
        self.refresh_preview()

    def moved(self) -> None:
        """Another slice or image is shown; `refresh_preview` looks at it."""
        self._clear_preview()

    def refresh_preview(self) -> None:
        """Segment the shown slice with the settings of now, if the preview is on."""
        scheduler, file = self.session.scheduler, self.prompter
        pixels, index = scheduler.pixels, scheduler.index
        if not self.is_previewing or pixels is None or file is None:
            return
        self._stop()
        if self.fault:
            self._clear_preview()
            return
        plane = pixels.plane(index)
        predictor, features = self._predictor, self._features
        wanted = work.stamp_of(file), work.method_of(self.options), self.options.rescale
        if predictor is not None:
            loaded = predictor.stamp, predictor.method, predictor.rescale
            predictor = predictor if loaded == wanted else None
        if predictor is None or (features is not None and features.label != plane.label):
            features = None
        self._newest = request = object()
        self.preview_status = (
            "Looking at the slice ..." if predictor else "Loading the prompter ..."
        )
        fits = predictor is None and self.options.rescale  # to all planes, which takes a while
        job = work.preview(
            file, plane, self.options,
            stack=[pixels.plane(each) for each in pixels.indices()] if fits else (),
            results=self.session.need_project().results_folder,
            predictor=predictor, features=features, scratch=self.session.need_project().folder,
        )  # fmt: skip
        calls = Calls(
            on_step=partial(self._preview_stepped, request),
            on_done=partial(self._previewed, request),
            on_end=partial(self._ended, request),
        )
        self._handle = self.session.runner.start(job, calls)
        self.events.state.emit()

    def _preview_stepped(self, request: object, step: JobProgress) -> None:
        if request is not self._newest:
            return
        heat = None
        if isinstance(step, work.PreviewStep):
            self._predictor, heat = step.predictor, step.heat
            self._features = step.features or self._features
        self.preview_status = (
            f"{step.message.capitalize()} ..." if step.message else self.preview_status
        )
        if heat is not None:
            self.heat = heat
            self.events.preview.emit()
        self.events.state.emit()

    def _previewed(self, request: object, preview: work.Preview) -> None:
        if request is self._newest:
            self.preview, self.heat = preview, preview.result.heat_map
            self.events.preview.emit()

    def _ended(self, request: object) -> None:
        if request is self._newest:
            self._handle, self.preview_status = None, ""
            self.events.state.emit()

    def _stop(self) -> None:
        self._newest = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.preview_status = ""

    def _clear_preview(self) -> None:
        self._stop()
        had_preview = self.heat is not None or self.preview is not None
        self.heat = self.preview = None
        if had_preview:
            self.events.preview.emit()
        self.events.state.emit()

    # --- an image of a folder

    def open_folder_image(self, label: str) -> None:
        """Show an image of the folder with its labels; of the chosen layer, go to the slice."""
        if (results := self.store.results) is None:
            return
        if self.run.folder is None:
            self.session.show_image(label)
            return
        job = work.open_folder_image(self.run.paths, label, results)
        self.session.runner.start(job, Calls(on_done=self._folder_image_read))

    def _folder_image_read(self, folder_image: work.FolderImage) -> None:
        self.folder_image = folder_image
        self.events.folder_image.emit()

    # --- the end

    def close(self) -> None:
        """Stop the preview and the run, and keep what was painted."""
        for signal, slot in self._wires:
            signal.disconnect(slot)
        self.events.disconnect()
        self.run.changed.disconnect()
        self._stop()
        self.run.cancel()
        self.store.close()


def _unlinked(options: work.SegmentOptions) -> work.SegmentOptions:
    """Without the choice that stands beside every preset."""
    return replace(options, memory=replace(options.memory, link="never"))
