"""The jobs of the Train step: references to a new prompter, and which of two prompters stays.

A training writes beside the prompter that is in use. Only when the user takes the new one does it
get that name and its step a place in the recipe; the one before is kept under a number. Must not
know Qt or napari. Heavy modules are imported inside, so in the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from napari_samic import recipes
from napari_samic.core.errors import InputError, SamicError
from napari_samic.core.settings import (
    OTHERS_FROM,
    AdaptSettings,
    HeatMapSettings,
    PeakSettings,
    PrompterSettings,
    Settings,
    TrainSettings,
)
from napari_samic.core.types import Job, JobProgress, map_progress
from napari_samic.gui.data.project import Project
from napari_samic.io.files import output_error

KINDS: tuple[type[Settings], ...] = (
    TrainSettings,
    PrompterSettings,
    HeatMapSettings,
    PeakSettings,
    AdaptSettings,
)
S = TypeVar("S", bound=Settings)


def chosen(settings: Mapping[type[Settings], Settings], kind: type[S]) -> S:
    """The settings of one kind."""
    return cast(S, settings[kind])


def new_file(project: Project) -> Path:
    """The prompter that waits to be taken."""
    return project.folder / "prompter-new.pt"


def new_step(project: Project) -> Path:
    """The recipe of that prompter alone."""
    return project.folder / "prompter-new.yaml"


def mark_file(project: Project) -> Path:
    """Where the last training ended, to go on from."""
    return project.folder / "training.mark"


def next_mark(project: Project) -> Path:
    """Where a training that was begun anew is; the mark once it has ended."""
    return project.folder / "training.next"


def take_orphan(project: Project) -> None:
    """Let a training that was ended from outside be gone on with; none may be under way."""
    with suppress(OSError):
        if next_mark(project).is_file():
            next_mark(project).replace(mark_file(project))


@dataclass(frozen=True, eq=False)
class TrainRequest:
    """What is to be trained.

    Attributes
    ----------
    project : Project
    references : Job of (list of Path, Path)
        As `Session.reference_images` gives it.
    model : str
    chosen : dict of type to Settings
        One of each of `KINDS`.
    others : callable or None
        As `Session.other_images` gives it; None if they are not wanted.
    stop : callable
        True: end with the best so far.
    resume : bool
        Go on from where the last training ended.
    """

    project: Project
    references: Job[tuple[list[Path], Path]]
    model: str
    chosen: dict[type[Settings], Settings]
    others: Callable[[int], Job[list[Path]]] | None
    stop: Callable[[], bool]
    resume: bool = False


@dataclass(frozen=True)
class PrompterComparison:
    """A new prompter that waits to be taken, beside the one in use.

    Attributes
    ----------
    old, new : float or None
        IoU of the masks, or correlation of predicted and true heat map, on the same references;
        None: not known.
    held_out : tuple of str
        Those references.
    summary : str
        What the training did.
    why : str
        Why the old one has no score, if it should have.
    has_old : bool
        Whether there is one in use.
    helped : bool
        False: the weights before the training were better, so the new one has those.
    by_masks : bool
        Whether the scores are of masks.
    notices : tuple of str
        What the training told, a line each.
    """

    old: float | None = None
    new: float | None = None
    held_out: tuple[str, ...] = field(default=())
    summary: str = ""
    why: str = ""
    has_old: bool = False
    helped: bool = True
    by_masks: bool = False
    notices: tuple[str, ...] = field(default=())

    @property
    def is_worse(self) -> bool:
        """Whether the new one did worse on the same references."""
        return self.old is not None and self.new is not None and self.new < self.old

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the notes of a project."""
        lists = {"held_out": list(self.held_out), "notices": list(self.notices)}
        return {**vars(self), **lists}

    @classmethod
    def from_dict(cls, values: Any) -> PrompterComparison:
        """From notes; what is damaged or not known is left out."""
        notes = values if isinstance(values, dict) else {}
        own = {k: v for k, v in notes.items() if k in cls.__dataclass_fields__}
        for key in ("held_out", "notices"):
            own[key] = tuple(map(str, own[key])) if isinstance(own.get(key), list) else ()
        return cls(**own)


def train(request: TrainRequest) -> Job[PrompterComparison]:
    """Segment the references by their prompts, train, and judge the new prompter and the old one.

    Raises
    ------
    SamicError
        As `annotate` and `train` of the pipeline; prompter and recipe are as they were.
    """
    from napari_samic import pipeline

    project = request.project
    yield JobProgress(0, 0, "preparing the references", {"phase": "files"})
    images, prompts = yield from request.references
    job = recipes.recorded(pipeline.annotate, project.recipe)(
        images, out=project.references_folder, prompts=prompts, model=request.model,
        overwrite=True,
    )  # fmt: skip
    yield from map_progress(
        job, lambda step: replace(step, data={**step.data, "phase": "annotate"})
    )
    outcome = yield from _trained(request, images, prompts)
    figures = outcome.figures
    summary = ". ".join(figures[k] for k in ("summary", "growth", "tuning") if figures[k])
    comparison = PrompterComparison(None, figures["after"], (), summary, notices=outcome.notices)
    if not (figures["accepted"] or figures["adapted"] or figures["tuned"]):
        comparison = replace(comparison, new=figures["before"], helped=False)
    if not project.prompter_file.exists():
        return comparison
    return (yield from _compared(project, images, prompts, replace(comparison, has_old=True)))


