"""The frozen backbone: taps, files, preprocessing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_samic.errors import FormatError, InputError, WeightsError
from napari_samic.models.resnet50 import ResNet50Taps, preprocess

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "hsnet_golden.npz"


def golden_value(index, name, shape):
    """Weights as the golden README builds them, from the place in the state dict."""
    r = np.random.RandomState(1000 + index)
    if len(shape) == 4:
        return r.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    if name.endswith("running_var"):
        return 0.5 + r.rand(*shape)
    if name.endswith("running_mean"):
        return 0.1 * r.standard_normal(shape)
    return 0.2 + 0.4 * r.rand(*shape) if name.endswith("weight") else 0.2 * r.standard_normal(shape)


@pytest.fixture(scope="module")
def state():
    given = ResNet50Taps().body.state_dict()
    values = {
        name: golden_value(i, name, tuple(value.shape))
        for i, (name, value) in enumerate(given.items())
        if value.ndim
    }
    return {**given, **{n: torch.from_numpy(np.float32(v)) for n, v in values.items()}}


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save({**state, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, path)
    return path


@pytest.fixture(scope="module")
def loaded(file):
    return ResNet50Taps.load(file)


@pytest.fixture(scope="module")
def plain(state):
    taps = ResNet50Taps()
    taps.body.load_state_dict(state)
    return taps


@pytest.mark.parametrize("which", ["loaded", "plain"])
def test_golden_features(request, which):
    if not GOLDEN.exists():
        pytest.skip(f"no golden vectors at {GOLDEN}")
    golden, taps = np.load(GOLDEN), request.getfixturevalue(which)
    images = np.random.RandomState(99).standard_normal((1, 3, 224, 224)).astype(np.float32)
    blocks = [block[0].numpy() for level in taps(torch.from_numpy(images)) for block in level]
    assert len(blocks) == 13
    for i, block in enumerate(blocks):
        found = np.array([block.mean(), block.std(), block.min(), block.max()])
        scale = float(block.std())
        np.testing.assert_allclose(found, golden["feat/stats"][i], atol=1e-4 * scale, rtol=1e-4)
        wanted = golden[f"feat/slice_{i:02}"]
        np.testing.assert_allclose(block[:8, :4, :4], wanted, atol=1e-4 * scale, rtol=0)


def test_levels_are_l2_l3_l4_before_the_last_relu(loaded):
    levels = loaded(torch.randn(2, 3, 64, 64))
    found = [(len(level), *level[0].shape) for level in levels]
    assert found == [(4, 2, 512, 8, 8), (6, 2, 1024, 4, 4), (3, 2, 2048, 2, 2)]
    assert all((block < 0).any() for level in levels for block in level)


def test_folded_batch_norms_answer_as_plain_ones(loaded, plain):
    images = torch.randn(1, 3, 64, 64)
    for a, b in zip(loaded(images), plain(images), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_train_leaves_it_frozen_in_evaluation_mode(plain):
    before = plain.body.bn1.running_mean.clone()
    plain.train()
    plain(torch.randn(1, 3, 64, 64))
    assert not any(module.training for module in plain.modules())
    assert not any(p.requires_grad for p in plain.parameters())
    assert torch.equal(plain.body.bn1.running_mean, before)


def test_loaded_weights_are_frozen(loaded):
    assert not any(p.requires_grad for p in loaded.parameters())
    assert not any(p.is_meta for p in loaded.parameters())


def test_absent_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.pth: no such file"):
        ResNet50Taps.load(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param({"a": torch.zeros(1)}, r"missing \(bn1.bias, .*1 unexpected \(a\)", id="keys"),
        pytest.param({"conv1.weight": torch.zeros(1)}, "1 of another shape", id="shape"),
        pytest.param({"epoch": 3}, "no state dict", id="not_tensors"),
        pytest.param([1, 2], "no state dict", id="list"),
        pytest.param(torch.nn.Linear(1, 1), "not a file of PyTorch weights", id="module"),
    ],
)
def test_file_of_another_kind_is_refused(tmp_path, content, message):
    path = tmp_path / "wrong.pth"
    torch.save(content, path)
    with pytest.raises(FormatError, match=message):
        ResNet50Taps.load(path)


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 cut"])
def test_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"broken\.pth: not a file"):
        ResNet50Taps.load(path)


def test_images_of_one_channel_are_refused(plain):
    with pytest.raises(InputError, match=r"expected \(B, 3, H, W\)"):
        plain(torch.zeros(1, 1, 64, 64))


def test_preprocess_normalises_as_imagenet():
    image = np.full((10, 20, 3), (0, 128, 255), np.uint8)
    found = preprocess(image, 32)
    wanted = (np.array([0, 128, 255]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert found.shape == (1, 3, 32, 32)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0, :, 5, 7], wanted, rtol=1e-5)


def test_preprocess_averages_when_it_shrinks():
    image = np.tile(np.array([0, 255], np.uint8), (64, 32))[..., None].repeat(3, 2)
    grey = preprocess(image, 16)[0, 0] * 0.229 + 0.485
    np.testing.assert_allclose(grey[:, 2:-2], 0.5, atol=0.02)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((4, 4), np.uint8), id="grey"),
        pytest.param(np.zeros((4, 4, 4), np.uint8), id="rgba"),
        pytest.param(np.zeros((4, 4, 3), np.float32), id="float"),
        pytest.param(np.zeros((0, 4, 3), np.uint8), id="empty"),
    ],
)
def test_preprocess_refuses_other_images(image):
    with pytest.raises(InputError, match="expected uint8"):
        preprocess(image)
