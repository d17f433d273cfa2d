"""Encoder with its neck: what it gives, what reaches it, and its folded form."""

import copy

import pytest
import torch
from torch import nn

from napari_samic.models.encoders.pyramid_encoder import (
    PyramidEncoder,
    TopDownNeck,
    fuse_batch_norms,
)

WIDTHS = (8, 12, 16, 24)
NAMES = ["test_efficientnet", "test_resnet", "test_vit"]


def encoder_of(name):
    """In eval mode, its norms as after a training."""
    torch.manual_seed(0)
    encoder = PyramidEncoder(name, 16, 64)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return encoder.eval().requires_grad_(False)


def picture(count=1):
    return torch.randn(count, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def ends(count=2):
    torch.manual_seed(0)
    return [torch.randn(count, w, 16 >> i, 24 >> i) for i, w in enumerate(WIDTHS)]


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        pytest.param(
            "test_efficientnet",
            [[(1, 32, 8, 12)], [(1, 48, 4, 6)], [(1, 64, 2, 3)]],
            id="pyramid",
        ),
        pytest.param(
            "test_vit",
            [[(1, 64, 8, 12)] * 3, [(1, 64, 4, 6)] * 3, [(1, 64, 2, 3)] * 3],
            id="transformer",
        ),
    ],
)
def test_one_pass_gives_embedding_and_taps(name, taps):
    encoder = encoder_of(name)
    embedding, levels = encoder.encode(picture())
    assert torch.equal(embedding, encoder(picture()))
    assert embedding.shape == (1, 16, 16, 24)
    assert [[tuple(t.shape) for t in level] for level in levels] == taps


@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_a_batch_do_not_hear_each_other(name):
    encoder, x = encoder_of(name), picture(2)
    both = encoder(x)
    for i in range(2):
        torch.testing.assert_close(both[i : i + 1], encoder(x[i : i + 1]), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_gradient_reaches_every_level_of_the_neck():
    torch.manual_seed(0)
    neck = TopDownNeck(WIDTHS, 16)
    levels = [t.requires_grad_() for t in ends()]
    neck(levels).square().sum().backward()
    for level in levels:
        assert (level.grad.abs().amax((1, 2, 3)) > 0).all()  # of both pictures
    assert all(p.grad.abs().max() > 0 for p in neck.parameters())


def test_answer_of_the_neck_is_at_its_finest_level_and_not_negative():
    y = TopDownNeck(WIDTHS, 16)(ends())
    assert y.shape == (2, 16, 16, 24)
    assert y.min() == 0
    assert y.max() > 0


def test_bias_moves_its_channel_of_its_picture_everywhere():
    torch.manual_seed(0)
    neck = TopDownNeck(WIDTHS, 16)
    plain, bias = neck(ends()), torch.zeros(2, 16)
    torch.testing.assert_close(neck(ends(), bias), plain)
    bias[1, 3] = 5.0
    moved = neck(ends(), bias)
    alive = plain[1, 3] > 0
    torch.testing.assert_close(moved[1, 3][alive], plain[1, 3][alive] + 5)
    assert (moved[1, 3][~alive] < 5).all()  # it comes before the ReLU
    assert (moved[1, 3][~alive] > 0).any()
    moved[1, 3] = plain[1, 3]
    torch.testing.assert_close(moved, plain)


@pytest.mark.parametrize("name", NAMES)
def test_folded_encoder_gives_the_same_answers(name):
    encoder = encoder_of(name)
    quick = fuse_batch_norms(encoder)
    for found, expected in zip(quick.encode(picture()), encoder.encode(picture()), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_folding_leaves_no_batch_norm_and_the_original_as_it_was():
    encoder = PyramidEncoder("test_efficientnet", 16, 64)
    before = copy.deepcopy(encoder.state_dict())
    quick = fuse_batch_norms(encoder)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in quick.modules())
    assert not quick.training
    assert encoder.training
    torch.testing.assert_close(dict(encoder.state_dict()), dict(before))


@pytest.mark.parametrize(("is_fast", "least"), [(True, 1e-9), (False, 0)])
def test_sixteen_bits_change_the_answer_a_little_where_they_are_fast(is_fast, least, monkeypatch):
    capabilities = {"avx512_bf16": is_fast}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    encoder = encoder_of("test_efficientnet")
    plain = encoder(picture())
    encoder.quick = True
    gap = (encoder(picture()).float() - plain).abs().max()
    assert least <= gap <= is_fast * 0.05 * plain.abs().max()
