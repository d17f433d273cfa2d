"""Contracts to layers, without a window."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from napari_samic.gui.plugin.sample_data import sample_scenes


@pytest.fixture
def two_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    def scene(value: int) -> SimpleNamespace:
        image = np.full((4, 6, 3), value, np.uint8)
        return SimpleNamespace(name=f"s{value}", image=image, truth=np.full((4, 6), value, "i4"))

    module = ModuleType("napari_samic.sample_data.samples")
    monkeypatch.setattr(module, "sample_set", lambda: (scene(1), scene(2)), raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_scenes_open_as_one_stack_in_order(two_scenes: None) -> None:
    (images, options, kind), _ = sample_scenes()
    assert (images.shape, images.dtype, kind) == ((2, 4, 6, 3), np.uint8, "image")
    assert images[:, 0, 0, 0].tolist() == [1, 2]
    assert options["metadata"]["names"] == ["s1", "s2"]


def test_truth_is_a_hidden_labels_layer(two_scenes: None) -> None:
    _, (truth, options, kind) = sample_scenes()
    assert (truth.shape, truth.dtype, kind) == ((2, 4, 6), np.int32, "labels")
    assert truth[:, 0, 0].tolist() == [1, 2]
    assert options["visible"] is False


def test_napari_accepts_the_layers(two_scenes: None) -> None:
    layers = pytest.importorskip("napari.layers")
    made = [layers.Layer.create(*data) for data in sample_scenes()]
    assert [type(layer).__name__ for layer in made] == ["Image", "Labels"]
    assert made[0].ndim == made[1].ndim == 3
