"""Ways compared on a data set: cells, a table, overlays, and going on where it was stopped."""

import json
from types import SimpleNamespace

import layouts
import numpy as np
import pytest
from toys import scene, write_image, write_scenes

from napari_samic.benchmark import costs, datasets, learners
from napari_samic.benchmark import run as benchmark_run
from napari_samic.benchmark.datasets import DataSet, DatasetItem
from napari_samic.benchmark.report import read_results
from napari_samic.benchmark.run import benchmark
from napari_samic.core.errors import InputError, OutputError, SettingsError
from napari_samic.core.settings import (
    AdaptSettings,
    PrompterSettings,
    SegmentSettings,
    TrainSettings,
)
from napari_samic.core.types import (
    HeatMap,
    PromptProposal,
    Prompts,
    Reference,
    Segmentation,
    run_job,
)
from napari_samic.models.samic import prompter as samic_prompter

QUICK = TrainSettings(epochs=1, views=1)
OFF = AdaptSettings(adapt=False)


@pytest.fixture
def folder(tmp_path):
    return write_scenes(tmp_path / "data", 8)


def compare(folder, out, toy, **options):
    chosen = {"ways": ("samic", "samic-first"), "shots": (2,), "share": 0.4, "training": QUICK}
    job = benchmark(
        "folder", data=folder, out=out, model=toy, device="cpu", adapt=OFF, **{**chosen, **options}
    )
    return run_job(job)


def test_every_way_answers_the_same_images(folder, tmp_path, toy):
    outcome = compare(folder, tmp_path / "out", toy, seeds=(0, 1))
    rows = read_results(tmp_path / "out" / "images.csv")
    shown = {
        (r.seed, r.method): [s.image for s in rows if (s.seed, s.method) == (r.seed, r.method)]
        for r in rows
    }
    assert len(shown) == 4
    assert shown[0, "samic"] == shown[0, "samic-first"]
    assert len(shown[0, "samic"]) == 5
    assert "| samic " in outcome.figures["table"]
    [told] = [m for m in outcome.figures["measures"] if m["method"] == "samic"]
    mine = [r for r in rows if r.method == "samic"]
    by_image = [np.mean([r.dice for r in mine if r.image == i]) for i in {r.image for r in mine}]
    assert told["dice"] == pytest.approx(np.mean(by_image))
    assert told["aurc"] >= told["aurc_best"]
    assert json.loads((tmp_path / "out" / "measures.json").read_text()) == [
        {k: v if v == v else None for k, v in m.items()} for m in outcome.figures["measures"]
    ]
    assert (tmp_path / "out" / "measures.md").read_text() == outcome.figures["measures_table"]
    assert (tmp_path / "out" / "sheets" / "folder-2-0-samic-worst.png").exists()


def test_it_goes_on_where_it_was(folder, tmp_path, toy, monkeypatch):
    out = tmp_path / "out"
    compare(folder, out, toy, ways=("samic-first",))
    before = (out / "cells" / "folder-2-0-samic-first.csv").read_bytes()
    learned = []
    real = learners.learn

    def learn(name, *rest):
        learned.append(name)
        return real(name, *rest)

    monkeypatch.setattr(learners, "learn", learn)
    outcome = compare(folder, out, toy, baseline="samic-first")
    assert learned == ["samic"]
    assert outcome.skipped == ("folder-2-0-samic-first",)
    assert (out / "cells" / "folder-2-0-samic-first.csv").read_bytes() == before


def test_another_set_up_needs_another_folder(folder, tmp_path, toy):
    compare(folder, tmp_path / "out", toy, ways=("samic-first",))
    with pytest.raises(OutputError, match=r"another training. Give another --out"):
        compare(folder, tmp_path / "out", toy, training=TrainSettings(epochs=2))


def test_targets_are_drawn_by_the_seed_and_shared(folder, tmp_path, toy):
    compare(folder, tmp_path / "out", toy, targets=2)
    rows = read_results(tmp_path / "out" / "images.csv")
    assert len(rows) == 4
    assert len({r.image for r in rows}) == 2


def test_images_that_settings_were_chosen_by_are_no_targets(folder, tmp_path, toy):
    compare(folder, tmp_path / "all", toy, ways=("samic-first",))
    everything = [r.image for r in read_results(tmp_path / "all" / "images.csv")]
    compare(folder, tmp_path / "some", toy, ways=("samic-first",), without=everything[:2])
    assert [r.image for r in read_results(tmp_path / "some" / "images.csv")] == everything[2:]
    with pytest.raises(OutputError, match="another without"):
        compare(folder, tmp_path / "some", toy, ways=("samic-first",))
    with pytest.raises(InputError, match="has no p99"):
        compare(folder, tmp_path / "none", toy, without=["p99"])


