"""Where the prompter's features come from: the segmenter, or a file of ResNet-50."""

import hashlib

import numpy as np
import pytest
import torch
from toy_sam import picture, random_sam

from napari_samic.cache import ArrayCache
from napari_samic.errors import FormatError, ModelError, WeightsError
from napari_samic.models import backbones, registry
from napari_samic.models.resnet50 import ResNet50Taps, preprocess
from napari_samic.models.sam import SamSegmenter


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A file as torchvision publishes it, with weights of ours."""
    torch.manual_seed(0)
    state = ResNet50Taps().body.state_dict()
    path = tmp_path_factory.mktemp("weights") / "resnet50-fabricated.pth"
    torch.save({**state, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, path)
    return path


@pytest.fixture
def located(official, monkeypatch):
    """The registry finds that file."""
    sha256 = hashlib.sha256(official.read_bytes()).hexdigest()
    monkeypatch.setattr(registry, "locate", lambda name: official)
    monkeypatch.setattr(registry, "weights_sha256", lambda name: sha256)
    return sha256


@pytest.fixture(scope="module")
def segmenter():
    return SamSegmenter(random_sam(), name="toy", weights_sha256="ab", device="cpu")


def assert_equal(a, b):
    assert [len(level) for level in a] == [len(level) for level in b]
    for x, y in zip(a, b, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(x, y, strict=True))


def test_resnet_gives_its_blocks_fine_to_coarse(official, located):
    backbone = backbones.build("resnet50", None, device="cpu")
    image = picture((50, 90))
    levels = backbone.features(image)
    assert [(len(x), *x[0].shape) for x in levels] == [
        (4, 1, 512, 28, 28),
        (6, 1, 1024, 14, 14),
        (3, 1, 2048, 7, 7),
    ]
    plain = ResNet50Taps.load(official)(preprocess(image, 224))
    for a, b in zip(levels, plain, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x.dtype == torch.float32
            torch.testing.assert_close(x, y, atol=2e-3 * float(y.abs().max()), rtol=0)
    assert (backbone.name, backbone.weights_sha256) == ("resnet50", located)
    assert backbone.device == torch.device("cpu")


def test_cache_hit_equals_the_miss_and_spares_the_network(located, tmp_path, monkeypatch):
    image = picture((50, 90))
    first = backbones.build("resnet50", None, device="cpu", cache=ArrayCache(tmp_path))
    missed = first.features(image)
    again = backbones.build("resnet50", None, device="cpu", cache=ArrayCache(tmp_path))
    passes = []
    again._network.register_forward_hook(lambda *_: passes.append(1))
    assert_equal(again.features(image), missed)
    assert not passes
    again.features(picture((50, 90), seed=1))
    assert passes == [1]
    assert_equal(backbones.build("resnet50", None, device="cpu").features(image), missed)


def test_other_weights_miss_the_cache(located, tmp_path, monkeypatch):
    backbones.build("resnet50", None, device="cpu", cache=ArrayCache(tmp_path)).features(picture())
    monkeypatch.setattr(registry, "weights_sha256", lambda name: "other")
    other = backbones.build("resnet50", None, device="cpu", cache=ArrayCache(tmp_path))
    passes = []
    other._network.register_forward_hook(lambda *_: passes.append(1))
    other.features(picture())
    assert passes == [1]


def test_features_can_be_trained_on(located):
    backbone = backbones.build("resnet50", None, device="cpu")
    weight = torch.ones(1, requires_grad=True)
    (backbone.features(picture())[2][0] * weight).sum().backward()
    assert weight.grad is not None


def test_resnet_that_is_not_here_is_told():
    with pytest.raises(WeightsError, match="resnet50"):
        backbones.build("resnet50", None, device="cpu")


def test_file_of_another_network_is_refused(located, tmp_path, monkeypatch):
    torch.save({"a": torch.zeros(1)}, tmp_path / "wrong.pth")
    monkeypatch.setattr(registry, "locate", lambda name: tmp_path / "wrong.pth")
    with pytest.raises(FormatError, match=r"wrong\.pth: not the weights of ResNet-50"):
        backbones.build("resnet50", None, device="cpu")


def test_segmenters_own_features_are_its_taps(segmenter):
    backbone = backbones.build("segmenter", segmenter)
    image = picture((48, 70))
    assert_equal(backbone.features(image), segmenter.taps(image).levels)
    assert (backbone.name, backbone.weights_sha256) == ("toy", "ab")
    assert (backbone.input_px, backbone.map_px) == (64, 256)
    assert backbone.device == torch.device("cpu")


def test_segmenter_without_features_is_refused():
    class Plain:
        name = "plain"

    with pytest.raises(ModelError, match=r"plain: has no features to compare.*resnet50"):
        backbones.build("segmenter", Plain())


def test_unknown_backbone_is_refused():
    with pytest.raises(ModelError, match="vgg"):
        backbones.build("vgg", None)


@pytest.mark.parametrize(
    ("shape", "padded"),
    [
        ((40, 90, 3), (90, 90)),
        ((90, 40, 3), (90, 90)),
        ((64, 64), (64, 64)),
    ],
)
def test_frames_are_the_longest_square_or_the_image_itself(segmenter, located, shape, padded):
    assert backbones.build("segmenter", segmenter).frame(shape) == padded
    assert backbones.build("resnet50", None, device="cpu").frame(shape) == tuple(shape[:2])


def test_frame_of_the_segmenter_is_where_its_input_lies(segmenter):
    """The share of the frame that an image fills is the share of the input that is not padding."""
    image = np.zeros((32, 64, 3), np.uint8)
    frame = backbones.build("segmenter", segmenter).frame(image.shape)
    assert segmenter.taps(image).valid_rc == (32 / frame[0], 64 / frame[1])
