"""The packaged architecture at two scales: what each scale sees, and which masks are offered."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from test_tiny import SMALL
from torch.nn import functional as F
from toy_sam import picture, random_sam

from napari_samic.models import checkpoints, objectnet, registry, tiny, tinyscales
from napari_samic.models.sam import SamSegmenter
from napari_samic.samples import sample_set

TWO = replace(SMALL, side_px=128, scales=2)
CLICK = (torch.tensor([[[40.0, 70.0], [90.0, 20.0]]]), torch.tensor([[1, 0]]))
BOX = torch.tensor([[20.0, 30.0, 100.0, 90.0]])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return tiny.build(TWO).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def x():
    return torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))


def answers(network, x, **prompt):
    embedding = network.image_encoder(x)
    asked = {"points": None, "boxes": None, "masks": None} | prompt
    sparse, dense = network.prompt_encoder(**asked)
    return [
        network.mask_decoder(embedding, network.prompt_encoder.get_dense_pe(), sparse, dense, multi)
        for multi in (False, True)
    ]


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param({"points": CLICK}, id="points"),
        pytest.param({"boxes": BOX}, id="box"),
        pytest.param({"points": CLICK, "masks": torch.randn(1, 1, 32, 32)}, id="points_and_mask"),
    ],
)
def test_half_size_masks_are_those_of_the_small_picture(network, x, prompt):
    embedding = network.image_encoder(x)
    fine, packed = embedding.split(network.mask_decoder.split, 1)
    _, dense = network.prompt_encoder(**({"points": None, "boxes": None, "masks": None} | prompt))
    maps, small = dense.chunk(2, 1)
    logits, _, _ = network.mask_decoder.all_masks(
        fine, F.pixel_unshuffle(packed, 2), maps, small[..., ::2, ::2]
    )

    halved = dict(prompt)
    if "points" in prompt:
        halved["points"] = ((CLICK[0] + 0.5) / 2 - 0.5, CLICK[1])
    if "boxes" in prompt:
        halved["boxes"] = (BOX + 0.5) / 2 - 0.5
    if "masks" in prompt:
        halved["masks"] = F.avg_pool2d(prompt["masks"], 2)
    drawn = tiny.TinyPromptEncoder(64)(**({"points": None, "boxes": None, "masks": None} | halved))
    one = network.image_encoder.one(F.avg_pool2d(x, 2))
    alone, _ = network.mask_decoder.one.all_masks(one, drawn[1])
    alone = F.interpolate(alone, size=(32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(logits[:, 4:], alone, atol=1e-5, rtol=1e-5)

    whole, _ = network.mask_decoder.one.all_masks(network.image_encoder.one(x), maps)
    torch.testing.assert_close(logits[:, :4], whole, atol=1e-5, rtol=1e-5)


def test_single_mask_is_the_surest_of_the_three(network, x):
    (one, score), (three, scores) = answers(network, x, points=CLICK)
    assert one.shape == (1, 1, 32, 32)
    assert three.shape == (1, 3, 32, 32)
    assert torch.equal(one[:, 0], three[:, 0])
    assert torch.equal(score[:, 0], scores[:, 0])
    assert scores[0, 0] == scores.max()


def test_only_this_network_says_that_one_pass_gives_single_and_candidates(network):
    assert SamSegmenter(network, name="two", device="cpu").single_is_first
    assert not SamSegmenter(random_sam(), name="sam", device="cpu").single_is_first


def test_what_prompts_of_an_image_share_is_computed_once(network, x):
    passes = []
    handle = network.mask_decoder.one.from_image.register_forward_hook(
        lambda _module, inputs, _output: passes.append(tuple(inputs[0].shape[-2:]))
    )
    with torch.inference_mode():
        embeddings = [network.image_encoder(x), network.image_encoder(x.flip(-1))]
        dense = network.prompt_encoder(CLICK, None, None)[1]
        ask = [
            network.mask_decoder(e, None, None, dense, True)[0] for e in embeddings for _ in "ab"
        ]
    handle.remove()
    assert passes == [(32, 32), (16, 16)] * 2
    assert torch.equal(ask[0], ask[1])
    assert torch.equal(ask[2], ask[3])
    assert not torch.equal(ask[0], ask[2])


def test_training_keeps_nothing_of_an_image(x):
    network = tiny.build(TWO)
    embedding = network.image_encoder(x)
    dense = network.prompt_encoder(CLICK, None, None)[1]
    for _ in range(2):  # the second fails if it goes back through the first
        network.mask_decoder(embedding.detach(), None, None, dense, True)[0].sum().backward()
    assert network.mask_decoder.one.from_image.weight.grad is not None


def test_taps_are_the_mean_of_both_scales(network, x):
    _, levels = network.image_encoder.encode(x)
    _, near = network.image_encoder.one.encode(x)
    _, wide = network.image_encoder.one.encode(F.avg_pool2d(x, 2))
    for level, fine, coarse in zip(levels, near, wide, strict=True):
        for tap, a, b in zip(level, fine, coarse, strict=True):
            torch.testing.assert_close(tap, (F.avg_pool2d(a, 2) + b) / 2)


def test_judge_begins_as_the_plain_confidence(network, x):
    maps = network.prompt_encoder(CLICK, None, None)[1].chunk(2, 1)
    fine, packed = network.image_encoder(x).split(network.mask_decoder.split, 1)
    _, scores, _ = network.mask_decoder.all_masks(
        fine, F.pixel_unshuffle(packed, 2), maps[0], maps[1][..., ::2, ::2]
    )
    _, plain = network.mask_decoder.one.all_masks(network.image_encoder.one(x), maps[0])
    torch.testing.assert_close(scores[:, :4], plain, atol=1e-5, rtol=1e-5)


def test_masks_that_are_alike_are_offered_once():
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
    same = torch.eye(4)[None].clone()
    same[0, 0, 1] = same[0, 1, 0] = 0.95
    assert tinyscales._distinct(scores, same, 3).tolist() == [[0, 2, 3]]


def test_alike_masks_fill_up_when_none_differs():
    scores = torch.tensor([[0.5, 0.9, 0.7]])
    assert tinyscales._distinct(scores, torch.ones(1, 3, 3), 3).tolist() == [[1, 2, 0]]


def test_share_of_a_mask_at_positive_and_negative_points():
    logits = torch.full((1, 2, 8, 8), -20.0)
    logits[0, 0, :, :4] = 20.0  # the left half
    maps = torch.zeros(1, 10, 8, 8)
    maps[0, 0, 3, 1] = maps[0, 3, 3, 6] = 1.0
    assert tinyscales._at_points(logits, maps).round().tolist() == [[[1, 0], [0, 0]]]


def test_ready_answers_alike(network, x):
    torch.manual_seed(0)
    ready = tiny.ready(tiny.build(TWO))
    (_, plain), (_, quick) = answers(network, x, boxes=BOX), answers(ready, x, boxes=BOX)
    torch.testing.assert_close(quick[0], plain[0], atol=0.05, rtol=0.05)


def test_file_keeps_both_scales(network, tmp_path):
    torch.save(tiny.pack(network, TWO), tmp_path / "two.pt")
    loaded = tiny.load(tmp_path / "two.pt")
    predictor = SamPredictor(loaded)
    predictor.set_image(picture((48, 80)))
    masks, scores, low = predictor.predict(
        point_coords=np.array([[20, 10]]), point_labels=np.array([1])
    )
    assert masks.shape == (3, 48, 80)
    assert low.shape == (3, 32, 32)
    assert (np.diff(scores) <= 0).all() or (scores[0] == scores.max())


def test_what_the_user_sees_of_the_embedding_is_the_full_size(network):
    segmenter = SamSegmenter(network, name="two", device="cpu")
    assert segmenter.embedding(picture((64, 128))).shape == (TWO.embed, 16, 32)


def test_every_level_of_the_packaged_neck_is_alive():
    """Its ReLUs once were 0 at strides 8, 16 and 32 for every picture, and nobody saw it."""
    content = checkpoints.read(registry.locate("tiny"))
    encoder = tiny.unpack(content, "tiny").image_encoder.one
    seen = {}

    def note(level):
        def hook(module, inputs, output):
            seen.setdefault(level, []).append((output > 0).float().mean((0, 2, 3)))

        return hook

    for level in range(len(encoder.smooth)):
        last = encoder.calm[level] if level < len(encoder.calm) else encoder.smooth[level]
        last.register_forward_hook(note(level))
    with torch.inference_mode():
        for sample in (sample_set("cells")[0], *sample_set("coins")[:2]):
            x, _ = objectnet.to_input(sample.image, 256)
            encoder.encode(x)
    assert sorted(seen) == [0, 1, 2, 3]
    for level, shares in seen.items():
        each = torch.stack(shares)  # (3, 64): pictures, channels
        assert each.mean() > 0.02, level
        speaking = (each.amax(0) > 0.01).float().mean()
        assert speaking > (0.25 if level == 0 else 0.9), level  # of the finest, a third do
        assert (each.amax(0) - each.amin(0)).mean() > 0.005, level  # and not always the same
