"""Guidance inside SAM's transformer: none is SAM itself, and the network stays as it is."""

import numpy as np
import pytest
import torch
from toy_sam import picture, point, random_sam

from napari_samic.models.prompters import guided_attention
from napari_samic.models.prompters.guided_attention import GuidedAttention, GuidedTransformer
from napari_samic.models.sam.segmenter import SamSegmenter, build


@pytest.fixture(scope="module")
def segmenter():
    return SamSegmenter(random_sam(), name="toy", device="cpu")


def inputs(seed=0, tokens=5):
    make = torch.Generator().manual_seed(seed)
    return [
        torch.randn(s, generator=make) for s in ((1, 256, 4, 4), (1, 256, 4, 4), (1, tokens, 256))
    ]


def test_no_guidance_is_the_transformer_itself():
    inner = random_sam().mask_decoder.transformer
    with torch.no_grad():
        expected, found = inner(*inputs()), GuidedTransformer(inner, None, None)(*inputs())
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("bias", "target"),
    [
        pytest.param(torch.linspace(0, 1, 16).reshape(1, 1, 1, 16), None, id="attention"),
        pytest.param(None, torch.ones(256), id="target"),
    ],
)
def test_each_part_of_the_guidance_changes_the_answer(bias, target):
    inner = random_sam().mask_decoder.transformer
    with torch.no_grad():
        plain, found = inner(*inputs()), GuidedTransformer(inner, bias, target)(*inputs())
    assert (plain[0] - found[0]).abs().max() > 1e-4


def test_attention_is_drawn_to_the_liked_cells():
    inner = random_sam().mask_decoder.transformer.layers[0].cross_attn_token_to_image
    bias = torch.zeros(1, 1, 1, 16)
    bias[..., 3] = 50.0
    q, k = torch.randn(1, 2, 256), torch.randn(1, 16, 256)
    with torch.no_grad():
        found = GuidedAttention(inner, bias)(q, k, k)
        alone = inner.out_proj(inner.v_proj(k[:, 3:4])).expand(1, 2, 256)
    torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-3)


def test_padding_gets_no_bias():
    bias = guided_attention.attention_bias(torch.rand(2, 4), (4, 4)).reshape(4, 4)
    assert (bias[2:] == 0).all()
    assert (bias[:2] > 0).all()


def test_guided_answer_differs_and_leaves_the_network_alone(segmenter):
    image, asked = picture((48, 64)), point(20, 30)
    before = segmenter.candidates(image, [asked], multimask=False)[0]
    likeness = torch.linspace(-1, 1, 12).reshape(3, 4)
    found = guided_attention.candidates(segmenter, image, asked, likeness, torch.randn(256))
    after = segmenter.candidates(image, [asked], multimask=False)[0]
    assert found.masks.shape == (1, 48, 64)
    assert np.abs(found.logits - before.logits).max() > 1e-3
    np.testing.assert_array_equal(before.logits, after.logits)


def test_only_a_two_way_transformer_can_be_guided(segmenter):
    assert guided_attention.can_guide(segmenter)
    assert not guided_attention.can_guide(build("tiny", device="cpu"))
