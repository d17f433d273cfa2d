"""The other images: prompter file to labels."""

import csv
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
import tifffile
import torch
from tifffile import imread
from toys import (
    SHAPE,
    hidden_files,
    scene,
    write_image,
    write_prompts,
    write_scenes,
    write_toy,
)

from napari_samic import pipeline
from napari_samic.core.errors import (
    FormatError,
    InputError,
    ModelError,
    OutputError,
    SettingsError,
    WeightsError,
)
from napari_samic.core.settings import (
    AdaptSettings,
    ExportSettings,
    MemorySettings,
    PeakSettings,
    RefineSettings,
    SegmentSettings,
    StrategySettings,
    TrainSettings,
)
from napari_samic.core.types import HeatMap, PromptProposal, Prompts, run_job
from napari_samic.io.prompts import load_prompts
from napari_samic.models.encoders.openvino_engine import OpenVinoNetwork
from napari_samic.models.samic import prompter as samic_prompter
from napari_samic.pipeline.results.reader import read_results
from napari_samic.pipeline.segment import stored_peaks


def segment(images, **options):
    return run_job(pipeline.segment(images, device="cpu", **options))


@pytest.fixture
def two_points(monkeypatch):
    """A prompter that always finds the two discs of scene 0, and keeps what it was shown."""
    shown = []

    def look(self, references, image):
        shown.append(image)
        return {}, {}

    def proposal(self, maps, shape, settings=None):
        points = [Prompts([p], [True]) for p in ((12, 14), (32, 40))]
        return PromptProposal(tuple(points), HeatMap(np.full(shape[:2], 0.5)))

    monkeypatch.setattr(samic_prompter.SamicPrompter, "maps_and_agreement", look)
    monkeypatch.setattr(samic_prompter.SamicPrompter, "proposal", proposal)
    return shown


def test_trained_prompter_answers_every_image(prompter, scenes, tmp_path):
    outcome = segment(
        scenes / "images", prompter=prompter, out=tmp_path, heatmaps=True, overlay=True
    )
    assert outcome.done == ("p0", "p1", "p2", "p3")
    assert set(outcome.figures) == {"objects", "mean_score", "empty"}
    for name in outcome.done:
        labels = tifffile.imread(tmp_path / f"{name}.tif")
        heat = tifffile.imread(tmp_path / "heatmaps" / f"{name}.tif")
        assert (labels.dtype, labels.shape) == (np.int32, SHAPE)
        assert (heat.dtype, heat.shape) == (np.float32, SHAPE)
        assert 0 <= heat.min() <= heat.max() <= 1
    assert (tmp_path / "overlay.png").exists()
    assert not hidden_files(tmp_path)


def test_points_become_objects_and_are_recorded(prompter, scenes, tmp_path, two_points):
    outcome = segment(scenes / "images" / "p0.png", prompter=prompter, out=tmp_path)
    assert outcome.figures["objects"] == 2
    assert set(np.unique(tifffile.imread(tmp_path / "p0.tif"))) == {0, 1, 2}
    (image,) = load_prompts(tmp_path / "prompts.json").images
    assert [tuple(p.points_rc[0]) for p in image.objects] == [(12, 14), (32, 40)]
    assert not (tmp_path / "heatmaps").exists()


def test_agreement_of_the_references_is_recorded(prompter, scenes, tmp_path, monkeypatch):
    def proposal(self, maps, shape, settings=None):
        points = [Prompts([p], [True], label=n) for n, p in enumerate([(12, 14), (32, 40)], 1)]
        return PromptProposal(tuple(points))

    monkeypatch.setattr(
        samic_prompter.SamicPrompter, "maps_and_agreement", lambda *_: ({}, {1: 0.25})
    )
    monkeypatch.setattr(samic_prompter.SamicPrompter, "proposal", proposal)
    segment(scenes / "images" / "p0.png", prompter=prompter, out=tmp_path)
    with (tmp_path / "scores.csv").open() as file:
        assert [row["agreement"] for row in csv.DictReader(file)] == ["0.25", ""]


