"""Accepting and exporting: what the second page of Review does, in plain Python.

Accepting freezes the review in the project, so that the recipe names files that stay. Must not
know Qt or napari.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_samic import recipes
from napari_samic.core.errors import InputError, SettingsError
from napari_samic.core.settings import ExportSettings
from napari_samic.core.types import Job, JobProgress
from napari_samic.gui.review import jobs
from napari_samic.gui.review.jobs import Frozen
from napari_samic.gui.review.presenter import ReviewModel
from napari_samic.gui.review.scan import ScannedResults, changed_drawings, drawn_names
from napari_samic.gui.review.verdicts import ReviewDecision
from napari_samic.gui.runner.jobs import Calls, Handle
from napari_samic.gui.session.notices import sentences
from napari_samic.io.paths import some
from napari_samic.io.readers import check_memory
from napari_samic.io.reviews import ACCEPTED, REJECTED

if TYPE_CHECKING:
    from napari_samic.gui.data.materialize import Drawing
    from napari_samic.gui.data.project import Project

EXPORT_BYTES = 36
"""Of memory that exporting takes for each pixel of a large image, as measured."""
ACCEPTED_RESULTS, ALL_RESULTS = "accepted results", "all results"


class Exporter:
    """See the module.

    Parameters
    ----------
    review : ReviewModel
        Results and verdicts.
    is_writing : callable
        Whether an edit has no file yet.

    Attributes
    ----------
    status : str
    progress : float or None
        Share that is done; None if nothing is under way.
    changed : Signal
        Of status or progress.
    """

    changed = Signal()

    def __init__(self, review: ReviewModel, is_writing: Callable[[], bool]) -> None:
        self.review, self.session = review, review.session
        self._is_writing = is_writing
        self.status = ""
        self.progress: float | None = None
        self._running: Handle | None = None

    # --- what was chosen

    @property
    def settings(self) -> ExportSettings:
        """As chosen last in this project."""
        try:
            return ExportSettings.from_dict(dict(self.review.notes().get("export", {})))
        except (SettingsError, TypeError, ValueError):
            return ExportSettings()

    def choose(self, settings: ExportSettings) -> None:
        """Keep what was chosen."""
        self.review.note(export=settings.to_dict())

    @property
    def folder(self) -> Path | None:
        """Where exports go by themselves."""
        project = self.session.project
        return None if project is None else project.exports_folder

    # --- acting

    def export(
        self, source: str, folder: Path, settings: ExportSettings, *, overwrite: bool = False
    ) -> None:
        """Write results in the chosen formats; accept what the review accepts first.

        Raises
        ------
        InputError
            Nothing to export, no format chosen, an edit that is being written, or a large image
            that needs more memory than is free; as the job runs, an image that was annotated since
            its result was made.
        """
        project = self.session.need_project()
        scanned = self.review.scanned
        if scanned is None:
            raise InputError("there are no results to export. Propagate first.")
        if self._is_writing():
            raise InputError("an edit is being written. Export in a moment.")
        for result in scanned.results.images:
            if result.is_large and result.plane.kind is not None:
                check_memory(result.plane.kind[0], EXPORT_BYTES, result.label)
        self.choose(settings)
        if not settings.has_pixel_size:
            settings = replace(settings, **self._pixel_size(scanned))
        if source == ACCEPTED_RESULTS and not any(
            v.verdict for v in self.review.decisions.values()
        ):
            raise InputError("nothing is accepted yet. Accept results, or export all of them.")
        decisions, drawing = dict(self.review.decisions), self.session.drawing()
        judged = [n for n, decision in decisions.items() if decision != ReviewDecision()]
        drawn = drawn_names(scanned, drawing, judged)
        for name in drawn:
            decisions[name] = ReviewDecision(ACCEPTED, "annotated", scanned.hashes.get(name, ""))
        freezing = jobs.freeze(
            project.folder / "reviews",
            decisions,
            project.folder / "review",
            scanned,
            dict(self.session.scheduler.state.classes.names),
        )
        checking = _check_drawn(scanned, drawing, drawn)
        job = _exported(project, checking, freezing, source, folder, settings, overwrite)
        left_out = _left_out(self.review.counts) if source == ACCEPTED_RESULTS else ""
        self._start(job, "SAMIC: exporting", partial(self._export_message, left_out))

    def _pixel_size(self, scanned: ScannedResults) -> dict[str, Any]:
        """Of the open layers, if every result is of one and they all have the same size.

        Else files of the images tell theirs, if they do.
        """
        images = [self.session.find(result.label) for result in scanned.results.images]
        sizes = {place[1].layer_size if place else None for place in images}
        if len(sizes) != 1 or (size := sizes.pop()) is None:
            return {}
        return {"pixel_height": size.height_um, "pixel_width": size.width_um, "unit": "micrometer"}

    def _export_message(self, left_out: str, outcome: Any) -> None:
        count = len(outcome.figures["files"])
        line = (
            f"{outcome.figures['objects']} objects of {len(outcome.done)} images: {count} "
            f"file{'s' * (count != 1)} in {outcome.out}."
        )
        self._set_status(" ".join(filter(None, [line, left_out, *sentences(outcome.notices)])))

    # --- jobs

    def _start(self, job: Job[Any], title: str, on_done: Callable[[Any], None]) -> None:
        if self._running is not None:
            job.close()
            raise InputError("something is under way already. Wait for it, or stop it.")
        calls = Calls(
            on_step=self._stepped, on_done=on_done, on_error=self._failed, on_end=self._ended
        )
        self._running = self.session.runner.start(job, calls, title=title)
        self.progress = 0.0
        self.changed.emit()

    def stop(self) -> None:
        """Cancel what is under way."""
        if self._running is not None:
            self._running.cancel()
            self._set_status("Stopped.")

    def _stepped(self, step: JobProgress) -> None:
        self.progress = step.done / step.total if step.total else 0.0
        self.status = step.message
        self.changed.emit()

    def _failed(self, error: Exception) -> bool:
        del error
        self._set_status("")
        return False

    def _ended(self) -> None:
        self._running, self.progress = None, None
        self.changed.emit()

    def _set_status(self, text: str) -> None:
        self.status = text
        self.changed.emit()


def _check_drawn(scanned: ScannedResults, drawing: Drawing, drawn: Collection[str]) -> Job[None]:
    """Raise InputError where labels are not what the user has drawn by now."""
    if changed := (yield from changed_drawings(scanned, drawing, drawn)):
        msg = f"{some(changed)}: annotated otherwise since these results were made."
        raise InputError(f"{msg} Propagate again, so that what you drew is exported.")


def _exported(
    project: Project,
    checking: Job[None],
    freezing: Job[Frozen],
    source: str,
    folder: Path,
    settings: ExportSettings,
    overwrite: bool,
) -> Job[Any]:
    """Keep the review as it is now, accept, and export; both jobs are recorded."""
    from napari_samic import pipeline

    yield from checking
    frozen = yield from freezing
    results, classes = project.results_folder, frozen.prompts
    if source == ACCEPTED_RESULTS:
        results, classes = project.folder / "accepted", None  # it has the names already
        yield from recipes.recorded(pipeline.accept, project.recipe)(
            project.results_folder, review=frozen.review, edits=frozen.edits,
            prompts=frozen.prompts, out=results, overwrite=True,
        )  # fmt: skip
    job = recipes.recorded(pipeline.export, project.recipe)(
        results, out=folder, classes=classes, settings=settings, overwrite=overwrite,
    )  # fmt: skip
    return (yield from job)


def _left_out(counts: Mapping[str, int]) -> str:
    """How many results are not exported, by their verdicts; "" if all are."""
    kinds = (counts[REJECTED], "rejected"), (counts[""], "without a verdict")
    named = ", ".join(f"{count} {kind}" for count, kind in kinds if count)
    return f"Left out: {named}." if named else ""
