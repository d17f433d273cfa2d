"""The centre pivot against a dense 4-D convolution and against the golden vectors."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_samic.core.errors import InputError
from napari_samic.models.samic.conv4d import CenterPivotConv4d

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "hsnet_golden.npz"
CASES = ("cp0_k3_s1", "cp1_k3_s2", "cp2_k5_s4", "cp3_k5_s4", "cp4_k3_s2", "cp5_k3_s1")


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.exists():
        pytest.skip(f"no golden vectors at {GOLDEN}")
    return np.load(GOLDEN)


def dense_4d(x, conv, stride):
    """A 4-D convolution tap by tap, with the kernel that a centre pivot stands for."""
    w1, w2 = conv.conv1.weight, conv.conv2.weight
    k, p = w1.shape[-1], w1.shape[-1] // 2
    x = torch.nn.functional.pad(x, (p,) * 8)
    ha, wa, hb, wb = (n - 2 * p for n in x.shape[2:])
    y = (conv.conv1.bias + conv.conv2.bias)[:, None, None, None, None]
    for i, j, m, n in product(range(k), repeat=4):
        tap = 0
        if (m, n) == (p, p):
            tap = tap + w1[:, :, i, j]
        if (i, j) == (p, p):
            tap = tap + w2[:, :, m, n]
        if isinstance(tap, torch.Tensor):
            seen = x[:, :, i : i + ha, j : j + wa, m : m + hb : stride, n : n + wb : stride]
            y = y + torch.einsum("bcijmn,oc->boijmn", seen, tap)
    return y


def gradients(y, grad_out, *leaves):
    return torch.autograd.grad((y * grad_out).sum(), leaves)


@pytest.mark.parametrize(
    ("kernel", "stride", "support"),
    [
        pytest.param(3, 1, (3, 4), id="mixing"),
        pytest.param(3, 1, (1, 1), id="one_cell_folded"),
        pytest.param(3, 1, (2, 1), id="one_column"),
        pytest.param(3, 2, (2, 2), id="two_by_two_to_one"),
        pytest.param(3, 2, (2, 1), id="two_by_one_to_one"),
        pytest.param(3, 2, (5, 4), id="odd_and_even"),
        pytest.param(5, 4, (4, 4), id="one_cell_that_sees_three_of_four"),
        pytest.param(5, 4, (4, 6), id="one_cell_in_one_axis"),
        pytest.param(5, 4, (9, 5), id="not_square"),
    ],
)
def test_value_and_gradients_are_those_of_a_dense_4d_convolution(kernel, stride, support):
    torch.manual_seed(kernel * stride)
    conv = CenterPivotConv4d(2, 3, kernel, stride).double()
    x = torch.randn(2, 2, 3, 4, *support, dtype=torch.float64, requires_grad=True)
    wanted = dense_4d(x, conv, stride)
    found = conv(x)
    grad_out = torch.randn_like(wanted)
    leaves = (x, *conv.parameters())
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        gradients(found, grad_out, *leaves), gradients(wanted, grad_out, *leaves)
    )


@pytest.mark.parametrize("case", CASES)
def test_golden_value_and_gradients(golden, case):
    kernel, stride = int(case[5]), int(case[8])
    conv = CenterPivotConv4d(3, 4, kernel, stride)
    names = [name for name, _ in conv.named_parameters()]
    conv.load_state_dict({name: torch.from_numpy(golden[f"{case}/{name}"]) for name in names})
    y = conv(torch.from_numpy(golden[f"{case}/x"]))
    np.testing.assert_allclose(y.detach().numpy(), golden[f"{case}/y"], atol=1e-5, rtol=0)
    found = gradients(y, torch.from_numpy(golden[f"{case}/grad_out"]), *conv.parameters())
    for name, gradient in zip(names, found, strict=True):
        wanted = golden[f"{case}/grad/{name}"]
        np.testing.assert_allclose(gradient, wanted, atol=1e-4 * np.abs(wanted).max(), err_msg=name)


def test_dead_taps_get_zero_gradient_not_none():
    conv = CenterPivotConv4d(2, 3, 3, 1)
    conv(torch.rand(1, 2, 3, 3, 1, 1)).sum().backward()
    grad = conv.conv2.weight.grad
    assert grad[:, :, 1, 1].abs().min() > 0
    assert grad.sum() == pytest.approx(float(grad[:, :, 1, 1].sum()), rel=1e-6)


def test_result_does_not_depend_on_storage_order():
    conv = CenterPivotConv4d(2, 3, 3, 2)
    x = torch.rand(2, 2, 3, 3, 4, 4)
    stored_last = x.movedim(1, -1).contiguous().movedim(-1, 1)
    torch.testing.assert_close(conv(x), conv(stored_last))


def test_argument_is_left_as_it_was():
    conv = CenterPivotConv4d(2, 3, 3, 2)
    x = torch.rand(2, 2, 3, 3, 4, 4, requires_grad=True)
    before = x.detach().clone()
    conv(x).sum().backward()
    assert torch.equal(x, before)


def test_autocast_trains_in_bfloat16():
    conv = CenterPivotConv4d(2, 4, 3, 2)
    x = torch.rand(1, 2, 3, 3, 4, 4)
    wanted = conv(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert conv.conv2.weight.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), wanted, atol=0.05, rtol=0.05)


def test_other_channels_are_refused():
    with pytest.raises(InputError, match=r"expected \(B, 2, ha, wa, hb, wb\)"):
        CenterPivotConv4d(2, 3, 3)(torch.rand(1, 5, 2, 2, 2, 2))


def test_even_kernel_is_refused():
    with pytest.raises(InputError, match="odd"):
        CenterPivotConv4d(2, 3, 4)