def test_images_elsewhere_are_targets_of_the_same_learning(folder, tmp_path, toy, monkeypatch):
    learned, real = [], learners.learn

    def learn(name, *rest):
        learned.append(name)
        return real(name, *rest)

    monkeypatch.setattr(learners, "learn", learn)
    other = write_scenes(tmp_path / "other", 3)
    out, ways = tmp_path / "out", ("samic-first",)
    compare(folder, out, toy, ways=ways)
    alone = (out / "cells" / "folder-2-0-samic-first.csv").read_bytes()
    compare(folder, out, toy, ways=(*ways, "samic"), elsewhere=other, targets=0)
    rows = read_results(out / "images.csv")
    assert learned == ["samic-first", "samic-first", "samic"]  # once for both sets
    assert [r.image for r in rows if (r.set, r.method) == ("other", "samic")] == ["p0", "p1", "p2"]
    assert len([r for r in rows if r.set == "folder"]) == 10
    assert (out / "cells" / "folder-2-0-samic-first.csv").read_bytes() == alone
    with pytest.raises(OutputError, match="another without"):
        compare(folder, out, toy, ways=ways, elsewhere=other, without=["p0"])
    compare(folder, tmp_path / "some", toy, ways=ways, elsewhere=other, without=["p0", "p7"])
    some = [r.image for r in read_results(tmp_path / "some" / "images.csv") if r.set == "other"]
    assert some == ["p1", "p2"]
    with pytest.raises(OutputError, match="another images"):
        compare(folder, out, toy, ways=ways, elsewhere=write_scenes(tmp_path / "b" / "other", 4))


def test_ways_are_shown_the_images_that_they_will_answer(folder, tmp_path, toy, monkeypatch):
    shown, real = [], learners.learn

    def learn(name, references, given):
        shown.append([read().sum() for read in given.more])
        return real(name, references, given)

    monkeypatch.setattr(learners, "learn", learn)
    other = write_scenes(tmp_path / "other", 3)
    compare(folder, tmp_path / "out", toy, ways=("samic-first",), elsewhere=other)
    rows = read_results(tmp_path / "out" / "images.csv")
    sums = [
        [scene(int(r.image.removeprefix("p")))[0].sum() for r in rows if r.set == name]
        for name in ("folder", "other")
    ]
    assert shown == [[*sums[0], *sums[1]]]
    shown.clear()
    monkeypatch.setattr("napari_samic.benchmark.methods.OTHERS_FROM", 2)
    compare(folder, tmp_path / "each", toy, ways=("default-others",), elsewhere=other)
    assert shown == sums  # anew for each, so that its cell is the same alone


def test_too_few_shots_to_learn_from_other_images_are_refused(folder, tmp_path, toy):
    with pytest.raises(SettingsError, match="with 10 references or more"):
        compare(folder, tmp_path / "out", toy, ways=("default", "default-others"))


def test_images_elsewhere_need_a_name_and_a_set_of_their_own(folder, tmp_path, toy):
    same = write_scenes(tmp_path / "folder", 3)
    for other, text in ((same, "be called folder, too"), (folder, "the set itself")):
        with pytest.raises(InputError, match=text):
            compare(folder, tmp_path / "out", toy, elsewhere=other)
    job = benchmark(
        "fss-1000", data=layouts.fss(tmp_path / "fss"), out=tmp_path / "out", ways=("samic",),
        elsewhere=same, model=toy, device="cpu",
    )  # fmt: skip
    with pytest.raises(InputError, match="fss-1000 is not one"):
        run_job(job)
    assert not (tmp_path / "out").exists()


def test_a_perfect_prompter_scores_high(folder, tmp_path, toy, monkeypatch):
    def propose(self, references, image):
        red = image[..., 0].astype(int) > 150
        at = [np.argwhere(red & half).mean(0) for half in _halves(image.shape)]
        points = tuple(Prompts([p], [True]) for p in at)
        return PromptProposal(points, HeatMap(red.astype(np.float32)))

    monkeypatch.setattr(samic_prompter.SamicPrompter, "maps_and_agreement", lambda *a: ({}, {}))
    monkeypatch.setattr(learners, "_samic", _only(propose))
    compare(folder, tmp_path / "out", toy, ways=("samic",))
    good = [r.iou for r in read_results(tmp_path / "out" / "images.csv")]
    assert np.mean(good) > 0.4


