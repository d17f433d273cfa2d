"""Recording: a job that adds itself to a recipe when it is done.

What can be wrong with the recipe is told before the work begins. A job that fails or is cancelled
adds nothing. Imports the jobs when one is called: they bring torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from napari_samic import __version__
from napari_samic.core.errors import InputError, ModelError
from napari_samic.core.types import Job
from napari_samic.io.files import check_free
from napari_samic.io.paths import image_of
from napari_samic.io.writers import plain
from napari_samic.models.hub import registry
from napari_samic.recipes.hashing import Fingerprint, files_of, fingerprint
from napari_samic.recipes.paths import model_to_relative, to_relative
from napari_samic.recipes.recipe import PathText, Recipe, RecipeStep, append_step, load_recipe
from napari_samic.recipes.schema import OPTIONS, STEP_SCHEMAS, StepSchema

if TYPE_CHECKING:
    from napari_samic.pipeline import JobResult

P = ParamSpec("P")


def recorded(
    make: Callable[P, Job[JobResult]], record: Path | str | None
) -> Callable[P, Job[JobResult]]:
    """A job of the pipeline that adds a step to a recipe when it is done.

    Parameters
    ----------
    make : callable
        `pipeline.annotate`, `train`, `segment`, `evaluate`, `accept` or `export`.
    record : Path or None
        The recipe; made if need be. None: the job as it is.

    Returns
    -------
    callable
        Takes what `make` takes. Its job raises a FormatError if `record` is a file but no recipe,
        and an InputError for an input that has no path, such as an array.
    """
    if record is None:
        return make

    @wraps(make)
    def job(*args: P.args, **kwargs: P.kwargs) -> Job[JobResult]:
        arguments = inspect.signature(make).bind(*args, **kwargs).arguments
        return _recorded(make, arguments, Path(record))

    return job


def _recorded(
    make: Callable[..., Job[JobResult]], arguments: dict[str, Any], path: Path
) -> Job[JobResult]:
    from napari_samic.pipeline.common import make_folder

    check_free(path, overwrite=True)
    if path.exists():
        load_recipe(path)
    if arguments.get("out") is not None and Path(arguments["out"]).resolve() == path.resolve():
        raise InputError(f"{path}: can't be both the result and the recipe. Name another recipe.")
    make_folder(path.parent)
    name = make.__name__
    step = yield from describe(name, arguments, Recipe(path, ()).folder)
    outcome: JobResult = yield from make(**arguments)
    results = yield from results_of(name, outcome)
    settings = {**step.settings, **plain(outcome.resolved_settings)}
    append_step(path, replace(step, settings=settings, results=results))
    return outcome


def describe(name: str, arguments: Mapping[str, Any], folder: Path) -> Job[RecipeStep]:
    """Say in a step what a job is called with; hashes its inputs.

    Parameters
    ----------
    name : str
    arguments : dict
        Of the job.
    folder : Path
        Where the recipe lies.
    """
    schema = STEP_SCHEMAS[name]
    given = {k: arguments[k] for k in schema.inputs if arguments.get(k) is not None}
    inputs = {key: _paths(key, value, folder) for key, value in given.items()}
    settings = _settings(schema, arguments, folder)
    model = str(arguments.get("model") or schema.model or "")
    data = {}
    for key, value in given.items():
        sources = value if isinstance(value, list | tuple) else [value]
        files = [file for source in sources for file in files_of(source)]
        data[key] = yield from fingerprint(files)
    out = arguments.get("out")
    return RecipeStep(
        do=name,
        inputs=inputs,
        out="" if out is None else to_relative(out, folder),
        model=model_to_relative(model, folder),
        model_sha256=weights_checksum(model),
        settings=settings,
        data=data,
        package=__version__,
        threads=_threads() if schema.has_model else 0,
    )


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _paths(key: str, value: Any, folder: Path) -> PathText:
    many = value if isinstance(value, list | tuple) else [value]
    for source in many:
        if not isinstance(source, str | Path):
            msg = (
                f"{key}: a {type(source).__name__} has no path that a recipe could name. "
                "Save it to a file, or don't record."
            )
            raise InputError(msg)
    texts = tuple(to_relative(source, folder) for source in many)
    return texts[0] if len(texts) == 1 else texts


def _settings(schema: StepSchema, arguments: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Those that differ from what the job takes by itself."""
    settings = {k: arguments.get(k, OPTIONS[k]) for k in schema.options}
    settings = {k: v for k, v in settings.items() if v != OPTIONS[k]}
    for parameter, group in schema.groups.items():
        given = arguments.get(parameter)
        if given is not None:
            usual = _usual(schema, parameter, arguments) or group()
            values = {spec.name: getattr(given, spec.name) for spec in fields(group)}
            settings |= {k: v for k, v in values.items() if v != getattr(usual, k)}
    if "encoder" in settings:
        settings["encoder"] = model_to_relative(str(settings["encoder"]), folder)
    tidy: dict[str, Any] = plain(settings)
    return tidy


def _usual(schema: StepSchema, parameter: str, arguments: Mapping[str, Any]) -> Any:
    """Peaks of `segment` are by themselves those of the prompter file."""
    if "prompter" not in schema.inputs or parameter != "peaks":
        return None
    from napari_samic.pipeline.segment import stored_peaks

    return stored_peaks(arguments["prompter"])


def weights_checksum(model: str) -> str:
    """Checksum of a segmenter's weights; "" if none is named, or another package answers for it.

    Raises
    ------
    ModelError, WeightsError
        Unknown, or not on this machine.
    """
    if not model:
        return ""
    try:
        return registry.weights_sha256(model)
    except ModelError:
        if model in registry.plugins("segmenters"):
            return ""
        raise


def results_of(name: str, outcome: JobResult) -> Job[Fingerprint | None]:
    """Hash the label files that a job made; None if it makes none.

    Of `export` all files, but not the prompts: they name the folder of the images.
    """
    if outcome.out is None or STEP_SCHEMAS[name].is_file:
        return None
    if name == "export":
        exported = [
            f for file_name in outcome.figures["files"] for f in _files_in(outcome.out, file_name)
        ]
        exported = [(name, path) for name, path in exported if name != "prompts.json"]
        return (yield from fingerprint(sorted(exported)))
    labels = [*outcome.done, *outcome.skipped]
    stems = {s for label in labels for s in (label, image_of(label))}
    files = {f"{stem}.tif": outcome.out / f"{stem}.tif" for stem in stems}
    result = yield from fingerprint(sorted((k, p) for k, p in files.items() if p.is_file()))
    return result


def _files_in(folder: Path, name: str) -> list[tuple[str, Path]]:
    """A file, or all files of a zarr folder, by their names in `folder`."""
    path = folder / name
    inside = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [(p.relative_to(folder).as_posix(), p) for p in inside if p.is_file()]
