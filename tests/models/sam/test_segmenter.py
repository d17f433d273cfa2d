"""Segmenters of SAM's kind: prompts to masks, equal to segment-anything's own predictor."""

import gc
from weakref import WeakValueDictionary

import numpy as np
import pytest
from segment_anything import SamPredictor
from toy_sam import FullMemory, assert_same, box, picture, point, random_sam

from napari_samic.core.errors import InputError, ModelError, PromptError
from napari_samic.core.settings import SegmentSettings
from napari_samic.core.types import Prompts, Segmenter
from napari_samic.models.sam import segmenter as sam_segmenter
from napari_samic.models.sam.segmenter import SamSegmenter

SHAPES = [
    pytest.param((48, 70), id="wide"),
    pytest.param((91, 37), id="tall"),
    pytest.param((64, 64), id="square"),
    pytest.param((3, 200), id="sliver"),
]


@pytest.fixture(scope="module")
def network():
    return random_sam()


@pytest.fixture
def segmenter(network):
    segmenter = SamSegmenter(network, name="toy", weights_sha256="ab", device="cpu")
    segmenter.engine.quick = False  # as segment-anything computes
    return segmenter


MIXED = [
    point(10, 20),
    box(4, 5, 30, 40),
    point(30, 60, (5, 5, False)),
    Prompts(np.array([[20.0, 20.0]]), np.array([True]), np.array([1.0, 2.0, 40.0, 50.0])),
    point(40, 3),
    box(0, 0, 47, 69),
    point(1, 1),
]