def _halves(shape):
    rows = np.arange(shape[0])[:, None] < shape[0] // 2
    top = np.broadcast_to(rows, shape[:2])
    return top, ~top


def _only(propose):
    def learn(way, references, given):
        yield from ()

        class Answerer:
            def segment(self, image):
                return given.segmenter.segment(image, propose(None, None, image).objects)

        return Answerer()

    return learn


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        pytest.param({"ways": ("samci",)}, SettingsError, "unknown samci", id="way"),
        pytest.param({"baseline": "paper"}, InputError, "not compared", id="baseline"),
        pytest.param({"shots": (9,)}, InputError, "reference", id="shots"),
        pytest.param({"shots": (2, 9)}, InputError, "reference", id="later_shots"),
        pytest.param({"seeds": ()}, InputError, "at least one of each", id="no_seed"),
        pytest.param(
            {"without": [f"p{n}" for n in range(8)]}, InputError, "no image to segment", id="target"
        ),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_written(
    folder, tmp_path, toy, options, error, text
):
    with pytest.raises(error, match=text):
        compare(folder, tmp_path / "out", toy, **options)
    assert not (tmp_path / "out" / "images.csv").exists()


def test_an_image_that_is_asked_for_again_is_another_result(folder, tmp_path, toy, monkeypatch):
    real = datasets.episodes

    def twice(*args, **options):
        found = list(real(*args, **options))
        return iter([*found, *found])

    monkeypatch.setattr(datasets, "episodes", twice)
    compare(folder, tmp_path / "out", toy, ways=("samic-first",), targets=2)
    names = [r.image for r in read_results(tmp_path / "out" / "images.csv")]
    assert len(set(names)) == 4


def test_other_data_need_another_folder(folder, tmp_path, toy):
    compare(folder, tmp_path / "out", toy, ways=("samic-first",))
    other = write_scenes(tmp_path / "other", 8)
    with pytest.raises(OutputError, match="another data"):
        compare(other, tmp_path / "out", toy, ways=("samic-first",))
    more = write_scenes(tmp_path / "b" / "data", 9)
    with pytest.raises(OutputError, match="another images"):
        compare(more, tmp_path / "out", toy, ways=("samic-first",))


def test_cells_are_completed_on_another_machine(folder, tmp_path, toy):
    compare(folder, tmp_path / "out", toy, ways=("samic-first",))
    there = tmp_path / "there" / folder.name
    there.parent.mkdir()
    folder.rename(there)
    outcome = compare(there, tmp_path / "out", toy, ways=("samic-first",))
    assert outcome.skipped == ("folder-2-0-samic-first",)


@pytest.mark.parametrize("way", ["paper", "layers-2", "kld+cc", "ablate-losses"])
def test_paper_is_not_compared_untrained(folder, tmp_path, toy, way):
    with pytest.raises(SettingsError, match="takes two references"):
        compare(folder, tmp_path / "out", toy, ways=("samic-first", way), shots=(1, 2))
    assert not (tmp_path / "out").exists()  # before anything is computed


def test_ablation_compares_its_ways_and_tells_what_they_cost(folder, tmp_path, toy):
    out = tmp_path / "out"
    outcome = compare(folder, out, toy, ways=("ablate-layers", "prototypes"), targets=1)
    ways = ["layers-1", "layers-2", "paper+level", "layers-4", "prototypes"]
    assert [r.method for r in read_results(out / "images.csv")] == ways
    told = outcome.figures["costs"]
    assert list(told) == ways[:-1]
    sizes = [cost["parameters"] for cost in told.values()]
    assert sizes == sorted(set(sizes))
    assert all(cost["ms"] > 0 for cost in told.values())
    assert json.loads((out / "costs.json").read_text())["ways"] == told
    assert "| layers-4 | 4,0" in outcome.figures["cost_table"]


def test_ways_without_a_learner_have_no_costs(folder, tmp_path, toy):
    outcome = compare(folder, tmp_path / "out", toy, ways=("prototypes",), targets=1)
    assert outcome.figures["costs"] == {}
    assert not (tmp_path / "out" / "costs.json").exists()


