"""One image: by peaks, by a strategy, with refinements, or with what a finder saw."""

from types import SimpleNamespace

import numpy as np
import pytest
from skimage.segmentation import flood

from napari_samic.core.settings import (
    HeatMapSettings,
    PeakSettings,
    RefineSettings,
    SegmentSettings,
    StrategySettings,
)
from napari_samic.core.types import (
    Candidates,
    HeatMap,
    LazyImage,
    PromptProposal,
    Prompts,
    Reference,
    Segmentation,
    run_job,
)
from napari_samic.models.finetune.network import ForegroundPrediction
from napari_samic.ops.label_fusion import join
from napari_samic.ops.peaks import to_points
from napari_samic.pipeline.predictor import ImageFeatures, ImagePredictor

SHAPE = (60, 80)
DISCS = ((20, 20, 10), (40, 60, 12))


def truth(discs=DISCS, shape=SHAPE):
    rows, columns = np.indices(shape)
    out = np.zeros(shape, np.int32)
    for k, (row, column, radius) in enumerate(discs, start=1):
        out[np.hypot(rows - row, columns - column) <= radius] = k
    return out


class Discs:
    """A segmenter that knows the discs: a good mask and a surer one of everything."""

    name = "discs"

    def __init__(self):
        self.asked = []

    def candidates(self, image, objects, *, multimask=True, logits=None):
        given = logits or [None] * len(objects)
        self.asked += list(zip(objects, given, strict=True))
        return [self.answer(p) for p in objects]

    def answer(self, prompts):
        labels = truth()
        row, column = (
            np.rint(prompts.points_rc[0]).astype(int) if len(prompts.points_rc) else (0, 0)
        )
        own = (labels == labels[row, column]) & (labels > 0)
        masks = np.stack([own, np.ones(SHAPE, bool)])
        small = np.where(masks[:, ::2, ::2], 4.0, -4.0).astype(np.float32)
        pad = ((0, 0), (0, 10), (0, 0))
        return Candidates(
            masks, np.array([0.6, 0.8], np.float32), np.pad(small, pad, constant_values=-4)
        )

    def segment(self, image, objects, *, settings=None):
        raise AssertionError("not asked this way")


class Maps:
    """A prompter whose map is the discs, and whose references are one image of them."""

    peaks, heat = PeakSettings(), HeatMapSettings()
    normalization = None

    def __init__(self):
        points = [Prompts([(20, 20)], [True]), Prompts([(40, 60)], [True])]
        image = np.zeros((*SHAPE, 3), np.uint8)
        self.references = (Reference("r", image, tuple(points), truth()),)
        self.shown = []

    def maps_and_agreement(self, references, image):
        return {1: (truth() > 0).astype(np.float32)}, {1: 0.7}

    def maps(self, references, image):
        self.shown.append(references)
        return self.maps_and_agreement(references, image)[0]


def worker(**options):
    return ImagePredictor(Maps(), Discs(), SegmentSettings(), **options)


def by_both(**options):
    """The toy's surest mask is all of the image, so the map has a say."""
    return worker(strategy=StrategySettings(choice="both"), **options)


IMAGE = np.zeros((*SHAPE, 3), np.uint8)


def seen():
    labels = truth()
    depth = np.zeros(SHAPE, np.float32)
    for k, (row, column, radius) in enumerate(DISCS, start=1):
        rows, columns = np.nonzero(labels == k)
        depth[rows, columns] = 1 - np.hypot(rows - row, columns - column) / (radius + 1)
    return ImageFeatures(
        foreground={
            1: ForegroundPrediction(np.where(labels > 0, 0.9, 0.05).astype(np.float32), depth)
        }
    )


@pytest.mark.parametrize("strategy", ["box", "mask", "kmedoids", "curriculum", "negatives"])
def test_a_strategy_is_asked_and_the_map_may_choose(strategy):
    work = worker(strategy=StrategySettings(strategy=strategy, choice="both"))
    if strategy == "box":  # the toy looks at points only
        answer = work.segmenter.answer
        work.segmenter.answer = lambda p: answer(Prompts([p.box_rc[:2] + 10], [True]))
    result = work.segment(IMAGE)
    assert len(result.scores) == 2
    np.testing.assert_array_equal(result.labels > 0, truth() > 0)
    assert result.agreement == {1: 0.7}
    assert any(p.box_rc is not None for p, _ in work.segmenter.asked) == (
        strategy in ("box", "curriculum")
    )