def predictor_answers(network, image, prompts, *, multimask=True, logits=None):
    predictor = SamPredictor(network)
    predictor.set_image(image)
    points = prompts.points_rc[:, ::-1].copy() if len(prompts.points_rc) else None
    corners = prompts.box_rc
    return predictor.predict(
        points,
        prompts.is_foreground.astype(int) if points is not None else None,
        None if corners is None else corners[[1, 0, 3, 2]],
        None if logits is None else logits[None],
        multimask_output=multimask,
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("multimask", [True, False])
def test_answers_equal_segment_anythings_predictor(network, segmenter, shape, multimask):
    image, (rows, columns) = picture(shape), shape
    for prompts in (
        point(rows / 2, columns / 3),
        point(0, 0, (rows - 1, columns - 1, False)),
        box(0, 1, rows - 1.5, columns - 2),
    ):
        expected = predictor_answers(network, image, prompts, multimask=multimask)
        [got] = segmenter.candidates(image, [prompts], multimask=multimask)
        assert_same(got, *expected)
        assert got.masks.shape == (3 if multimask else 1, *shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_embedding_comes_without_the_padding(network, segmenter, shape):
    values = segmenter.embedding(picture(shape))
    predictor = SamPredictor(network)
    predictor.set_image(picture(shape))
    _, rows, columns = values.shape
    whole = predictor.get_image_embedding()[0].numpy()
    np.testing.assert_allclose(values, whole[:, :rows, :columns], atol=1e-5)
    sides = [max(1, round(4 * n / max(shape))) for n in shape]
    assert [rows, columns] == sides


def test_mask_prompt_equals_the_predictors(network, segmenter):
    image, prompts = picture(), point(10, 20)
    [first] = segmenter.candidates(image, [prompts])
    earlier = first.logits[first.best]
    [second] = segmenter.candidates(image, [prompts], logits=[earlier])
    assert_same(second, *predictor_answers(network, image, prompts, logits=earlier))
    assert np.abs(second.logits - first.logits).max() > 1e-3


def test_order_is_kept_with_mixed_prompts_and_batches_equal_single_ones(segmenter):
    image = picture()
    earlier = [None] * len(MIXED)
    earlier[4] = np.random.default_rng(1).normal(size=(16, 16)).astype(np.float32)
    together = segmenter.candidates(image, MIXED, logits=earlier)
    for prompts, one_earlier, answer in zip(MIXED, earlier, together, strict=True):
        [alone] = segmenter.candidates(image, [prompts], logits=[one_earlier])
        assert_same(answer, alone.masks, alone.scores, alone.logits)


def test_batch_size_changes_nothing(network):
    image, objects = picture(), [point(r, c) for r in (3, 20, 40) for c in (5, 30, 60)]
    one = SamSegmenter(network, name="toy", device="cpu", batch_size=1)
    many = SamSegmenter(network, name="toy", device="cpu", batch_size=256)
    for a, b in zip(one.candidates(image, objects), many.candidates(image, objects), strict=True):
        assert_same(a, b.masks, b.scores, b.logits)


def test_segment_decodes_as_many_at_once_as_its_owner_says():
    segmenter = SamSegmenter(random_sam(), name="toy", device="cpu", batch_size=2)
    memory = FullMemory(segmenter.engine.network, limit=99)
    objects = [point(r, 5) for r in range(7)]
    segmenter.segment(picture(), objects, settings=SegmentSettings(tell_apart=False))
    segmenter.candidates(picture(), objects)
    assert memory.batches == [2, 2, 2, 1] * 2


def test_a_processor_decodes_two_at_once_unless_told():
    segmenter = SamSegmenter(random_sam(), name="toy", device="cpu")
    memory = FullMemory(segmenter.engine.network, limit=99)
    segmenter.segment(picture(), [point(r, 5) for r in (1, 20, 40)])
    assert memory.batches[:2] == [2, 1]


def test_scores_stay_in_the_unit_interval():
    segmenter = SamSegmenter(random_sam(), name="toy", device="cpu")
    segmenter.engine.network.mask_decoder.iou_prediction_head.layers[-1].bias.fill_(5.0)
    [answer] = segmenter.candidates(picture(), [point(3, 3)])
    assert (answer.scores == 1.0).all()


def test_it_is_a_segmenter(segmenter):
    assert isinstance(segmenter, Segmenter)


def test_no_object_gives_no_candidate_and_background(segmenter):
    assert segmenter.candidates(picture(), []) == []
    found = segmenter.segment(picture(), [])
    assert found.labels.shape == (48, 70)
    assert not found.labels.any()


@pytest.mark.parametrize(
    ("objects", "logits", "match"),
    [
        pytest.param(
            [point(3, 3), Prompts(np.array([[1.0, 1.0]]), np.array([False]))],
            None, "object 2: no positive point and no box", id="only_negative",
        ),
        pytest.param([point(48, 3)], None, "object 1: prompt at row 48", id="outside"),
        pytest.param([box(0, 0, 47, 70)], None, "column 70 is outside", id="box_outside"),
        pytest.param([point(1, 1)], [np.zeros((8, 8))], "logits of", id="logits_shape"),
        pytest.param([point(1, 1)], [np.full((16, 16), np.nan)], "finite", id="logits_nan"),
        pytest.param([point(1, 1)], [], "0 logits for 1 objects", id="logits_number"),
    ],
)  # fmt: skip
def test_prompts_that_make_no_sense_are_refused(segmenter, objects, logits, match):
    with pytest.raises(PromptError, match=match):
        segmenter.candidates(picture(), objects, logits=logits)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((4, 4), np.uint8), id="grey"),
        pytest.param(np.zeros((4, 4, 4), np.uint8), id="rgba"),
        pytest.param(np.zeros((4, 4, 3), np.uint16), id="uint16"),
        pytest.param(np.zeros((4, 4, 3)), id="float"),
        pytest.param(np.zeros((0, 4, 3), np.uint8), id="no_pixel"),
        pytest.param([[1]], id="list"),
    ],
)
@pytest.mark.parametrize("verb", ["candidates", "segment"])
def test_other_images_are_refused(segmenter, image, verb):
    with pytest.raises(InputError, match=r"expected uint8 \(H, W, 3\)"):
        getattr(segmenter, verb)(image, [])


def test_reversed_and_read_only_images_are_taken(segmenter):
    image = picture()
    turned = image[::-1, ::-1]
    turned.setflags(write=False)
    [got] = segmenter.candidates(turned, [point(3, 3)])
    [same] = segmenter.candidates(turned.copy(), [point(3, 3)])
    assert_same(got, same.masks, same.scores, same.logits)


