"""The jobs as plain calls for scripts and notebooks: they run to the end and return the result.

>>> import napari_samic
>>> result = napari_samic.segment("images", prompter="polyps.pt", out="labels")  # doctest: +SKIP
>>> result.figures["objects"]  # doctest: +SKIP
512

Parameters are those of the jobs in `napari_samic.pipeline`, and `record`, which adds the call to a
recipe; for progress or cancelling, take the job from there (`recipes.recorded` for one that is
recorded) and give it to `napari_samic.run_job(job, on_step)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from napari_samic import pipeline, recipes
from napari_samic.benchmark.run import benchmark
from napari_samic.core.types import Job, run_job

P = ParamSpec("P")
R = TypeVar("R")

RECORD = """    record : Path, optional
        Recipe (YAML) to add this call to when it is done; made if need be.

    Returns
"""


def _blocking(job: Callable[P, Job[R]]) -> Callable[P, R]:
    @wraps(job)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return run_job(job(*args, **kwargs))

    signature = inspect.signature(job)
    return _documented(call, job, signature)


def _recorded(job: Callable[..., Job[pipeline.JobResult]]) -> Callable[..., pipeline.JobResult]:
    @wraps(job)
    def call(*args: Any, record: Path | str | None = None, **kwargs: Any) -> pipeline.JobResult:
        return run_job(recipes.recorded(job, record)(*args, **kwargs))

    own = inspect.signature(job)
    record = inspect.signature(call, follow_wrapped=False).parameters["record"]
    documented = _documented(call, job, own.replace(parameters=[*own.parameters.values(), record]))
    documented.__doc__ = str(documented.__doc__).replace("\n    Returns\n", RECORD, 1)
    return documented


def _documented(call: Callable[P, R], job: Any, own: inspect.Signature) -> Callable[P, R]:
    """Give a call the parameters and the text of its job."""
    signature = own.replace(return_annotation=pipeline.JobResult)
    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__doc__ = (job.__doc__ or "").replace("Job of JobResult", "JobResult")
    return call


annotate = _recorded(pipeline.annotate)
train = _recorded(pipeline.train)
segment = _recorded(pipeline.segment)
evaluate = _recorded(pipeline.evaluate)
accept = _recorded(pipeline.accept)
export_results = _recorded(pipeline.export)  # `export` is the room of the writers
run_benchmark = _blocking(benchmark)
demo = _blocking(pipeline.demo)
precompute = _blocking(pipeline.precompute)
status = _blocking(pipeline.status)
run_recipe = _blocking(recipes.replay)