def test_by_score_alone_the_surer_mask_of_everything_wins():
    result = worker(strategy=StrategySettings(strategy="distance", choice="score")).segment(IMAGE)
    assert (result.labels > 0).all()


def test_a_finders_objects_are_asked_by_box_point_and_map():
    work = by_both()
    result = work.predict_masks(IMAGE, seen())
    np.testing.assert_array_equal(result.labels > 0, truth() > 0)
    prompts, logits = work.segmenter.asked[-1]
    assert prompts.box_rc is not None
    assert logits is not None
    assert logits.max() > 0 > logits.min()
    assert result.agreement == {}
    np.testing.assert_allclose(result.heat_map.values.max(), 0.9, atol=1e-6)


def test_a_finder_has_its_objects_and_map():
    assert len(by_both().predict_masks(IMAGE, seen()).objects) == 2
    assert worker().heat_map(seen(), IMAGE.shape).values[20, 20] > 0.8


def test_refinements_are_done(monkeypatch):
    real = Discs.answer

    def with_thread(self, prompts):
        found = real(self, prompts)
        found.masks[0, 30] = True  # a thread across the image
        return found

    monkeypatch.setattr(Discs, "answer", with_thread)
    areas = []
    for radius in (0, 2):
        refine = RefineSettings(smooth_px=radius)
        work = by_both(refine=refine)
        areas.append((work.segment(IMAGE).labels[30] > 0).sum())
    assert areas[0] == SHAPE[1]
    assert areas[1] < 40


def test_what_does_not_find_the_reference_back_is_dropped():
    found = {}
    for least in (0.5, 1.0):
        refine = RefineSettings(min_consistency=least)
        work = by_both(refine=refine)
        work.prompter.maps = lambda references, image: {
            1: 0.6 * (truth() == 1) + 0.4 * (truth() == 2)
        }
        found[least] = len(work.segment(IMAGE).scores)
    assert found == {0.5: 2, 1.0: 0}


def test_limits_of_the_references_hold():
    work = worker(
        strategy=StrategySettings(strategy="distance", choice="score"),
        refine=RefineSettings(limits=True),
    )
    many = Reference("m", IMAGE, (), truth([(10 + 14 * i, 10, 4) for i in range(4)]))
    work.prompter.references = (many,)
    assert len(work.segment(IMAGE).scores) == 0  # the whole image is no such object


def test_map_cut_decides_what_of_the_finders_map_is_an_object():
    look = seen()
    faint = np.where(truth() == 2, 0.3, look.foreground[1].foreground_prob).astype(np.float32)
    look = ImageFeatures(
        foreground={1: ForegroundPrediction(faint, look.foreground[1].distance_map)}
    )
    work = by_both()
    assert len(work.predict_masks(IMAGE, look).scores) == 1
    assert (
        len(work.predict_masks(IMAGE, look, SegmentSettings(map_cut=0.2, map_core=0.0)).scores) == 2
    )
    assert len(work.predict_masks(IMAGE, look, peaks=PeakSettings(threshold=0.2)).scores) == 1


def test_specks_of_the_finders_map_are_no_objects():
    look = seen()
    inside = look.foreground[1].foreground_prob.copy()
    inside[5, 70] = 0.9
    speck = ImageFeatures(
        foreground={1: ForegroundPrediction(inside, look.foreground[1].distance_map)}
    )
    work = by_both(finder=SimpleNamespace(side_px=80))
    assert len(work.predict_masks(IMAGE, speck).scores) == 2


def test_finding_back_looks_at_the_clicks_of_one_class_only():
    refine = RefineSettings(min_consistency=0.9)
    work = by_both(refine=refine)
    one, other = work.prompter.references[0].objects
    two = Prompts(other.points_rc, other.is_foreground, label=2)
    work.prompter.references = (Reference("r", IMAGE, (one, two), truth()),)
    work.prompter.maps = lambda references, image: {1: (truth() == 1).astype(np.float32)}
    assert len(work.segment(IMAGE).scores) == 2


def test_masks_that_a_method_brings_are_joined_as_asked():
    clicked = Prompts(np.array([[20.0, 20.0]]), np.array([True]), label=3)
    brought = Segmentation(truth(), np.array([0.9, 0.3]), (clicked, clicked))
    look = ImageFeatures(proposal=PromptProposal(brought.objects, answer=brought))
    image = np.zeros((*SHAPE, 3), np.uint8)
    found = worker().predict_masks(image, look, SegmentSettings(instances=False, min_score=0.5))
    np.testing.assert_array_equal(found.labels, np.where(truth() == 1, 3, 0))
    assert len(found.scores) == 1