def test_costs_are_measured_anew_where_all_cells_are_done(folder, tmp_path, toy, monkeypatch):
    out = tmp_path / "out"
    compare(folder, out, toy, ways=("samic-first",), targets=1)
    monkeypatch.setattr(costs, "milliseconds", lambda *args: 5.0)
    outcome = compare(folder, out, toy, ways=("samic-first",), targets=1)
    assert outcome.skipped == ("folder-2-0-samic-first",)
    assert outcome.figures["costs"]["samic-first"]["ms"] == 5.0
    assert json.loads((out / "costs.json").read_text())["ways"]["samic-first"]["ms"] == 5.0
    assert "cost_table" not in outcome.figures


def test_default_without_adapting_is_samic(folder, tmp_path, toy):
    compare(folder, tmp_path / "out", toy, ways=("samic", "default"))
    rows = read_results(tmp_path / "out" / "images.csv")
    found = {w: [r.iou for r in rows if r.method == w] for w in ("samic", "default")}
    assert found["samic"] == found["default"]


def test_ways_of_serving_differ_from_samic_in_that_alone(folder, tmp_path, toy, monkeypatch):
    seen, real = [], learners.ImagePredictor

    def worker(prompter, *rest):
        seen.append(prompter.settings)
        return real(prompter, *rest)

    monkeypatch.setattr(learners, "ImagePredictor", worker)
    ways = ("samic", "samic-nearest", "samic-agreed")
    compare(folder, tmp_path / "out", toy, ways=ways, targets=1)
    nearest = PrompterSettings(kept=64, serve="nearest")
    assert seen == [PrompterSettings(), nearest, PrompterSettings(weigh="agreement")]


def test_videos_are_scored_by_sequence_from_their_first_frame(tmp_path, toy):
    for name in ("cat", "dog"):
        for i in range(4):
            image, labels = scene(i)
            mask = (labels > 0) * np.uint8(255)
            write_image(tmp_path / "data" / "images" / f"{name}_{i:05}.jpg", image)
            write_image(tmp_path / "data" / "masks" / f"{name}_{i:05}.png", mask)
    job = benchmark(
        "davis-flat", data=tmp_path / "data", out=tmp_path / "out", shots=(1, 5),
        ways=("samic-first", "samic-previous", "follow"), targets=2, model=toy, device="cpu",
        training=QUICK, adapt=OFF,
    )  # fmt: skip
    outcome = run_job(job)
    rows = read_results(tmp_path / "out" / "images.csv")
    assert {r.shots for r in rows} == {1}
    follow = [r.image for r in rows if r.method == "follow"]
    assert follow == ["cat/00001", "cat/00002", "dog/00001", "dog/00002"]  # the first ones
    for told in outcome.figures["measures"]:
        mine = [r for r in rows if r.method == told["method"]]
        by_name = [[r for r in mine if r.image.startswith(n)] for n in ("cat", "dog")]
        means = [np.mean([(r.iou + r.boundary_f) / 2 for r in frames]) for frames in by_name]
        assert told["j_and_f"] == pytest.approx(np.mean(means))


@pytest.mark.parametrize(("table", "wanted"), [((0, 1, 2), 1.0), ((0, 2, 1), 0.0)])
def test_objects_of_a_video_are_told_apart_by_their_numbers(
    tmp_path, toy, monkeypatch, table, wanted
):
    truth = {}
    for i in range(3):
        image, labels = scene(i)
        truth[image.tobytes()] = np.minimum(labels, 2)
        write_image(tmp_path / "data" / "images" / f"cat_{i:05}.png", image)
        write_image(tmp_path / "data" / "masks" / f"cat_{i:05}.png", np.minimum(labels, 2))
    shown = []

    def learn(name, references, given):
        yield from ()
        shown.append((sorted({p.label for p in references[0].objects}), given.instances))

        def answer(image):
            labels = np.array(table)[truth[image.tobytes()]]
            return Segmentation(
                labels.astype(np.int32),
                np.array([0.9, 0.8]),
                (),
                HeatMap(0 * image[..., 0].astype(np.float32)),
            )

        return answer

    monkeypatch.setattr(learners, "learn", learn)
    job = benchmark(
        "davis-flat", data=tmp_path / "data", out=tmp_path / "out", ways=("samic-first",),
        model=toy, device="cpu", training=QUICK, adapt=OFF,
    )  # fmt: skip
    told = run_job(job).figures["measures"][0]
    assert told["j_and_f"] == pytest.approx(wanted, abs=0.01)
    assert np.isnan(told["dice"])  # all that is not ground is no object
    assert shown == [([1, 2], False)]


