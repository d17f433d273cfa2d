"""What an instrument sees of a picture, and that nothing is found in the frame around it."""

import doctest
import inspect

import numpy as np
import pytest
import torch

from napari_samic.core.settings import AdaptSettings
from napari_samic.core.types import run_job
from napari_samic.models.features.reference_masks import InstanceMasks
from napari_samic.models.finetune import dataset, encoder, network
from napari_samic.models.finetune.dataset import ReferenceSample
from napari_samic.models.finetune.field_of_view import field_of_view
from napari_samic.models.finetune.network import ForegroundPredictor

RNG = np.random.default_rng(0)


def disc(shape, middle, radius):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 <= radius**2


def picture(lit):
    image = RNG.integers(0, 20, (*lit.shape, 3)).astype(np.uint8)
    image[lit] += np.uint8(60)
    return image


ROUND = picture(disc((120, 160), (60, 70), 50))


def test_examples_of_the_docstrings_hold():
    assert doctest.testmod(inspect.getmodule(field_of_view)).failed == 0


def test_round_field_loses_its_frame():
    rows, columns = field_of_view(ROUND)
    assert 10 <= rows.start <= 16
    assert 104 <= rows.stop <= 111
    assert 20 <= columns.start <= 26
    assert 114 <= columns.stop <= 121


@pytest.mark.parametrize(
    "lit",
    [
        pytest.param(np.ones((40, 60), bool), id="all_bright"),
        pytest.param(np.zeros((40, 60), bool), id="all_dark"),
        pytest.param(disc((90, 90), (20, 20), 9) | disc((90, 90), (70, 60), 9), id="cells"),
    ],
)
def test_pictures_without_a_frame_stay_whole(lit):
    image = picture(lit)
    assert image[field_of_view(image)].shape == image.shape


def test_reference_is_learned_from_without_its_frame():
    numbers = disc((120, 160), (60, 70), 8).astype(np.int32)
    inner = ReferenceSample("p", ROUND, InstanceMasks(numbers, (1,))).field
    assert inner.image.shape[:2] == inner.instances.numbers.shape
    assert inner.image.shape[0] < 105
    assert inner.instances.numbers.sum() == numbers.sum()


def test_finder_looks_at_the_field_alone_and_finds_nothing_around_it():
    net = network.build(1)
    net.last.bias.data.fill_(4.0)  # sees objects everywhere
    seen = ForegroundPredictor(net.eval(), (1,), 64, torch.device("cpu")).predict(ROUND)[1]
    rows, columns = field_of_view(ROUND)
    assert seen.foreground_prob.shape == seen.distance_map.shape == (120, 160)
    assert seen.foreground_prob[rows, columns].min() > 0.1
    seen.foreground_prob[rows, columns] = 0
    assert not seen.foreground_prob.any()


def test_where_references_have_objects_in_the_frame_it_is_looked_at_too(monkeypatch):
    monkeypatch.setattr(dataset, "WINDOW_PX", 64)
    monkeypatch.setattr(dataset, "SIDES_PX", (64,))
    inside, outside = disc((120, 160), (60, 70), 8), disc((120, 160), (60, 145), 8)
    for numbers, wanted in ((inside, False), (inside | outside, True)):
        shown = ReferenceSample("p", ROUND, InstanceMasks(numbers.astype(np.int32), (1,)))
        quick = AdaptSettings(adapt_steps=1)
        finder, _ = run_job(
            encoder.finetune_encoder([shown], [1], quick, device=torch.device("cpu"))
        )
        again = ForegroundPredictor.unpack(finder.pack(), torch.device("cpu"))
        assert finder.whole == again.whole == wanted
        assert bool(again.predict(ROUND)[1].foreground_prob[:, -8:].any()) == wanted
