"""Planes that Dask workers answer."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_samic import pipeline
from napari_samic.core.errors import InputError, ModelError, SettingsError
from napari_samic.core.settings import MemorySettings
from napari_samic.core.types import run_job
from napari_samic.io.images import open_images
from napari_samic.io.normalize import fit_normalization, read_rgb
from napari_samic.io.text_files import pixels_sha256
from napari_samic.pipeline import cluster

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")


def scheduler(**options):
    """A scheduler and its workers, in threads of this process."""
    return distributed.LocalCluster(
        processes=False, threads_per_worker=1, dashboard_address="127.0.0.1:0", **options
    )


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


def test_workers_give_the_labels_of_a_single_process(prompter, scenes, tmp_path, plain):
    with scheduler(n_workers=2) as workers:
        job = segment(scenes, prompter, tmp_path / "o", dask=workers.scheduler_address)
        outcome = run_job(job)
    assert outcome.done == ("p0", "p1", "p2", "p3")
    assert same(tmp_path / "o", plain)


def test_image_that_fails_leaves_the_others(prompter, scenes, tmp_path, plain):
    (scenes / "images" / "p1.png").write_bytes(b"no image")
    (plain / "p1.tif").unlink()
    with scheduler(n_workers=1) as workers:
        job = segment(scenes, prompter, tmp_path / "o", dask=workers.scheduler_address)
        outcome = run_job(job)
    assert (outcome.done, list(outcome.failures)) == (("p0", "p2", "p3"), ["p1"])
    assert same(tmp_path / "o", plain)


class Machines:
    """A scheduler and two workers as processes of their own, which can be killed."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler = self.start_scheduler()
        self.workers = [self.start_worker(), self.start_worker()]

    def _start(self, command, *words):
        line = [sys.executable, "-m", f"distributed.cli.dask_{command}", *words, "--no-dashboard"]
        return subprocess.Popen(line, stderr=subprocess.DEVNULL)

    def start_scheduler(self):
        return self._start("scheduler", "--host", "127.0.0.1", "--port", str(self.port))

    def start_worker(self):
        return self._start("worker", self.address, "--nthreads", "1", "--no-nanny")

    def kill(self, *processes):
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_workers_and_scheduler_that_are_killed_cost_no_result(prompter, scenes, tmp_path, plain):
    machines, done = Machines(), []
    try:
        for step in segment(scenes, prompter, tmp_path / "o", dask=machines.address):
            if "plane" not in step.data:
                continue
            done.append(step.data["plane"])
            if len(done) == 1:
                machines.kill(machines.workers.pop())
            elif len(done) == 2:
                machines.kill(machines.scheduler, *machines.workers)
                machines.scheduler = machines.start_scheduler()
                machines.workers = [machines.start_worker()]
    finally:
        machines.kill(machines.scheduler, *machines.workers)
    assert done == ["p0", "p1", "p2", "p3"]
    assert same(tmp_path / "o", plain)


@pytest.fixture
def task(scenes):
    (plane,) = open_images(scenes / "images" / "p0.png")
    normalization = fit_normalization([plane])
    sha256 = pixels_sha256(read_rgb(plane, normalization))
    path = str(scenes / "images" / "p0.png")
    return cluster.PlaneTask(b"", path, "p0", sha256, normalization, None, None, False)


def test_worker_refuses_other_pixels_another_version_and_what_is_not_there(task):
    cases = {
        "other pixels": (replace(task, sha256="0"), InputError),
        "Install the same": (replace(task, version="0.0.0"), ModelError),
        "p9": (replace(task, label="p9"), InputError),
        "nowhere": (replace(task, path="/nowhere/p0.png"), InputError),
    }
    for words, (wrong, kind) in cases.items():
        error = cluster.answer(wrong)
        assert isinstance(error, kind)
        assert words in str(error)


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
