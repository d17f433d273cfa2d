"""timm networks as encoders: which maps they give, and what of them learns."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from napari_samic.core.errors import ModelError
from napari_samic.models.encoders import timm_encoder
from napari_samic.models.encoders.timm_encoder import PointwiseConv2d, TimmEncoder

PYRAMIDS = ["test_efficientnet", "test_resnet", "test_convnext"]
SIZE = (64, 96)


def encoder_of(name):
    """In eval mode, its norms as after a training."""
    torch.manual_seed(0)
    encoder = TimmEncoder(name)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for name, parameter in encoder.named_parameters():
        if name.endswith("gamma"):  # of a ConvNeXt block, which else hardly changes its input
            nn.init.uniform_(parameter, 0.5, 1.5)
    return encoder.eval()


def picture(seed=0, size=SIZE, count=1):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def maps_of(encoder, x):
    with torch.no_grad():
        return encoder.blocks(x)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 12, 24, 32])
def test_spread_blocks_lie_in_the_last_half_and_go_deeper(depth):
    levels = timm_encoder.spread_blocks(depth)
    assert len(levels) == 3
    assert min(min(level) for level in levels) >= depth // 2
    assert levels[-1][-1] == depth - 1
    assert all(level == sorted(set(level)) for level in levels)
    assert levels == sorted(levels)


@pytest.mark.parametrize(
    ("name", "levels", "widths"),
    [
        pytest.param("test_efficientnet", [[1], [2], [3]], [24, 32, 48, 64], id="efficientnet"),
        pytest.param("test_resnet", [[1], [2], [3]], [32, 48, 192, 96], id="resnet"),
        pytest.param(
            "test_convnext", [[1, 2], [3, 4, 5, 6], [7, 8]], [24, 32, 48, 64], id="convnext"
        ),
        pytest.param("test_vit2", [[4, 5, 6], [4, 5, 6], [5, 6, 7]], [64] * 4, id="transformer"),
    ],
)
def test_blocks_are_told_apart_by_level(name, levels, widths):
    encoder = TimmEncoder(name)
    assert encoder.layout.levels == levels
    assert encoder.widths == widths
    assert encoder.layout.tokens == (name == "test_vit2")


@pytest.mark.parametrize("name", [*PYRAMIDS, "test_vit"])
def test_maps_of_an_oblong_picture_are_as_the_layout_says(name):
    encoder = encoder_of(name)
    maps = maps_of(encoder, picture(count=2))
    layout = encoder.layout
    assert [tuple(t.shape) for t in maps] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(layout.channels, layout.strides, strict=True)
    ]
    ends = encoder.ends(maps, SIZE)
    assert [tuple(t.shape) for t in ends] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(encoder.widths, timm_encoder.STRIDES, strict=True)
    ]


@pytest.mark.parametrize("name", PYRAMIDS)
def test_maps_of_a_pyramid_are_the_ends_of_its_stages(name):
    encoder, x = encoder_of(name), picture()
    ends = encoder.ends(maps_of(encoder, x), SIZE)
    with torch.no_grad():
        stages = encoder.network.forward_intermediates(x, intermediates_only=True)[-4:]
    for end, stage in zip(ends, stages, strict=True):
        end = F.relu(end) if name == "test_resnet" else end  # taken before it
        torch.testing.assert_close(end, stage)


def test_maps_of_a_transformer_are_its_tokens_without_the_prefix():
    encoder, x = encoder_of("test_vit"), picture()
    with torch.no_grad():
        blocks = encoder.network.forward_intermediates(x, norm=False, intermediates_only=True)
    for found, block in zip(maps_of(encoder, x), blocks, strict=True):
        torch.testing.assert_close(found, block)


def test_transformer_sees_a_whole_number_of_patches():
    encoder = encoder_of("test_vit")  # patches of 16
    x = picture(size=(76, 100))
    whole = F.interpolate(x, size=(80, 96), mode="bilinear", align_corners=False)
    maps, others = maps_of(encoder, x), maps_of(encoder, whole)
    assert maps[-1].shape[-2:] == (5, 6)
    torch.testing.assert_close(maps, others)


def test_maps_of_a_resnet_are_those_before_the_last_relu():
    encoder, x = encoder_of("test_resnet"), picture()
    with torch.no_grad():
        answer = encoder.network.forward_features(x)
    maps = maps_of(encoder, x)
    assert all((t < 0).any() for t in maps)
    torch.testing.assert_close(F.relu(maps[-1]), answer)


def test_levels_are_those_of_the_layout():
    encoder = encoder_of("test_convnext")
    maps = maps_of(encoder, picture())
    levels = encoder.levels(maps, SIZE)
    assert [[t.shape[-1] for t in level] for level in levels] == [[12] * 2, [6] * 4, [3] * 2]
    assert levels[2][1] is maps[-1]


def test_levels_of_a_transformer_double_from_one_to_the_next():
    """As correlations need them, whatever its own grid is."""
    encoder = encoder_of("test_vit")  # patches of 16
    maps = maps_of(encoder, picture(size=(80, 112)))
    levels = encoder.levels(maps, (80, 112))
    assert [[tuple(t.shape[-2:]) for t in level] for level in levels] == [
        [(8, 16)] * 3, [(4, 8)] * 3, [(2, 4)] * 3,
    ]  # fmt: skip
    wanted = F.interpolate(maps[encoder.layout.levels[1][2]], size=(4, 8), mode="bilinear")
    torch.testing.assert_close(levels[1][2], wanted)


def test_looking_at_a_network_leaves_it_as_it_was():
    network = timm_encoder.create("test_efficientnet")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    timm_encoder.inspect_layout(network, "test_efficientnet")
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_nothing_of_a_picture_is_kept_after_its_pass():
    encoder = encoder_of("test_resnet")
    kept = [weakref.ref(t) for t in maps_of(encoder, picture())]
    gc.collect()
    assert [ref() for ref in kept] == [None] * len(kept)


def test_colors_and_side_are_those_that_it_was_trained_with():
    encoder = TimmEncoder("test_vit")
    assert encoder.mean == pytest.approx((127.5,) * 3)
    assert encoder.deviation == pytest.approx((127.5,) * 3)
    assert encoder.side_px == 160


@pytest.mark.parametrize(
    ("name", "match"),
    [
        pytest.param("test_resne", "'test_resne': .* test_resnet", id="one_letter_short"),
        pytest.param("resnet5o", "'resnet5o': .* resnet50", id="typo"),
        pytest.param("nothing_like_it", "'nothing_like_it': .* resnet", id="like_none"),
    ],
)
def test_unknown_name_lists_some_like_it(name, match):
    with pytest.raises(ModelError, match=match) as caught:
        TimmEncoder(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["test_coatnet", "swin_tiny_patch4_window7_224"])
def test_network_without_a_pyramid_is_refused_in_one_line(name):
    with pytest.raises(ModelError, match=f"'{name}': .* expected 4, 8, 16 and 32") as caught:
        TimmEncoder(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["levit_128s", "test_maxvit", "test_vit3", "vit_relpos_small_patch16_224"]
)
def test_network_that_takes_one_size_only_is_refused_in_one_line(name):
    with pytest.raises(ModelError, match=f"'{name}': .* Take resnet50") as caught:
        TimmEncoder(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        pytest.param("test_efficientnet", "blocks.3.0.", id="pyramid"),
        pytest.param("test_convnext", "stages.2.blocks.0.", id="deep_pyramid"),
        pytest.param("test_vit", "blocks.3.", id="transformer"),
    ],
)
def test_only_what_comes_after_the_frozen_part_learns(name, first):
    encoder = encoder_of(name)
    encoder.freeze()
    encoder.blocks(picture())[-1].square().sum().backward()
    named = dict(encoder.network.named_parameters())
    begin = next(i for i, k in enumerate(named) if k.startswith(first))
    learning = [k for k, p in named.items() if p.grad is not None]
    last = [k for k in named if k.startswith(("norm.", "fc_norm.", "head."))]  # after the blocks
    assert begin > 0
    assert learning == [k for k in list(named)[begin:] if k not in last]


def test_norms_of_the_frozen_part_stay_in_training():
    encoder = encoder_of("test_efficientnet")
    encoder.freeze()
    before = {k: v.clone() for k, v in encoder.network.named_buffers()}
    still = maps_of(encoder, picture(count=2))[1]
    encoder.train()
    torch.testing.assert_close(maps_of(encoder, picture(count=2))[1], still)
    changed = {k for k, v in encoder.network.named_buffers() if not torch.equal(v, before[k])}
    assert changed == {k for k in before if k.startswith(("blocks.3.", "blocks.4."))}


@pytest.mark.parametrize("bias", [True, False])
def test_pointwise_convolution_is_the_usual_one(bias):
    torch.manual_seed(0)
    usual, quick = (nn.Conv2d(6, 10, 1, bias=bias), PointwiseConv2d(6, 10, 1, bias=bias))
    quick.load_state_dict(usual.state_dict())
    x, weight = torch.randn(2, 6, 5, 7), torch.randn(2, 10, 5, 7)
    found = []
    for module in (usual, quick):
        mine = x.clone().requires_grad_()
        y = module(mine)
        (y * weight).sum().backward()
        found.append([y, mine.grad, *(p.grad for p in module.parameters())])
    torch.testing.assert_close(found[1], found[0])


def test_only_plain_pointwise_convolutions_are_quickened():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(4, 8, 1),
        nn.Conv2d(8, 8, 1, groups=2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 4, 1, stride=2),
    )
    x, parameters = torch.randn(1, 4, 6, 6), list(network.parameters())
    before = network(x)
    timm_encoder.use_fast_convolutions(network)
    assert [isinstance(m, PointwiseConv2d) for m in network] == [True, False, False, False]
    torch.testing.assert_close(network(x), before)
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))


@pytest.mark.parametrize("kind", ["test_resnet", "test_efficientnet"])
def test_two_threads_do_not_mix_their_maps(kind):
    encoder = encoder_of(kind)
    pictures = [picture(0), picture(1)]
    alone = [maps_of(encoder, x) for x in pictures]
    both = threading.Barrier(2, timeout=30)

    def wait(*_):
        both.wait()

    for name in (encoder.layout.names[0], encoder.layout.names[-1]):  # both are in between
        encoder.network.get_submodule(name).register_forward_hook(wait)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda x: maps_of(encoder, x), pictures))
    torch.testing.assert_close(together, alone)


def test_depthwise_convolution_has_32_bits_while_it_learns():
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    quick = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4))
    quick[0].load_state_dict(plain.state_dict())
    timm_encoder.use_fast_convolutions(quick)
    x = torch.randn(2, 4, 6, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        learning = quick(x)
        with torch.no_grad():
            answering = quick(x)
    assert (learning.dtype, answering.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(learning, plain(x.float()))
    learning.sum().backward()
    plain(x.float()).sum().backward()
    torch.testing.assert_close(quick[0].weight.grad, plain.weight.grad)