def test_networks_learn_from_the_classes_of_the_training_part_and_references_only_serve(
    tmp_path, toy, monkeypatch
):
    root = layouts.fss(tmp_path / "fss")
    layouts.text(root / "fss_test_set.txt", "bear")
    fitted, real = [], samic_prompter.SamicPrompter.fit

    def fit(self, references, settings=None, control=None):
        classes = {p.label for r in references for p in r.objects}
        fitted.append((settings.epochs, {r.name.split("/")[0] for r in references}, classes))
        return (yield from real(self, references, settings, control))

    monkeypatch.setattr(samic_prompter.SamicPrompter, "fit", fit)
    job = benchmark(
        "fss-1000", data=root, out=tmp_path / "out", ways=("paper+level", "samic-first"),
        shots=(1,), share=0.5, model=toy, device="cpu", training=QUICK, adapt=OFF,
    )  # fmt: skip
    run_job(job)
    taught, *others = fitted
    assert taught == (1, {"axe", "cat"}, {1, 2})
    assert others == [(0, {"bear"}, {1})] * 10  # samic-first; paper+level learned once
    rows = read_results(tmp_path / "out" / "images.csv")
    assert [r.method for r in rows] == ["paper+level"] * 10 + ["samic-first"] * 10


@pytest.mark.parametrize("shown", ["one", "none"])
def test_answer_to_a_frame_is_shown_with_the_next(shown):
    seen, labels = [], np.zeros((8, 8), np.int32)
    labels[2:7, 2:7] = shown == "one"

    class Asked:
        settings = SegmentSettings(instances=False)

        def extract_features(self, image, references):
            seen.append(references[0])

        def predict_masks(self, image, features):
            return Segmentation(labels, np.array([0.9]), (), HeatMap(np.zeros((8, 8), np.float32)))

    first = Reference("first", np.zeros((8, 8, 3), np.uint8), (), labels)
    answer = learners.PreviousFramePredictor(Asked(), first).segment
    frames = [np.full((8, 8, 3), n, np.uint8) for n in range(3)]
    for frame in frames:
        answer(frame)
    assert seen[0] is first
    if shown == "none":
        assert seen[1:] == [first, first]
        return
    assert [r.image is f for r, f in zip(seen[1:], frames, strict=False)] == [True, True]
    assert [p.label for p in seen[2].objects] == [1]
    assert np.array_equal(seen[2].mask, labels)


@pytest.mark.parametrize("fold", [0, 1])
def test_lessons_need_two_images_of_a_class_in_each_fold(fold):
    items = [DatasetItem(f"{c}{n}", c, None, None, split="train") for c in "ab" for n in range(2)]
    del items[2 * (1 - fold)]  # one image of the class that the fold learns from
    items.append(DatasetItem("v", "a", None, None, split="val"))
    folds = {0: ("a",), 1: ("b",)}
    found = DataSet("set", tuple(items), "by_class", folds)
    with pytest.raises(InputError, match=f"set, fold {fold}: no class with two images among 1"):
        benchmark_run.base_classes_by_fold(found, 0, 0.99)


def test_follow_is_for_videos(folder, tmp_path, toy):
    for way in ("follow", "samic-previous"):
        with pytest.raises(InputError, match=f"{way} is for videos"):
            compare(folder, tmp_path / "out", toy, ways=(way,))


def test_an_image_that_can_not_be_read_is_told_and_the_others_are_answered(folder, tmp_path, toy):
    kept = [r.image for r in rows_of(compare(folder, tmp_path / "all", toy))]
    broken = folder / "images" / f"{kept[0]}.png"
    broken.write_bytes(broken.read_bytes()[:99])
    outcome = compare(folder, tmp_path / "out", toy)
    assert [r.image for r in rows_of(outcome)] == [i for i in kept if i != kept[0]]
    assert list(outcome.failures) == [kept[0]]
    assert "read" in outcome.failures[kept[0]]
    assert compare(folder, tmp_path / "out", toy).failures == outcome.failures  # told again


def rows_of(outcome):
    return read_results(outcome.out / "images.csv")


def test_elsewhere_where_nothing_can_be_read_is_refused_with_the_reason(folder, tmp_path, toy):
    other = write_scenes(tmp_path / "other", 2)
    for mask in (other / "masks").iterdir():
        write_image(mask, scene(0)[1][:-4])
    with pytest.raises(InputError, match=r"other: no image could be segmented, .* a truth of "):
        compare(folder, tmp_path / "out", toy, ways=("samic-first",), elsewhere=other)


