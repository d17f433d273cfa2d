"""The small head on frozen features: it learns at once, sees whole images, and is reproducible."""

import numpy as np
import pytest
import torch
from toy_references import sample
from toy_sam import picture

from napari_samic.core.errors import PromptError
from napari_samic.core.types import Reference
from napari_samic.evaluation.metrics import iou
from napari_samic.models.features.reference_masks import InstanceMasks
from napari_samic.models.prompters import instant, registry
from napari_samic.models.prompters.instant import Instant, InstantPredictor, surroundings
from napari_samic.models.sam.segmenter import SamSegmenter
from napari_samic.models.tiny import model


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    config = model.TinyConfig("test_efficientnet", 128, 16, (16, 24, 32, 40))
    return SamSegmenter(
        model.optimize_for_inference(model.build(config)), name="small", device="cpu"
    )


def discs(count, seed=0):
    rng = np.random.default_rng(seed)
    return [sample(str(i), (96, 128), [(*rng.integers(30, 66, 2), 16)]) for i in range(count)]


def fitted(segmenter, pages, seed=0):
    return InstantPredictor(segmenter, [p.image for p in pages], [p.instances for p in pages], seed)


def test_it_finds_the_references_objects_in_another_image(segmenter):
    [other] = discs(1, seed=7)
    seen = fitted(segmenter, discs(3)).predict(other.image)[1]
    truth = other.instances.numbers > 0
    assert iou(seen.foreground_prob > 0.5, truth) > 0.6
    assert seen.distance_map[truth].mean() > seen.distance_map[~truth].mean() + 0.2


def test_answers_are_at_the_size_of_the_image_and_in_bounds(segmenter):
    seen = fitted(segmenter, discs(2)).predict(picture((50, 131)))[1]
    assert seen.foreground_prob.shape == seen.distance_map.shape == (50, 131)
    assert 0 <= seen.foreground_prob.min() <= seen.foreground_prob.max() <= 1


def test_classes_have_maps_of_their_own(segmenter):
    two = [
        sample(str(i), (96, 128), [(48, 30, 16), (48, 95, 16)], classes=(1, 7)) for i in range(2)
    ]
    predictor = fitted(segmenter, two)
    assert predictor.labels == (1, 7)
    seen = predictor.predict(two[0].image)
    assert sorted(seen) == [1, 7]
    for label in (1, 7):
        truth = two[0].instances.by_class == label
        assert (
            seen[label].foreground_prob[truth].mean() > seen[label].foreground_prob[~truth].mean()
        )


def test_same_seed_gives_the_same_map(segmenter):
    image = discs(1, seed=3)[0].image
    first, again, other = (
        fitted(segmenter, discs(2), seed=s).predict(image)[1].foreground_prob for s in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_as_a_method_every_piece_is_an_object(segmenter):
    references = [Reference(p.name, p.image, (), p.instances.numbers) for p in discs(3)]
    method = registry.make("instant", segmenter, None, references, seed=1)
    assert isinstance(method, Instant)
    [other] = discs(1, seed=7)
    answer = method.propose((), other.image).answer
    assert iou(answer.labels > 0, other.instances.numbers > 0) > 0.6
    assert len(answer.objects) == answer.labels.max()


def test_without_a_reference_it_says_so(segmenter):
    with pytest.raises(PromptError, match="no reference"):
        registry.make("instant", segmenter).propose((), picture((64, 64)))


def test_what_is_not_known_is_not_learned_as_ground(segmenter):
    page = sample("a", (96, 128), [(30, 30, 14), (66, 98, 14)])
    numbers = page.instances.numbers * (page.instances.numbers == 1)
    part = InstanceMasks(numbers, (1,))
    whole = InstantPredictor(segmenter, [page.image], [part])
    partly = InstantPredictor(segmenter, [page.image], [part], known=[surroundings(numbers)])
    second = page.instances.numbers == 2
    seen = [p.predict(page.image)[1].foreground_prob[second].mean() for p in (whole, partly)]
    assert seen[1] > seen[0] + 0.2


def test_surroundings_of_an_object_are_a_quarter_of_its_size():
    numbers = np.zeros((60, 60), np.int32)
    numbers[30:36, 30:34] = 1
    known = surroundings(numbers)
    rows, columns = (np.flatnonzero(known.any(axis)) for axis in (1, 0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (28, 37, 28, 35)
    assert not surroundings(np.zeros((9, 9), np.int32)).any()


def test_a_fit_that_nobody_wants_ends_at_once(segmenter):
    pages = discs(1)
    asked = []
    InstantPredictor(
        segmenter,
        [pages[0].image],
        [pages[0].instances],
        stop=lambda: bool(asked.append(1)) or True,
    )
    assert len(asked) == 1


def test_images_that_were_seen_before_are_not_looked_at_again(segmenter, monkeypatch):
    looked = []
    embedding = segmenter.embedding
    monkeypatch.setattr(segmenter, "embedding", lambda image: looked.append(1) or embedding(image))
    pages, kept = discs(2), {}
    for count in (1, 2, 2):
        InstantPredictor(
            segmenter,
            [p.image for p in pages[:count]],
            [p.instances for p in pages[:count]],
            stop=lambda: True,
            kept=kept,
        )
    assert len(looked) == 2
    monkeypatch.setattr(instant, "KEPT", 1)
    fit = InstantPredictor(segmenter, [pages[0].image], [pages[0].instances], kept=kept)
    assert len(kept) == 1
    fit.predict(pages[0].image)
    assert len(looked) == 2
