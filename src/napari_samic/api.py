"""The jobs as plain calls for scripts and notebooks: they run to the end and return the result.

>>> import napari_samic
>>> outcome = napari_samic.segment("images", prompter="polyps.pt", out="labels")  # doctest: +SKIP
>>> outcome.figures["objects"]  # doctest: +SKIP
512

Parameters are those of the jobs in `napari_samic.pipeline`; for progress or cancelling, take the
job from there and give it to `napari_samic.run(job, on_step)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from napari_samic import pipeline
from napari_samic.contracts import Job, run

P = ParamSpec("P")
R = TypeVar("R")


def _blocking(job: Callable[P, Job[R]]) -> Callable[P, R]:
    @wraps(job)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return run(job(*args, **kwargs))

    own = inspect.signature(job).replace(return_annotation=pipeline.Outcome)
    call.__signature__ = own  # type: ignore[attr-defined]
    call.__doc__ = (job.__doc__ or "").replace("Job of Outcome", "Outcome")
    return call


annotate = _blocking(pipeline.annotate)
train = _blocking(pipeline.train)
segment = _blocking(pipeline.segment)
evaluate = _blocking(pipeline.evaluate)
demo = _blocking(pipeline.demo)
