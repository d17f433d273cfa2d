"""The jobs as plain calls."""

import inspect

import numpy as np
import pytest

import napari_samic
from napari_samic import api, pipeline, recipes
from napari_samic.benchmark.run import benchmark
from napari_samic.core.errors import InputError
from napari_samic.core.settings import AdaptSettings, TrainSettings
from napari_samic.core.types import JobProgress

RECORDED = ("annotate", "train", "segment", "evaluate", "accept", "export_results")
JOBS = {n: getattr(pipeline, n) for n in (*RECORDED[:-1], "demo", "precompute", "status")}
JOBS |= {"export_results": pipeline.export}
JOBS |= {"run_benchmark": benchmark, "run_recipe": recipes.replay}


def test_the_whole_way_in_a_script(scenes, toy, tmp_path):
    images, masks = scenes / "images", scenes / "masks"
    annotated = napari_samic.annotate(
        images, out=tmp_path / "a", masks=masks, simulate=True, model=toy
    )
    trained = napari_samic.train(
        images, out=tmp_path / "p.pt", prompts=tmp_path / "a" / "prompts.json", model=toy,
        settings=TrainSettings(epochs=1, views=1), adapt=AdaptSettings(adapt=False),
    )  # fmt: skip
    array = np.zeros((40, 50), np.uint8)
    segmented = napari_samic.segment(array, prompter=tmp_path / "p.pt", out=tmp_path / "s")
    scored = napari_samic.evaluate(predictions=tmp_path / "a", truth=masks)
    assert [o.done for o in (annotated, trained)] == [("p0", "p1", "p2", "p3")] * 2
    assert segmented.done == ("image",)
    assert 0 <= scored.figures["miou"] <= 1


@pytest.mark.parametrize("name", JOBS)
def test_calls_have_the_parameters_of_their_jobs(name):
    call, job = getattr(napari_samic, name), JOBS[name]
    assert call is getattr(api, name)
    own = list(inspect.signature(call).parameters.values())
    if name in RECORDED:
        last = own.pop()
        assert (last.name, last.default, last.kind) == ("record", None, last.KEYWORD_ONLY)
    assert own == list(inspect.signature(job).parameters.values())
    assert inspect.signature(call).return_annotation is pipeline.JobResult


@pytest.mark.parametrize("name", JOBS)
def test_calls_are_documented_as_what_they_return(name):
    text = getattr(napari_samic, name).__doc__
    assert "Parameters\n" in text
    assert "Job of" not in text
    assert text.count("    record : Path, optional") == (name in RECORDED)


def test_error_is_ours_and_the_builtin(tmp_path):
    with pytest.raises(ValueError, match="no image in this folder") as caught:
        napari_samic.segment(tmp_path, prompter="p.pt", out=tmp_path / "o")
    assert isinstance(caught.value, InputError)


def test_job_can_be_driven_with_its_steps(scenes, prompter, tmp_path):
    steps = []
    job = pipeline.segment(scenes / "images", prompter=prompter, out=tmp_path)
    outcome = napari_samic.run_job(job, steps.append)
    assert len(outcome.done) == 4
    assert all(isinstance(s, JobProgress) for s in steps)
    assert steps[-1].done == steps[-1].total == 4