def test_union_and_confidence_are_settings(prompter, scenes, tmp_path, two_points):
    options = {"prompter": prompter}
    image = scenes / "images" / "p0.png"
    segment(image, out=tmp_path / "a", settings=SegmentSettings(instances=False), **options)
    assert set(np.unique(tifffile.imread(tmp_path / "a" / "p0.tif"))) == {0, 1}
    none = segment(image, out=tmp_path / "b", settings=SegmentSettings(min_score=0.9), **options)
    assert (none.figures["objects"], none.figures["empty"]) == (0, 1)


def test_second_run_skips_and_asks_no_network(prompter, scenes, tmp_path, two_points):
    segment(scenes / "images", prompter=prompter, out=tmp_path)
    seen = len(two_points)
    again = segment(scenes / "images", prompter=prompter, out=tmp_path)
    assert (again.done, len(again.skipped), len(two_points)) == ((), 4, seen)
    assert len(load_prompts(tmp_path / "prompts.json").images) == 4


def test_stack_gives_a_stack(prompter, tmp_path, two_points):
    pages = np.stack([scene(i)[0] for i in range(3)])
    tifffile.imwrite(tmp_path / "t.tif", pages, photometric="rgb")
    segment(tmp_path / "t.tif", prompter=prompter, out=tmp_path / "out")
    assert tifffile.imread(tmp_path / "out" / "t.tif").shape == (3, *SHAPE)