def test_segment_takes_the_best_mask_of_each_object(segmenter):
    image, objects = picture(), [point(10, 20), box(4, 5, 30, 40)]
    answers = segmenter.candidates(image, objects)
    for settings, multimask in ((None, True), (SegmentSettings(mask_choice="single"), False)):
        answers = segmenter.candidates(image, objects, multimask=multimask)
        found = segmenter.segment(image, objects, settings=settings)
        for k, prompts in enumerate(found.objects):
            answer = answers[objects.index(prompts)]
            assert answer.masks[answer.best][found.labels == k + 1].all()
            assert found.scores[k] == answer.scores[answer.best]


def test_segment_heeds_its_settings(segmenter):
    image, objects = picture(), [point(10, 20, label=4), point(40, 60, label=9)]
    union = segmenter.segment(image, objects, settings=SegmentSettings(instances=False))
    assert set(np.unique(union.labels)) <= {0, 4, 9}
    none = segmenter.segment(image, objects, settings=SegmentSettings(min_score=1.0))
    assert none.objects == ()


def test_same_mask_twice_is_one_object_when_asked(segmenter):
    twice, once = [point(10, 20), point(10, 20)], SegmentSettings(duplicate_iou=0.8)
    assert len(segmenter.segment(picture(), twice, settings=once).objects) <= 1


@pytest.mark.parametrize(("sure", "told"), [(0.9, True), (0.3, False)])
def test_touching_objects_are_asked_apart_if_that_is_no_less_sure(
    segmenter, monkeypatch, sure, told
):
    def surest(encoded, questions, settings):
        objects = [q.prompts for q in questions]
        masks = [np.zeros(encoded.image_hw, bool) for _ in objects]
        for mask, prompts in zip(masks, objects, strict=True):
            column = int(prompts.points_rc[0, 1])
            alone = prompts.is_foreground.all() and column == 10
            mask[:, max(0, column - 8) : 70 if alone else column + 8] = True
        return masks, [0.5 if o.is_foreground.all() else sure for o in objects]

    monkeypatch.setattr(segmenter, "_highest_scored", surest)
    asked = [point(20, 10), point(20, 50)]
    found = segmenter.segment(picture(), asked)
    assert len(found.objects) == (2 if told else 1)  # else the second is covered, and dropped
    assert found.objects[0] is asked[0]
    plain = segmenter.segment(picture(), asked, settings=SegmentSettings(tell_apart=False))
    assert len(plain.objects) == 1


def test_encoder_is_no_segmenter():
    with pytest.raises(ModelError, match="resnet50: is an encoder"):
        sam_segmenter.build("resnet50")


def test_network_is_loaded_once_for_all_who_answer_on_the_cpu(monkeypatch):
    loads = []
    builder = sam_segmenter.registry.builder
    monkeypatch.setattr(
        sam_segmenter.registry,
        "builder",
        lambda name: lambda path: loads.append(name) or builder(name)(path),
    )
    monkeypatch.setattr(sam_segmenter, "_in_use", WeakValueDictionary())
    first, second = (
        sam_segmenter.build("tiny", device="cpu"),
        sam_segmenter.build("tiny", device="cpu"),
    )
    assert loads == ["tiny"]
    image, prompts = picture((40, 60)), [point(10, 20)]
    one, other = first.candidates(image, prompts)[0], second.candidates(image, prompts)[0]
    assert np.array_equal(one.logits, other.logits)
    del first, second
    gc.collect()
    sam_segmenter.build("tiny", device="cpu")
    assert loads == ["tiny", "tiny"]  # nobody used it any more


def test_unknown_segmenter_gets_a_suggestion():
    with pytest.raises(ModelError, match=r"Did you mean mobile_sam\?"):
        sam_segmenter.load_segmenter("mobilesam")


def test_other_packages_segmenter_is_made(monkeypatch, segmenter):
    monkeypatch.setattr(
        sam_segmenter.registry, "plugins", lambda kind: {"theirs": lambda: segmenter}
    )
    assert sam_segmenter.load_segmenter("theirs") is segmenter
