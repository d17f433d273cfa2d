"""Where the prompter's features come from: the segmenter, or a timm network."""

from contextlib import contextmanager

import numpy as np
import PIL.Image
import pytest
import timm
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from toy_sam import picture, random_sam

from napari_samic.core.errors import InputError, ModelError
from napari_samic.io.cache import ArrayCache
from napari_samic.models.features import backbones
from napari_samic.models.features.timm_weights import from_file
from napari_samic.models.hub import registry
from napari_samic.models.sam.segmenter import SamSegmenter

NETWORKS = ["resnet50", "test_convnext", "test_vit"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file for each network in timm's format, with weights of ours."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name in (*NETWORKS, "test_resnet"):
        network = timm.create_model(name, pretrained=False)
        torch.save(network.state_dict(), folder / f"{name}-1.pth")
    return folder


@pytest.fixture
def resnet(files):
    """`path:FILE` of a small one."""
    return f"path:{files}/test_resnet-1.pth"


@pytest.fixture(scope="module")
def segmenter():
    return SamSegmenter(random_sam(), name="toy", weights_sha256="ab", device="cpu")


def assert_equal(a, b):
    assert [len(level) for level in a] == [len(level) for level in b]
    for x, y in zip(a, b, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(x, y, strict=True))


@pytest.mark.parametrize(
    ("name", "side_px", "wanted"),
    [
        pytest.param("resnet50", 224, [(4, 512, 28), (6, 1024, 14), (3, 2048, 7)], id="resnet50"),
        pytest.param("test_convnext", 160, [(2, 32, 20), (4, 48, 10), (2, 64, 5)], id="convnext"),
        pytest.param("test_vit", 160, [(3, 64, 20), (3, 64, 10), (3, 64, 5)], id="transformer"),
    ],
)
def test_network_gives_its_blocks_fine_to_coarse(files, name, side_px, wanted):
    path = files / f"{name}-1.pth"
    backbone = backbones.build(f"path:{path}", None, device="cpu")
    image = picture((50, 90))
    in_sixteen_bits = backbone.features(image)
    backbone.quick = False
    levels = backbone.features(image)
    assert [(len(x), *x[0].shape) for x in levels] == [(n, 1, c, g, g) for n, c, g in wanted]
    assert (backbone.input_px, backbone.map_px) == (side_px, side_px)
    plain = from_file(path).eval()
    squeezed = np.asarray(PIL.Image.fromarray(image).resize((side_px, side_px), 2), np.float32)
    x = (torch.tensor(squeezed) - torch.tensor(plain.mean)) / torch.tensor(plain.deviation)
    with torch.no_grad():
        maps = plain.levels(plain.blocks(x.permute(2, 0, 1)[None]), (side_px, side_px))
    for a, b in zip(levels, maps, strict=True):
        for y, z in zip(a, b, strict=True):
            assert y.dtype == torch.float32
            torch.testing.assert_close(y, z, atol=2e-3 * float(z.abs().max()), rtol=0)
    for a, b in zip(levels, in_sixteen_bits, strict=True):
        for y, z in zip(a, b, strict=True):
            torch.testing.assert_close(y, z, atol=0.03 * float(z.abs().max()), rtol=0)
    assert (backbone.name, backbone.weights_sha256) == (
        f"path:{path}", registry.weights_sha256(f"path:{path}"),
    )  # fmt: skip
    assert backbone.device == torch.device("cpu")


def test_grids_of_a_large_transformer_are_those_of_the_segmenter(tmp_path):
    """DINOv2's 518 pixels are 37 cells to a side, which do not double from level to level."""
    name = "vit_small_patch14_reg4_dinov2"
    torch.save(timm.create_model(name, pretrained=False).state_dict(), tmp_path / f"{name}-1.pth")
    backbone = backbones.build(f"path:{tmp_path}/{name}-1.pth", None, device="cpu")
    assert (backbone.input_px, backbone.map_px) == (518, 518)
    found = [x[0].shape[-1] for x in backbone.features(picture((50, 90)))]
    assert found == [32, 16, 8]


@contextmanager
def counted_passes():
    """Convolutions of a picture's three channels: one a pass of the network."""
    passes = []

    def convolved(module, *_):
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            passes.append(module)

    handle = register_module_forward_hook(convolved)
    yield passes
    handle.remove()


def test_cache_hit_equals_the_miss_and_spares_the_network(resnet, tmp_path, monkeypatch):
    image = picture((50, 90))
    first = backbones.build(resnet, None, device="cpu", cache=ArrayCache(tmp_path))
    missed = first.features(image)
    again = backbones.build(resnet, None, device="cpu", cache=ArrayCache(tmp_path))
    with counted_passes() as passes:
        assert_equal(again.features(image), missed)
        assert not passes
        again.features(picture((50, 90), seed=1))
        assert len(passes) == 1
    uncached = backbones.build(resnet, None, device="cpu")
    with counted_passes() as passes:
        assert_equal(uncached.features(image), missed)
        assert_equal(uncached.features(image), missed)
        assert len(passes) == 1


def test_other_weights_miss_the_cache(resnet, tmp_path):
    backbones.build(resnet, None, device="cpu", cache=ArrayCache(tmp_path)).features(picture())
    torch.manual_seed(1)
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    torch.save(state, tmp_path / "test_resnet.pth")
    other = backbones.build(
        f"path:{tmp_path}/test_resnet.pth", None, device="cpu", cache=ArrayCache(tmp_path)
    )
    with counted_passes() as passes:
        other.features(picture())
    assert len(passes) == 1


def test_features_can_be_trained_on(resnet):
    backbone = backbones.build(resnet, None, device="cpu")
    weight = torch.ones(1, requires_grad=True)
    (backbone.features(picture())[2][0] * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((4, 4), np.uint8), id="grey"),
        pytest.param(np.zeros((4, 4, 4), np.uint8), id="rgba"),
        pytest.param(np.zeros((4, 4, 3), np.float32), id="float"),
        pytest.param(np.zeros((0, 4, 3), np.uint8), id="empty"),
    ],
)
def test_other_images_are_refused(resnet, image):
    with pytest.raises(InputError, match="expected uint8"):
        backbones.build(resnet, None, device="cpu").features(image)


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


def test_unknown_encoder_is_refused():
    with pytest.raises(ModelError, match=r"'vgg': timm has none of this name.*vgg16"):
        backbones.build("vgg", None)


@pytest.mark.parametrize(
    ("shape", "padded"),
    [
        ((40, 90, 3), (90, 90)),
        ((90, 40, 3), (90, 90)),
        ((64, 64), (64, 64)),
    ],
)
def test_frames_are_the_longest_square_or_the_image_itself(segmenter, resnet, shape, padded):
    assert backbones.build("segmenter", segmenter).frame(shape) == padded
    assert backbones.build(resnet, None, device="cpu").frame(shape) == tuple(shape[:2])


def test_frame_of_the_segmenter_is_where_its_input_lies(segmenter):
    """The share of the frame that an image fills is the share of the input that is not padding."""
    image = np.zeros((32, 64, 3), np.uint8)
    frame = backbones.build("segmenter", segmenter).frame(image.shape)
    assert segmenter.taps(image).valid_rc == (32 / frame[0], 64 / frame[1])