def test_range_and_channels_of_the_training_are_used(toy, tmp_path, two_points):
    images = tmp_path / "images"
    for i in range(2):
        pixels, labels = scene(i, scale=100)
        many = np.concatenate([pixels[..., ::-1], pixels], axis=2)  # (H, W, 6)
        images.mkdir(exist_ok=True)
        tifffile.imwrite(
            images / f"p{i}.ome.tif", many.transpose(2, 0, 1), metadata={"axes": "CYX"}
        )
        write_image(tmp_path / "masks" / f"p{i}.png", labels)
    run_job(
        pipeline.train(
            images, masks=tmp_path / "masks", out=tmp_path / "p.pt", model=toy, device="cpu",
            channels=(3, 4, 5), settings=TrainSettings(epochs=1, views=1),
            adapt=AdaptSettings(adapt=False),
        )
    )  # fmt: skip
    dim = tmp_path / "dim" / "q.ome.tif"
    dim.parent.mkdir()
    tifffile.imwrite(dim, (many // 2).transpose(2, 0, 1), metadata={"axes": "CYX"})
    segment(dim, prompter=tmp_path / "p.pt", out=tmp_path / "out")
    red, green, blue = (int(v) for v in two_points[-1][14, 14])  # inside a disc
    assert red > blue > green  # channels 3, 4, 5 of the file
    assert two_points[-1].max() < 130  # fitted to itself, its maximum would be 255


def test_some_peak_settings_can_be_changed(prompter):
    assert stored_peaks(prompter) == PeakSettings(min_area_frac=0.2)


def test_peaks_given_take_the_place_of_the_stored(prompter, scenes, tmp_path, monkeypatch):
    used = []

    def proposal(self, maps, shape, settings=None):
        used.append(settings or self.peaks)
        return PromptProposal(())

    monkeypatch.setattr(samic_prompter.SamicPrompter, "proposal", proposal)
    image = scenes / "images" / "p0.png"
    segment(image, prompter=prompter, out=tmp_path / "a")
    segment(image, prompter=prompter, out=tmp_path / "b", peaks=PeakSettings(threshold=0.2))
    assert used == [PeakSettings(min_area_frac=0.2), PeakSettings(threshold=0.2)]


def test_moved_model_is_given_anew(prompter, scenes, toy, tmp_path):
    moved = tmp_path / "moved.pt"
    shutil.copy(toy.removeprefix("path:"), moved)
    outcome = segment(
        scenes / "images", prompter=prompter, out=tmp_path / "out", model=f"path:{moved}"
    )
    assert len(outcome.done) == 4


def test_other_weights_are_refused(prompter, scenes, tmp_path):
    other = write_toy(tmp_path / "other.pt", side=96)
    with pytest.raises(ModelError, match=r"prompter\.pt: trained for path:.* Train again"):
        segment(scenes / "images", prompter=prompter, out=tmp_path / "o", model=f"path:{other}")


def test_lost_model_is_told(prompter, scenes, tmp_path):
    changed = torch.load(prompter, weights_only=True)
    changed["normalisation"]["model"] = "path:/nowhere/toy.pt"
    torch.save(changed, tmp_path / "p.pt")
    with pytest.raises(WeightsError, match=r"/nowhere/toy\.pt: no such weights file"):
        segment(scenes / "images", prompter=tmp_path / "p.pt", out=tmp_path / "out")


@pytest.mark.parametrize("lost", ["normalisation", "settings", "backbone"])
def test_prompter_file_without_a_part_is_refused(prompter, scenes, tmp_path, lost):
    changed = torch.load(prompter, weights_only=True)
    changed[lost] = None
    torch.save(changed, tmp_path / "p.pt")
    with pytest.raises(FormatError, match=r"p\.pt: "):
        segment(scenes / "images", prompter=tmp_path / "p.pt", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_cancel_keeps_what_is_done(prompter, scenes, tmp_path):
    job = pipeline.segment(scenes / "images", prompter=prompter, out=tmp_path, device="cpu")
    for _ in range(3):
        next(job)
    job.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "ledger.sqlite", "p0.tif", "p1.tif", "prompts.json", "scores.csv",
    ]  # fmt: skip
    again = segment(scenes / "images", prompter=prompter, out=tmp_path)
    assert (again.done, again.skipped) == (("p2", "p3"), ("p0", "p1"))


def test_two_folders_of_images_are_one_run(prompter, tmp_path, two_points):
    a, b = write_scenes(tmp_path / "a", 1), tmp_path / "b"
    write_image(b / "q.png", scene(1)[0])
    outcome = segment([a / "images", b], prompter=prompter, out=tmp_path / "out")
    assert outcome.done == ("p0", "q")


@pytest.mark.parametrize("method", ["persam", "prototypes", "forest", "registration"])
def test_other_methods_take_the_references_of_the_file(prompter, scenes, tmp_path, method):
    outcome = segment(scenes / "images", prompter=prompter, out=tmp_path, method=method)
    assert outcome.done == ("p0", "p1", "p2", "p3")


def test_unknown_method_is_refused_before_anything_is_written(prompter, scenes, tmp_path):
    with pytest.raises(SettingsError, match="method is 'persma', expected one of auto, samic"):
        segment(scenes / "images", prompter=prompter, out=tmp_path / "out", method="persma")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"method": "persam", "memory": MemorySettings(follow="always")}, id="follow"),
        pytest.param({"method": "forest", "refine": RefineSettings(limits=True)}, id="refine"),
        pytest.param(
            {"memory": MemorySettings(follow="stacks"), "strategy": StrategySettings("box")},
            id="strategy_and_follow",
        ),
        pytest.param({"memory": MemorySettings("stacks", link="stacks")}, id="follow_and_link"),
    ],
)
def test_options_that_would_have_no_effect_are_refused(prompter, scenes, tmp_path, options):
    with pytest.raises(SettingsError, match=r"leave (strategy|link)"):
        segment(scenes / "images", prompter=prompter, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("setting", ["follow", "link"])
def test_object_keeps_its_number_through_a_stack_if_asked_for(prompter, tmp_path, setting):
    frames = np.stack([np.roll(scene(0)[0], 3 * t, 1) for t in range(3)])
    stack = write_image(tmp_path / "images" / "s.tif", frames)
    options = {"prompter": prompter, "method": "prototypes" if setting == "link" else "auto"}
    out = tmp_path / "out"
    outcome = segment(stack, out=out, memory=MemorySettings(**{setting: "stacks"}), **options)
    labels = tifffile.imread(out / "s.tif")
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    for z, plane in enumerate(labels):
        mine = [int(row["object"]) for row in rows if row["image"] == f"s[{z}]"]
        assert set(mine) - {0} == set(np.unique(plane)) - {0}
        for result in read_results(out).images[z : z + 1]:
            for value, prompts in result.prompts_by_value().items():
                row, column = np.rint(prompts.points_rc[0]).astype(int)
                assert plane[row, column] in (0, value)
    assert not any("numbered" in line for line in outcome.notices)


def test_stack_whose_planes_are_numbered_apart_is_told(prompter, tmp_path):
    frames = np.stack([scene(0)[0]] * 2)
    stack = write_image(tmp_path / "images" / "s.tif", frames)
    outcome = segment(stack, prompter=prompter, out=tmp_path / "out")
    assert any("link" in line and line.endswith("s.") for line in outcome.notices)


def test_heat_maps_do_not_replace_the_images(prompter, tmp_path):
    image = write_image(tmp_path / "heatmaps" / "p0.tif", scene()[0])
    before = image.read_bytes()
    with pytest.raises(InputError, match=r"holds p0\.tif, which is given as input"):
        segment(image, prompter=prompter, out=tmp_path, heatmaps=True, overwrite=True)
    assert image.read_bytes() == before


def test_series_of_too_long_a_name_is_told_before_work_begins(prompter, tmp_path):
    path = tmp_path / f"{'x' * 249}.tif"
    with tifffile.TiffWriter(path) as file:
        for number in range(2):
            file.write(scene(number)[0], photometric="rgb", metadata=None)
            file.write(scene(number)[0][:20], photometric="rgb", metadata=None)
    with pytest.raises(OutputError, match="the name is too long"):
        segment([path], prompter=prompter, out=tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.*"))


def test_look_at_earlier_results_tells_each_plane_of_a_stack(prompter, tmp_path, two_points):
    stack = np.stack([scene(k)[0] for k in range(3)])
    tifffile.imwrite(tmp_path / "s.tif", stack, photometric="rgb")
    segment(tmp_path / "s.tif", prompter=prompter, out=tmp_path / "out")
    job = pipeline.segment(
        tmp_path / "s.tif", prompter=prompter, out=tmp_path / "out", device="cpu"
    )
    looks = [step.message for step in job if step.data.get("phase") == "check"]
    assert [sum(f"s[{k}]" in look for look in looks) for k in range(3)] == [1, 1, 1]


@pytest.fixture
def annotated(toy, scenes, tmp_path):
    """Makes the folder of `annotate` for p0, with these clicks."""

    def annotate(*clicks):
        prompts = write_prompts(tmp_path / "drawn.json", [("p0", SHAPE, [[at] for at in clicks])])
        job = pipeline.annotate(
            scenes / "images", prompts=prompts, out=tmp_path / "drawn", model=toy, device="cpu",
            overwrite=True,
        )  # fmt: skip
        run_job(job)
        return tmp_path / "drawn"

    annotate.model = toy
    return annotate


def test_annotated_images_keep_their_labels_and_follow_when_these_change(
    prompter, scenes, tmp_path, two_points, annotated
):
    out, options = tmp_path / "out", {"prompter": prompter, "out": tmp_path / "out"}
    drawn = annotated((30, 20))
    outcome = segment(scenes / "images", annotated=drawn, **options)
    assert (len(two_points), len(outcome.done)) == (3, 4)  # nothing was asked for p0
    np.testing.assert_array_equal(imread(out / "p0.tif"), imread(drawn / "p0.tif"))
    (image, *_) = load_prompts(out / "prompts.json").images
    assert [tuple(p.points_rc[0]) for p in image.objects] == [(30, 20)]

    annotated((30, 20), (10, 40))
    outcome = segment(scenes / "images", annotated=drawn, **options)
    assert (outcome.done, len(outcome.skipped)) == (("p0",), 3)
    np.testing.assert_array_equal(imread(out / "p0.tif"), imread(drawn / "p0.tif"))


def test_exported_table_has_the_intensities_of_the_images(scenes, tmp_path, annotated):
    images = shutil.copytree(scenes / "images", tmp_path / "images")
    prompts = write_prompts(tmp_path / "p.json", [(f"p{i}", SHAPE, [[(12, 14)]]) for i in (0, 1)])
    job = pipeline.annotate(
        images, prompts=prompts, out=tmp_path / "mine", model=annotated.model, device="cpu"
    )
    run_job(job)
    write_image(images / "p1.png", scene(5)[0])  # changed since
    settings = ExportSettings(tiff=False, table=True)
    outcome = run_job(pipeline.export(tmp_path / "mine", out=tmp_path / "out", settings=settings))
    with (tmp_path / "out" / "measurements.csv").open() as file:
        first, second = csv.DictReader(file)
    inside = imread(tmp_path / "mine" / "p0.tif") == 1
    mean = scene(0)[0][inside].mean(0)
    found = [float(first[f"intensity_mean-{i}"]) for i in range(3)]
    np.testing.assert_allclose(found, mean, rtol=1e-5)
    assert second["intensity_mean-0"] == ""
    assert any("intensities" in line and "p1" in line for line in outcome.notices)


def test_frames_after_an_annotated_one_follow_what_was_drawn(prompter, scenes, tmp_path, annotated):
    drawn = annotated((30, 20), (10, 40))
    out = tmp_path / "out"
    segment(
        scenes / "images", prompter=prompter, out=out, annotated=drawn,
        memory=MemorySettings(follow="always"),
    )  # fmt: skip
    np.testing.assert_array_equal(imread(out / "p0.tif"), imread(drawn / "p0.tif"))
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["object"] for row in rows if row["image"] == "p0"] == ["1", "2"]


def test_other_pixels_under_an_annotated_name_are_segmented_and_told(
    prompter, tmp_path, two_points, annotated
):
    write_image(tmp_path / "more" / "p0.png", scene(7)[0])
    drawn = annotated((30, 20))
    outcome = segment(tmp_path / "more", prompter=prompter, out=tmp_path / "out", annotated=drawn)
    assert len(two_points) == 1
    assert any("pixels" in line and "p0" in line for line in outcome.notices)


def test_references_that_are_predicted_are_told(prompter, scenes, tmp_path, two_points):
    write_image(tmp_path / "more" / "q.png", scene(7)[0])
    images = [*sorted((scenes / "images").iterdir())[:2], tmp_path / "more" / "q.png"]
    outcome = segment(images, prompter=prompter, out=tmp_path / "out")
    assert any("2 images are references" in line for line in outcome.notices)


def test_reference_that_was_shrunk_for_the_network_is_told(toy, tmp_path, two_points):
    for i in range(2):
        image, labels = scene(i, (120, 150))  # the toy sees 64 px
        write_image(tmp_path / "images" / f"p{i}.png", image)
        write_image(tmp_path / "masks" / f"p{i}.png", labels)
    images, file = tmp_path / "images", tmp_path / "p.pt"
    few, alone = TrainSettings(epochs=1, views=1), AdaptSettings(adapt=False)
    options = {"masks": tmp_path / "masks", "model": toy, "settings": few, "adapt": alone}
    run_job(pipeline.train(images, out=file, **options))
    outcome = segment(images, prompter=file, out=tmp_path / "out")
    assert any("2 images are references" in line for line in outcome.notices)


def test_annotated_labels_become_classes_where_these_are_wanted(
    prompter, scenes, tmp_path, annotated
):
    drawn = annotated((30, 20), (10, 40))
    assert set(np.unique(imread(drawn / "p0.tif"))) == {0, 1, 2}
    segment(
        scenes / "images" / "p0.png", prompter=prompter, out=tmp_path / "out", annotated=drawn,
        settings=SegmentSettings(instances=False),
    )  # fmt: skip
    assert set(np.unique(imread(tmp_path / "out" / "p0.tif"))) == {0, 1}


def test_openvino_segments_as_torch_does(prompter, scenes, tmp_path, monkeypatch):
    if find_spec("openvino") is None:
        pytest.skip("the extra openvino is not installed")
    asked, call = [], OpenVinoNetwork.__call__
    monkeypatch.setattr(
        OpenVinoNetwork, "__call__", lambda self, x: asked.append(1) or call(self, x)
    )
    for device in ("cpu", "openvino"):
        monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / f"{device}-home"))  # encode anew
        run_job(
            pipeline.segment(
                scenes / "images", prompter=prompter, out=tmp_path / device, device=device
            )
        )
    assert len(asked) >= 4
    files = sorted((tmp_path / "cpu").glob("*.tif"))
    assert len(files) == 4
    for file in files:
        a, b = imread(file), imread(tmp_path / "openvino" / file.name)
        assert len(np.unique(a)) == len(np.unique(b)) > 1
        assert np.mean((a > 0) == (b > 0)) > 0.99