# --- larger than the references -------------------------------------------------------------------


class Reds:
    """A finder, a prompter's map and a segmenter that go by red: how red, and what is connected."""

    name, side_px, weights_sha256 = "reds", 64, ""

    def predict(self, image):
        red = image[..., 0].astype(np.float32) / 255
        return {1: ForegroundPrediction(red, red)}

    def maps_and_agreement(self, references, image):
        return {1: image[::2, ::2, 0].astype(np.float32)}, {1: 0.5}

    def candidates(self, image, objects, *, multimask=True, logits=None):
        masks = [flood(image[..., 0] > 30, tuple(p.points_rc[0].astype(int))) for p in objects]
        small = np.zeros((1, 8, 8), np.float32)
        return [Candidates(m[None], np.array([0.9], np.float32), small) for m in masks]

    def segment(self, image, objects, *, settings=None):
        masks = [c.masks[0] for c in self.candidates(image, objects)]
        return join(masks, [0.9] * len(masks), objects, shape=image.shape[:2])


class RedMaps(Maps):
    maps_and_agreement = Reds.maps_and_agreement

    def heat_map(self, maps, shape):
        return None

    def proposal(self, maps, shape, settings=None):
        values = np.kron(maps[1], np.ones((2, 2), np.float32))
        points = to_points(
            HeatMap(values), threshold=0.5, normalise=settings.normalise,
            subtract_background=settings.subtract_background,
        )  # fmt: skip
        return PromptProposal(tuple(Prompts([p], [True]) for p in points))


def large_image():
    """Discs, one of them over a seam, a faint one far from the others, and empty tiles."""
    places = [(30, 30, 10), (40, 82, 12), (150, 200, 12)]
    labels = truth(places, (200, 300))
    image = np.zeros((200, 300, 3), np.uint8)
    image[labels > 0, 0] = 250
    faint = truth([(40, 250, 9)], (200, 300)) > 0
    image[faint, 0] = 110
    return image, labels


@pytest.mark.parametrize("finder", [Reds(), None], ids=["finder", "references' map"])
def test_a_large_image_is_cut_and_an_empty_tile_stays_empty(finder):
    image, labels = large_image()
    predictor = ImagePredictor(RedMaps(), Reds(), SegmentSettings(tile_px=80), finder)
    steps = []
    result = run_job(predictor.segment_job(image), steps.append)
    assert len(result.objects) == 3
    np.testing.assert_array_equal(result.labels > 0, labels > 0)
    assert len({step.message for step in steps}) == len(steps) > 10


@pytest.mark.parametrize(
    ("finder", "tile_px"),
    [(Reds(), 80), (None, 80), (Reds(), 0)],
    ids=["finder", "references' map", "seen as a whole"],
)
def test_an_image_read_in_parts_gives_the_same_labels(tmp_path, finder, tile_px):
    image, _ = large_image()
    read = []

    def part(rows, columns):
        read.append(image[rows, columns].size)
        return image[rows, columns]

    settings = SegmentSettings(tile_px=tile_px)
    predictor = ImagePredictor(RedMaps(), Reds(), settings, finder, scratch=tmp_path)
    whole = predictor.segment(image)
    lazy = run_job(predictor.segment_job(LazyImage(image.shape, part)))
    np.testing.assert_array_equal(lazy.labels, whole.labels)
    assert lazy.scores.tolist() == whole.scores.tolist()
    assert max(read) == (80 * 80 * 3 if tile_px else image.size)


def test_a_tile_is_of_the_references_size_and_what_was_done_is_said():
    predictor = ImagePredictor(RedMaps(), Reds(), SegmentSettings(), Reds())
    large = np.zeros((100, 2100, 3), np.uint8)
    assert predictor.tile_side(large.shape) == 80
    assert "80 px" in run_job(predictor(None, large)).remarks[0]
    for shape, said in [((100, 300), "--tile-px 80"), ((20, 30), "too large"), ((70, 90), "")]:
        assert said in predictor.size_remark(shape)
        assert bool(said) == bool(predictor.size_remark(shape))


def test_a_method_that_always_answers_is_not_cut_unless_asked():
    predictor = ImagePredictor(RedMaps(), Reds(), SegmentSettings(), other=RedMaps())
    assert predictor.tile_side((3000, 3000, 3)) is None
    assert "--tile-px" in predictor.size_remark((3000, 3000, 3))
