"""Replay: the steps of a recipe, one after the other, as one job.

Imports the jobs when the first step begins: they bring torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_samic.core.errors import SamicError
from napari_samic.core.types import Job, JobProgress, map_progress
from napari_samic.recipes.plan import PlannedStep, ValidationReport, check, make_plan
from napari_samic.recipes.recipe import load_recipe
from napari_samic.recipes.recorder import results_of
from napari_samic.recipes.resume import ReplayState
from napari_samic.recipes.schema import STEP_SCHEMAS, of_group

if TYPE_CHECKING:
    from napari_samic.pipeline import JobResult


def replay(
    recipe: Path | str,
    *,
    set: Mapping[str, Any] | None = None,
    images: Path | str | Sequence[Path | str] | None = None,
    out: Path | str | None = None,
    overwrite: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    anywhere: bool = False,
) -> Job[JobResult]:
    """Run all steps of a recipe again.

    Everything is checked before the first step begins. What is other than when it was recorded is
    a warning: data, models and the package's version. A replay that was killed goes on with the
    step that was under way.

    Parameters
    ----------
    recipe : Path
    set : dict of str to object, optional
        Changes: `{"train.epochs": 20}` for the steps that train, `{"2.epochs": 20}` for the second
        step, `{"epochs": 20}` for every step that has it.
    images : path, glob, folder or list of those, optional
        Instead of the recorded images of every `segment` step; those of `annotate` and `train`
        stay. `evaluate` and `accept` steps of their labels are left out unless `set` names another
        truth or review.
        Needs `out`.
    out : Path, optional
        Folder for all results, instead of where they were.
    overwrite : bool
        Replace earlier results; without it, images that are done are skipped.
    strict : bool
        Refuse to run what would be a warning.
    dry_run : bool
        Check, say what would happen in `figures`, and write nothing.
    anywhere : bool
        Also write to places outside of the recipe's folder that the recipe itself names.

    Returns
    -------
    Job of JobResult
        `done` and `skipped` steps, `failures` of images, `figures["steps"]` with one dict a step;
        there, `same_labels` says whether the labels are those recorded, None if that is not known.
        `figures["differences"]`: what was warned of.

    Raises
    ------
    InputError
        Inputs that are not there, a change that no step knows, or differences with `strict`.
    FormatError
        No recipe, or a faulty one.
    OutputError
        A result is there already, can't be written, or would go outside of the recipe's folder.
    """
    read = load_recipe(recipe)
    others = images if images is None or isinstance(images, str) else _texts(images)
    plan = make_plan(read, set=set, images=others, out=out)
    where = Path(out) if out is not None else read.folder
    state = ReplayState(where, plan, overwrite=overwrite)
    before = state.rows()
    inside = None if anywhere or dry_run else read.folder
    report = yield from check(
        plan, overwrite=overwrite, inside=inside, done=before, recipe=read.path
    )
    report.refuse(read.path.name, strict=strict)
    for difference in report.differences:
        warnings.warn(f"{read.path.name}: {difference}", UserWarning, stacklevel=2)
    rows = [_described(planned, report) for planned in plan]
    failures: dict[str, str] = {}
    notices: list[str] = []
    if before:
        notices.append(f"went on with a replay that was stopped after step {max(before)}.")
    done: list[str] = []
    skipped: list[str] = []
    finished = dict(before)
    for planned, row in zip(plan, rows, strict=True):
        if planned.number in before:
            row |= before[planned.number]
            skipped.append(planned.place)
        elif planned.left_out:
            skipped.append(planned.place)
        elif not dry_run:
            outcome = yield from _run_step(planned, len(plan), overwrite)
            failures |= {f"{planned.number}.{k}": v for k, v in outcome.failures.items()}
            notices += [f"{planned.place}: {line}" for line in outcome.notices]
            done.append(planned.place)
            row |= yield from _result(planned, outcome, bool(set) or images is not None)
            finished[planned.number] = row
            if where.is_dir() and not failures:
                state.note(finished)
    if not dry_run:
        state.end()
    from napari_samic.pipeline import JobResult

    figures = {"steps": rows, "differences": list(report.differences)}
    messages = tuple(dict.fromkeys(notices))
    return JobResult(where, tuple(done), tuple(skipped), failures, figures, notices=messages)


def _texts(images: Path | Sequence[Path | str]) -> tuple[str, ...]:
    return (str(images),) if isinstance(images, Path) else tuple(map(str, images))


def _described(planned: PlannedStep, report: ValidationReport) -> dict[str, Any]:
    """What a step will do, as plain values."""
    step = planned.step
    inputs = {
        key: {
            "path": value,
            "files": report.files.get((planned.number, key)),
            "from_step": planned.made_by.get(key),
        }
        for key, value in step.inputs.items()
    }
    row = {"step": planned.number, "do": step.do, "inputs": inputs, "out": step.out or None}
    row |= {"model": step.model or None, "settings": dict(step.settings)}
    return row | ({"left_out": planned.left_out} if planned.left_out else {})


def _run_step(planned: PlannedStep, count: int, overwrite: bool) -> Job[JobResult]:
    """Drive one step's job; its progress says which it is."""
    from napari_samic import pipeline

    jobs: dict[str, Callable[..., Job[JobResult]]] = {
        "annotate": pipeline.annotate, "train": pipeline.train, "segment": pipeline.segment,
        "evaluate": pipeline.evaluate, "accept": pipeline.accept, "export": pipeline.export,
    }  # fmt: skip
    title = f"{planned.number}/{count} {planned.step.do}"
    yield JobProgress(0, 0, f"{title}: begins", {"phase": "load", "step": planned.number})

    def with_number(step: JobProgress) -> JobProgress:
        data = {**step.data, "step": planned.number}
        return replace(step, message=f"{title}: {step.message}", data=data)

    try:
        job = jobs[planned.step.do](**_arguments(planned, overwrite))
        with _threads(planned.step.threads):
            return (yield from map_progress(job, with_number))
    except SamicError as error:
        raise type(error)(f"{planned.place}: {error}") from error


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use as many threads as when it was recorded, so that its sums are the same."""
    if not count:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _arguments(planned: PlannedStep, overwrite: bool) -> dict[str, Any]:
    """What the job is called with."""
    step, schema = planned.step, STEP_SCHEMAS[planned.step.do]
    arguments: dict[str, Any] = {
        k: [*v] if isinstance(v, tuple) else v for k, v in step.inputs.items()
    }
    arguments |= {k: step.settings[k] for k in schema.options if k in step.settings}
    arguments |= {"out": planned.out, "overwrite": planned.replaces(overwrite=overwrite)}
    if step.model:
        arguments["model"] = step.model
    for parameter, group in schema.groups.items():
        if given := of_group(group, step.settings):
            arguments[parameter] = group.from_dict(given)
            if "prompter" in schema.inputs and parameter == "peaks":
                arguments[parameter] = _peaks(arguments["prompter"], given)
    return arguments


def _peaks(prompter: str, given: dict[str, Any]) -> Any:
    """Those of the prompter file, with the changes of the step."""
    from napari_samic.pipeline.segment import stored_peaks

    return replace(stored_peaks(prompter), **given)


def _result(planned: PlannedStep, outcome: JobResult, is_changed: bool) -> Job[dict[str, Any]]:
    row: dict[str, Any] = {
        "done": len(outcome.done),
        "skipped": len(outcome.skipped),
        "failures": len(outcome.failures),
        "figures": dict(outcome.figures),
        "same_labels": None,
    }
    wanted = planned.step.results
    if wanted is not None and not is_changed:
        row["same_labels"] = (yield from results_of(planned.step.do, outcome)) == wanted
    return row