def _trained(request: TrainRequest, images: list[Path], prompts: Path) -> Job[Any]:
    from napari_samic import pipeline

    project = request.project
    keep(project, new_file(project))
    mark = mark_file(project)
    if not request.resume:
        mark = next_mark(project)
        mark.unlink(missing_ok=True)
    elif not mark.exists():
        raise InputError("There is no training to go on with. Start a new one.")
    how, growing = chosen(request.chosen, TrainSettings), chosen(request.chosen, AdaptSettings)
    others: list[Path] = []
    if request.others and growing.adapt and how.epochs and len(images) >= OTHERS_FROM:
        others = yield from request.others(how.seed)
    job = recipes.recorded(pipeline.train, new_step(project))(
        images, out=new_file(project), prompts=prompts, others=others or None,
        model=request.model, settings=how, adapt=growing,
        prompter=chosen(request.chosen, PrompterSettings),
        heat=chosen(request.chosen, HeatMapSettings),
        peaks=chosen(request.chosen, PeakSettings), stop=request.stop, resume=mark,
    )  # fmt: skip
    try:
        outcome = yield from job
    except GeneratorExit:
        if request.stop() and not request.resume:  # nothing was learned: the last mark stays
            mark.unlink(missing_ok=True)
        raise
    if mark.exists():
        mark.replace(mark_file(project))
    else:
        mark_file(project).unlink(missing_ok=True)
    return outcome


def _compared(
    project: Project, images: list[Path], prompts: Path, comparison: PrompterComparison
) -> Job[PrompterComparison]:
    """Score the old prompter and the new one on the same references."""
    from napari_samic.pipeline.compare import compare_prompters

    old, new = project.prompter_file, new_file(project)
    judged = yield from compare_prompters(images, prompters=[old, new], prompts=prompts)
    why = judged.failures.get(str(old), "")
    figures = judged.figures
    scores = {"old": figures[str(old)], "new": figures[str(new)], "by_masks": figures["by_masks"]}
    return replace(comparison, **scores, held_out=judged.done, why=why)


def accept(project: Project) -> Job[Path | None]:
    """Use the new prompter; its step goes into the recipe.

    Returns
    -------
    Job of Path or None
        Where the one before is now.

    Raises
    ------
    InputError
        None waits.
    OutputError
        The disk refuses; what is in use stays in use.
    """
    yield JobProgress(0, 1, "taking the new prompter")
    new, side, target = new_file(project), new_step(project), project.prompter_file
    if not new.exists():
        raise InputError("No new prompter waits to be taken. Train one first.")
    for step in recipes.load_recipe(side).steps[-1:] if side.exists() else ():
        settings = {**step.settings, **({"overwrite": True} if target.exists() else {})}
        recipes.append_step(project.recipe, replace(step, out=target.name, settings=settings))
    kept = keep(project, target)
    try:
        new.replace(target)
    except OSError as error:
        if kept is not None:
            kept.replace(target)
        raise output_error(target, error) from error
    with suppress(OSError):
        side.unlink(missing_ok=True)
    return kept


def refuse(project: Project) -> Job[Path | None]:
    """Go on with the old prompter; the new one is kept under a number.

    Returns
    -------
    Job of Path or None
        Where.
    """
    yield JobProgress(0, 1, "keeping the old prompter")
    return keep(project, new_file(project))


def keep(project: Project, path: Path) -> Path | None:
    """Move a prompter out of the way, to the first free number; None if it is not there.

    Raises
    ------
    OutputError
        The disk refuses.
    """
    if path == new_file(project):
        new_step(project).unlink(missing_ok=True)
    if not path.exists():
        return None
    number = 1
    while (target := project.folder / f"prompter-{number}.pt").exists():
        number += 1
    try:
        return path.rename(target)
    except OSError as error:
        raise output_error(target, error) from error


def describe(settings: Sequence[Settings]) -> dict[str, dict[str, Any]]:
    """Settings as plain values by the name of their kind, for the notes of a project."""
    return {type(section).__name__: section.to_dict() for section in settings}


def recalled(values: Any) -> dict[type[Settings], Settings]:
    """Settings out of the notes of a project; those that are damaged are as usual."""
    out: dict[type[Settings], Settings] = {}
    for kind in KINDS if isinstance(values, dict) else ():
        try:
            out[kind] = kind.from_dict(values.get(kind.__name__, {}))
        except (SamicError, TypeError, AttributeError):
            out[kind] = kind()
    return out