def test_others_that_can_not_be_read_are_passed_over_in_learning():
    def broken():
        raise InputError("broken")

    given = SimpleNamespace(seed=0, more=[broken, lambda: "image"])
    assert list(learners.unlabeled_images(given)) == ["image"]


def test_truth_of_another_shape_is_told(folder, tmp_path, toy):
    kept = [r.image for r in rows_of(compare(folder, tmp_path / "all", toy))]
    write_image(folder / "masks" / f"{kept[0]}.png", scene(0)[1][:-4])
    reason = compare(folder, tmp_path / "out", toy).failures[kept[0]]
    assert "(44, 60)" in reason
    assert "(48, 60)" in reason


@pytest.fixture
def fss(tmp_path, toy):
    """Asks for all of a set of one class; each image once, with one reference."""
    root = layouts.fss(tmp_path / "fss", ("axe",), 4)

    def ask(ways=("prototypes",)):
        job = benchmark(
            "fss-1000", data=root, out=tmp_path / "out", ways=ways, shots=(1,), model=toy,
            device="cpu", training=QUICK, adapt=OFF,
        )  # fmt: skip
        return run_job(job)

    return root, ask


def test_a_grey_reference_serves_images_in_colour(fss):
    root, ask = fss
    for n in (1, 2):
        write_image(root / "axe" / f"{n}.jpg", np.full((16, 16), 90, np.uint8))
    outcome = ask()
    assert outcome.failures == {}
    assert len(rows_of(outcome)) == 4


def test_references_that_show_nothing_are_told_and_their_episodes_left_out(fss):
    root, ask = fss
    for n in (1, 2, 3):
        layouts.mask(root / "axe" / f"{n}.png", 250, rows=0, ground=0)
    outcome = ask()
    assert outcome.failures
    for name, reason in outcome.failures.items():
        assert name in ("axe/1", "axe/2", "axe/3")
        assert "shows no object" in reason
    assert 0 < len(rows_of(outcome)) < 4


def test_an_object_in_two_parts_is_one_where_the_set_says_so(tmp_path, toy, monkeypatch):
    root = layouts.coco(tmp_path / "coco", 2)
    two = [*layouts.square(0, 0, 4), *layouts.square(8, 8, 4)]
    notes = [(100 * c + n, c, two) for c in layouts.COCO_CLASSES for n in range(2)]
    name = "COCO_val2014_{:012d}.jpg"
    path = root / "annotations" / "instances_val2014.json"
    layouts.instances(path, notes, layouts.COCO_CLASSES, name)
    for image, _, _ in notes:
        layouts.picture(root / "val2014" / name.format(image))
    truth = np.zeros((16, 16), np.int32)
    truth[0:4, 0:4] = truth[8:12, 8:12] = 1

    def learn(name, references, given):
        yield from ()
        return lambda image: Segmentation(truth, np.array([0.9]), (), None)

    monkeypatch.setattr(learners, "learn", learn)
    job = benchmark(
        "coco-20i", data=root, out=tmp_path / "out", ways=("prototypes",), shots=(1,), targets=1,
        model=toy, device="cpu",
    )  # fmt: skip
    rows = rows_of(run_job(job))
    assert {r.object_f1 for r in rows} == {1.0}
    assert {(r.both, r.either) for r in rows} == {(32.0, 32.0)}
    assert len({r.label for r in rows}) > 40


def test_a_seed_of_the_training_beside_those_of_the_benchmark_is_refused(folder, tmp_path, toy):
    with pytest.raises(SettingsError, match="Give --seeds"):
        compare(folder, tmp_path / "out", toy, training=TrainSettings(seed=3))


def test_of_several_references_those_that_can_be_read_serve(folder, tmp_path, toy, monkeypatch):
    shown, real = [], learners.learn

    def learn(name, references, given):
        shown.append([r.name for r in references])
        return real(name, references, given)

    monkeypatch.setattr(learners, "learn", learn)
    compare(folder, tmp_path / "all", toy, ways=("samic-first",))
    [[lost, kept]] = shown
    (folder / "masks" / f"{lost}.png").write_bytes(b"no picture")
    outcome = compare(folder, tmp_path / "out", toy, ways=("samic-first",))
    assert shown[1] == [kept]
    assert list(outcome.failures) == [lost]
