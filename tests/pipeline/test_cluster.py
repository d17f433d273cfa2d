"""Planes that Dask workers answer."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from toys import SHAPE, scene, write_prompts, write_scenes

from napari_samic import __version__, pipeline
from napari_samic.core.errors import InputError, ModelError, SettingsError, WeightsError
from napari_samic.core.settings import MemorySettings
from napari_samic.core.types import run_job
from napari_samic.io.images import open_images
from napari_samic.io.normalize import fit_normalization, read_rgb
from napari_samic.io.text_files import pixels_sha256
from napari_samic.io.writers import write_labels
from napari_samic.pipeline import cluster

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def workers():
    """Address of a scheduler and two workers in threads of this process, who send each other bytes.

    So what they answer is pickled, as between machines.
    """
    options = {"protocol": "tcp://", "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(
        n_workers=2, processes=False, threads_per_worker=1, **options
    ) as both:
        yield both.scheduler_address


def labels_in(folder):
    return {path.name: tifffile.imread(path) for path in sorted(Path(folder).glob("*.tif"))}


def same(folder, other):
    mine, theirs = labels_in(folder), labels_in(other)
    return mine.keys() == theirs.keys() and all(
        np.array_equal(mine[name], theirs[name]) for name in mine
    )


def segment(scenes, prompter, out, **options):
    images = scenes / "images"
    return pipeline.segment(images, prompter=prompter, out=out, device="cpu", **options)


@pytest.fixture
def plain(prompter, scenes, tmp_path):
    """Results without a cluster."""
    run_job(segment(scenes, prompter, tmp_path / "plain"))
    return tmp_path / "plain"


def test_workers_give_the_results_of_a_single_process(prompter, scenes, tmp_path, plain, workers):
    outcome = run_job(segment(scenes, prompter, tmp_path / "o", dask=workers))
    assert outcome.done == ("p0", "p1", "p2", "p3")
    assert same(tmp_path / "o", plain)
    assert written(tmp_path / "o") == written(plain)


def test_image_that_fails_leaves_the_others(prompter, tmp_path, workers):
    scenes = write_scenes(tmp_path, 3)
    (scenes / "images" / "p1.png").write_bytes(b"no image")
    alone = run_job(segment(scenes, prompter, tmp_path / "plain"))
    remote = run_job(segment(scenes, prompter, tmp_path / "o", dask=workers))
    assert replace(remote, out=None) == replace(alone, out=None)
    assert (remote.done, list(remote.failures)) == (("p0", "p2"), ["p1"])
    assert same(tmp_path / "o", tmp_path / "plain")


@pytest.mark.slow
def test_workers_and_scheduler_that_are_killed_cost_no_result(prompter, scenes, tmp_path, plain):
    sys.path.append(str(BENCHMARKS))
    machines, done = importlib.import_module("cluster").Machines(), []
    try:
        for step in segment(scenes, prompter, tmp_path / "o", dask=machines.address):
            if "plane" not in step.data:
                continue
            done.append(step.data["plane"])
            if len(done) == 1:
                machines.lose_worker()
            elif len(done) == 2:
                machines.lose_scheduler()
    finally:
        machines.close()
        sys.path.remove(str(BENCHMARKS))
    assert done == ["p0", "p1", "p2", "p3"]
    assert same(tmp_path / "o", plain)


def written(folder):
    """All that a run leaves, but for how long it took."""
    tree = json.loads((folder / "prompts.json").read_text())
    for image in tree["images"]:
        image.pop("seconds")
    failures = folder / "failures.csv"
    tables = [(folder / "scores.csv").read_text(), failures.exists() and failures.read_text()]
    return tree, tables


@pytest.mark.parametrize("way", ["simulated", "prompts"])
def test_workers_annotate_as_a_single_process_does(scenes, toy, tmp_path, workers, way):
    given = {"masks": scenes / "masks", "simulate": True}
    if way == "prompts":  # of another case, an object that hides another, and one without a click
        images = [("P0", SHAPE, ([(12, 14)], [(12, 14)])), ("p2", SHAPE, ([(32, 38)],))]
        prompts = write_prompts(tmp_path / "p.json", [*images, ("p3", SHAPE, ())])
        given = {"prompts": prompts}

    def annotate(out, **options):
        job = pipeline.annotate(
            scenes / "images", out=tmp_path / out, model=toy, device="cpu", **given, **options
        )
        return run_job(job)

    alone, remote = annotate("a"), annotate("b", dask=workers)
    assert same(tmp_path / "a", tmp_path / "b")
    assert written(tmp_path / "a") == written(tmp_path / "b")
    assert replace(alone, out=None) == replace(remote, out=None)
    assert annotate("b").skipped == annotate("a", dask=workers).skipped == alone.done


def test_workers_score_as_a_single_process_does(tmp_path, workers):
    write_scenes(tmp_path, 4)
    for i in range(3):
        write_labels(tmp_path / "out" / f"p{i}.tif", scene(i)[1] * (scene(i)[1] > i % 2))
    write_labels(tmp_path / "out" / "p3.tif", scene(3)[1][:20])
    for folder in ("out", "masks"):
        stack = np.stack([scene(i)[1] for i in (0, 1)])
        tifffile.imwrite(tmp_path / folder / "s.tif", stack.astype(np.uint16))
    given = {"predictions": tmp_path / "out", "truth": tmp_path / "masks"}
    alone = run_job(pipeline.evaluate(**given))
    assert run_job(pipeline.evaluate(**given, dask=workers)) == alone
    assert list(alone.figures["images"]) == ["p0", "p1", "p2", "s[0]", "s[1]"]
    assert list(alone.failures) == ["p3"]


@pytest.fixture
def task(scenes):
    (plane,) = open_images(scenes / "images" / "p0.png")
    normalization = fit_normalization([plane])
    sha256 = pixels_sha256(read_rgb(plane, normalization))
    path = str(scenes / "images" / "p0.png")
    return cluster.PlaneTask(b"", path, "p0", sha256, normalization, None, None, False)


def test_worker_refuses_other_pixels_another_version_and_what_is_not_there(task):
    cases = {
        "other pixels": (__version__, replace(task, sha256="0"), InputError),
        "Install the same": ("0.0.0", task, ModelError),
        "p9": (__version__, replace(task, label="p9"), InputError),
        "nowhere": (__version__, replace(task, path="/nowhere/p0.png"), InputError),
    }
    for words, (version, wrong, kind) in cases.items():
        error = cluster.answer(version, cluster.answer_plane, wrong)
        assert isinstance(error, kind)
        assert words in str(error)


def test_what_no_worker_can_load_is_told_before_anything_is_written(
    prompter, scenes, tmp_path, workers
):
    job = segment(scenes, prompter, tmp_path / "o", model="path:/nowhere.pt", dask=workers)
    with pytest.raises(WeightsError, match=r"nowhere\.pt"):
        run_job(job)
    assert not list((tmp_path / "o").glob("*"))


def test_where_nothing_answers_it_is_said_before_anything_is_written(
    prompter, scenes, tmp_path, monkeypatch
):
    monkeypatch.setattr(cluster, "CONNECT_S", 0.2)
    with pytest.raises(SettingsError, match="local:N"):
        run_job(segment(scenes, prompter, tmp_path / "o", dask="tcp://127.0.0.1:1"))
    assert not list((tmp_path / "o").glob("*"))


def test_images_that_follow_each_other_are_refused(prompter, scenes, tmp_path):
    memory = MemorySettings(link="stacks")
    with pytest.raises(SettingsError, match="follow or link"):
        run_job(segment(scenes, prompter, tmp_path / "o", memory=memory, dask="local:1"))
