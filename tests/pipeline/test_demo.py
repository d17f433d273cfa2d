"""The demo: all jobs in a row, on small sample sets made here."""

import json
from contextlib import contextmanager
from importlib import import_module

import numpy as np
import pytest
from toys import SHAPE, hidden_files, scene, write_prompts

from napari_samic import pipeline
from napari_samic.core.errors import OutputError
from napari_samic.core.settings import TrainSettings
from napari_samic.core.types import run_job
from napari_samic.io.prompts import load_prompts
from napari_samic.sample_data import samples


@pytest.fixture
def small(monkeypatch, tmp_path, no_finetuning):
    """Two sets of three pictures, two of them references."""
    room = import_module("napari_samic.pipeline.demo")  # `pipeline.demo` is the job

    def sample_set(name):
        return tuple(
            samples.Sample(f"{name}-{i}", scene(i)[0], scene(i)[1].astype(np.int32), i < 2)
            for i in range(3)
        )

    @contextmanager
    def stored_prompts(name):
        images = [(f"{name}-{i}", SHAPE, ([(12 + i, 14)], [(32, 40 - i)])) for i in range(2)]
        yield write_prompts(tmp_path / f"{name}.prompts.json", images)

    monkeypatch.setattr(samples, "NAMES", ("one", "two"))
    monkeypatch.setattr(samples, "sample_set", sample_set)
    monkeypatch.setattr(room, "stored_prompts", stored_prompts)
    monkeypatch.setattr(room, "SETTINGS", TrainSettings(epochs=2, views=1))
    return tmp_path


def test_demo_leaves_labels_figures_and_a_sheet(small, toy):
    out = small / "demo"
    steps = []
    outcome = run_job(pipeline.demo(out=out, model=toy, device="cpu"), steps.append)
    assert list(outcome.figures) == ["one", "two"]
    figures = outcome.figures["one"]
    assert {"miou", "dice", "n", "object_f1", "seconds", "training", "images"} <= set(figures)
    assert json.loads((out / "metrics.json").read_text())["two"]["n"] == 1
    for part in ("annotated/overlay.png", "prompter.pt", "labels/one-2.tif", "truth/one-2.tif"):
        assert (out / "one" / part).exists()
    assert (out / "contact-sheet.png").exists()
    assert not hidden_files(out)
    done = [s.done / s.total for s in steps]
    assert done == sorted(done)
    assert done[-1] == 1.0
    assert max(d for s, d in zip(steps, done, strict=True) if s.message.startswith("one")) == 0.5


def test_pictures_and_clicks_alone_can_be_had(small):
    outcome = run_job(pipeline.demo(out=small / "samples", samples_only=True))
    assert (outcome.done, outcome.figures) == (("one", "two"), {})
    found = {p.relative_to(outcome.out / "one").as_posix() for p in outcome.out.glob("one/**/*.*")}
    pictures = {"references/one-0.png", "references/one-1.png", "images/one-2.png"}
    assert found == pictures | {"truth/one-2.tif", "prompts.json"}
    names = [entry.name for entry in load_prompts(outcome.out / "one" / "prompts.json").images]
    assert names == ["one-0", "one-1"]


def test_demo_is_repeated_only_on_demand(small, toy):
    out = small / "demo"
    run_job(pipeline.demo(out=out, model=toy, device="cpu"))
    with pytest.raises(OutputError, match="holds an earlier demo"):
        next(pipeline.demo(out=out, model=toy))
    assert run_job(pipeline.demo(out=out, model=toy, device="cpu", overwrite=True)).figures["one"][
        "n"
    ]


@pytest.mark.parametrize("overwrite", [False, True])
def test_demo_keeps_off_a_folder_of_somebody_else(tmp_path, overwrite):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(OutputError, match="holds files that no demo made"):
        next(pipeline.demo(out=tmp_path, overwrite=overwrite))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_demo_into_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file, expected a folder"):
        next(pipeline.demo(out=tmp_path / "file"))
