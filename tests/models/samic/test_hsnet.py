"""The learner against the golden vectors and against a plain double-precision one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from napari_samic.core.errors import InputError
from napari_samic.models.samic.hsnet import CenterPivotConv4d, HyperCorrelationLearner

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "hsnet_golden.npz"
BLOCKS = ("encoder_layer4", "encoder_layer3", "encoder_layer2")
MIXERS = ("encoder_layer4to3", "encoder_layer3to2")
IN_4D = (*BLOCKS, *MIXERS)


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.exists():
        pytest.skip(f"no golden vectors at {GOLDEN}")
    return np.load(GOLDEN)


@pytest.fixture(scope="module")
def trained(golden):
    net = HyperCorrelationLearner()
    names = list(net.state_dict())
    weights = {n: torch.from_numpy(golden[f"w/{n}"].astype(np.float32)) for n in names}
    net.load_state_dict(weights)
    return net


def golden_pyramid(golden, case):
    levels = (golden[f"{case}/corr_{level}_u8"] for level in ("l4", "l3", "l2"))
    return [torch.from_numpy(u8.astype(np.float32) / np.float32(255)) for u8 in levels]


def test_state_dict_has_the_names_of_the_golden_weights(golden):
    wanted = {key[2:]: golden[key].shape for key in golden.files if key.startswith("w/")}
    found = {name: tuple(p.shape) for name, p in HyperCorrelationLearner().state_dict().items()}
    assert found == wanted


@pytest.mark.parametrize("case", ["caseA_224", "caseB_small", "caseC_2x2support"])
def test_golden_logits(golden, trained, case):
    with torch.no_grad():
        logits = trained(golden_pyramid(golden, case))
    np.testing.assert_allclose(logits, golden[f"{case}/logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("block", [*BLOCKS, *MIXERS, "decoder1"])
@pytest.mark.parametrize("case", ["caseB_small", "caseC_2x2support"])
def test_golden_answer_of_each_block(golden, trained, case, block):
    seen = []
    hook = getattr(trained, block).register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        trained(golden_pyramid(golden, case))
    hook.remove()
    np.testing.assert_allclose(seen[0], golden[f"{case}/mid_{block}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", ["caseB_small", "caseC_2x2support"])
def test_golden_gradients(golden, trained, case):
    trained.zero_grad()
    logits = trained(golden_pyramid(golden, case))
    (logits * torch.from_numpy(golden[f"{case}/grad_out"])).sum().backward()
    found = {name: p.grad.numpy() for name, p in trained.named_parameters()}
    prefix = f"{case}/grad/"
    names = [key.removeprefix(prefix) for key in golden.files if key.startswith(prefix)]
    assert len(names) == 10
    for name in names:
        wanted = golden[prefix + name]
        atol = 1e-4 * np.abs(wanted).max()
        np.testing.assert_allclose(found[name], wanted, atol=atol, rtol=0, err_msg=name)


def plain_pivot(x, conv):
    """Two convolutions, every tap computed, channels first."""
    b, c, ha, wa, hb, wb = x.shape
    s = conv.stride
    kept = x[..., ::s, ::s]
    h, w = kept.shape[4:]
    over_a = conv.conv1(kept.permute(0, 4, 5, 1, 2, 3).reshape(-1, c, ha, wa))
    over_b = conv.conv2(x.permute(0, 2, 3, 1, 4, 5).reshape(-1, c, hb, wb))
    over_a = over_a.view(b, h, w, -1, ha, wa).permute(0, 3, 4, 5, 1, 2)
    return over_a + over_b.view(b, ha, wa, -1, h, w).permute(0, 3, 1, 2, 4, 5)


def plain_block(x, block):
    for pivot, norm in zip(block[0::3], block[1::3], strict=True):
        x = plain_pivot(x, pivot)
        b, c = x.shape[:2]
        grouped = x.reshape(b, 4, -1)
        variance, mean = torch.var_mean(grouped, -1, correction=0, keepdim=True)
        x = ((grouped - mean) / (variance + 1e-5).sqrt()).view(x.shape)
        x = x * norm.weight.view(c, 1, 1, 1, 1) + norm.bias.view(c, 1, 1, 1, 1)
        x = x.clamp(min=0)
    return x


def plain_resized(x, size):
    """Each support cell on its own."""
    rows = [
        torch.stack(
            [
                F.interpolate(x[..., i, j], size, mode="bilinear", align_corners=True)
                for j in range(x.shape[5])
            ],
            -1,
        )
        for i in range(x.shape[4])
    ]
    return torch.stack(rows, -2)


def plain_forward(net, pyramid):
    x4, x3, x2 = (plain_block(x, getattr(net, n)) for x, n in zip(pyramid, BLOCKS, strict=True))
    x = plain_block(plain_resized(x4, x3.shape[2:4]) + x3, net.encoder_layer4to3)
    x = plain_block(plain_resized(x, x2.shape[2:4]) + x2, net.encoder_layer3to2)
    x = net.decoder1(x.mean((-2, -1)))
    up = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    return net.decoder2(up)


def random_pyramid(inch, target, support, batch=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.rand(batch, c, *a, *b, generator=generator, dtype=dtype)
        for c, a, b in zip(inch, target, support, strict=True)
    ]


@pytest.mark.parametrize(
    ("target", "support"),
    [
        pytest.param([(2, 2), (3, 3), (4, 4)], [(3, 3), (5, 5), (9, 9)], id="support_ends_1x1"),
        pytest.param([(2, 2), (2, 2), (3, 3)], [(9, 9), (17, 17), (33, 33)], id="support_ends_2x2"),
        pytest.param([(1, 2), (2, 3), (2, 5)], [(9, 3), (17, 5), (33, 9)], id="not_square"),
    ],
)
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_logits_and_gradients_are_those_of_a_plain_network(target, support, layers):
    torch.manual_seed(1)
    net = HyperCorrelationLearner((2, 3, 1), layers).double()
    pyramid = [x.requires_grad_() for x in random_pyramid(net.inch, target, support)]
    wanted, found = plain_forward(net, pyramid), net(pyramid)
    torch.testing.assert_close(found, wanted)
    grad_out = torch.randn_like(wanted)
    leaves = (*pyramid, *net.parameters())
    torch.testing.assert_close(
        torch.autograd.grad((found * grad_out).sum(), leaves),
        torch.autograd.grad((wanted * grad_out).sum(), leaves, allow_unused=True),
    )


def test_resnet50_learner_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in HyperCorrelationLearner((3, 6, 4)).parameters()) == 2_573_794


@pytest.mark.parametrize(
    ("layers", "wanted"), [(1, 922_754), (2, 2_183_426), (3, 2_573_794), (4, 4_050_914)]
)
def test_each_number_of_layers_has_its_parameters(layers, wanted):
    net = HyperCorrelationLearner((3, 6, 4), layers)
    assert sum(p.numel() for p in net.parameters()) == wanted
    pivots = [sum(isinstance(m, CenterPivotConv4d) for m in getattr(net, n)) for n in IN_4D]
    assert pivots == [layers] * 5


@pytest.mark.parametrize(
    ("layers", "ends"),
    [
        pytest.param(1, (4, 7), id="1_layer"),
        pytest.param(2, (2, 4), id="2_layers"),
        pytest.param(3, (1, 2), id="3_layers"),
        pytest.param(4, (1, 1), id="4_layers"),
    ],
)
def test_support_grids_of_all_levels_end_alike(layers, ends):
    net = HyperCorrelationLearner((1, 1, 1), layers)
    for sides, end in zip([(7, 14, 28), (13, 25, 50)], ends, strict=True):  # 224 and 400 px
        support = [(side, side) for side in sides]
        pyramid = random_pyramid((1, 1, 1), [(2, 2)] * 3, support, 1, torch.float32)
        with torch.no_grad():
            for name, level in zip(BLOCKS, pyramid, strict=True):
                assert getattr(net, name)(level).shape[4:] == (end, end), (name, sides)
            assert net(pyramid).shape == (1, 2, 4, 4)


def test_support_grids_are_checked_with_the_strides_in_use():
    sides = [(5, 5), (5, 5), (5, 5)]  # 5 x 5 ends as 1 x 1 after strides of 8, 16 and 32 only
    pyramid = random_pyramid((1, 1, 1), [(2, 2)] * 3, sides, 1, torch.float32)
    HyperCorrelationLearner((1, 1, 1), 3)(pyramid)
    with pytest.raises(InputError, match=r"\(3, 3\), \(2, 2\), \(1, 1\).*end alike"):
        HyperCorrelationLearner((1, 1, 1), 1)(pyramid)


@pytest.mark.parametrize("layers", [0, 5])
def test_other_numbers_of_layers_are_refused(layers):
    with pytest.raises(InputError, match=f"^{layers} layers, expected 1 to 4"):
        HyperCorrelationLearner((1, 1, 1), layers)


def test_grids_may_change_between_calls():
    net = HyperCorrelationLearner((1, 1, 1))
    small = random_pyramid((1, 1, 1), [(2, 2)] * 3, [(3, 3), (5, 5), (9, 9)], 1, torch.float32)
    large = random_pyramid((1, 1, 1), [(3, 4)] * 3, [(9, 9), (17, 17), (33, 33)], 1, torch.float32)
    with torch.no_grad():
        first = net(small)
        assert net(large).shape == (1, 2, 6, 8)
        assert torch.equal(net(small), first)


def test_predict_upsamples_logits_before_the_softmax():
    net = HyperCorrelationLearner((1, 1, 1))
    with torch.no_grad():
        net.decoder2[2].weight *= 100  # logits apart enough for the order to matter
    pyramid = random_pyramid((1, 1, 1), [(2, 3)] * 3, [(3, 3), (5, 5), (9, 9)], 2, torch.float32)
    logits = F.interpolate(net(pyramid), (20, 31), mode="bilinear", align_corners=True)
    found = net.predict(pyramid, (20, 31))
    assert found.requires_grad
    torch.testing.assert_close(found, logits.softmax(1)[:, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda p: p[:2], "expected l4, l3, l2", id="two_levels"),
        pytest.param(lambda p: p[::-1], r"L = \(1, 2, 3\)", id="fine_to_coarse"),
        pytest.param(lambda p: [p[0][:1], *p[1:]], "one B", id="batches"),
        pytest.param(lambda p: [p[0].flatten(4), *p[1:]], "expected l4, l3, l2", id="five_axes"),
        pytest.param(lambda p: [*p[:2], p[2].repeat(*[1] * 5, 4)], "end alike", id="support"),
    ],
)
def test_pyramid_that_does_not_fit_is_refused(change, message):
    net = HyperCorrelationLearner((1, 2, 3))
    pyramid = random_pyramid(net.inch, [(2, 2)] * 3, [(3, 3), (5, 5), (9, 9)], 2, torch.float32)
    with pytest.raises(InputError, match=message):
        net(change(pyramid))
