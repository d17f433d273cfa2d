from pathlib import Path

import numpy as np
import pytest
import torch

from napari_samic.core.errors import InputError
from napari_samic.models.losses import cc, cc_loss, kld, nss, nss_loss, saliency_loss
from napari_samic.ops.heatmaps import from_points

GOLDEN = Path("/work/shared/golden/hsnet_golden.npz")


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.exists():
        pytest.skip(f"golden vectors of the reference code are not at {GOLDEN}")
    with np.load(GOLDEN) as arrays:
        return {k[5:]: torch.from_numpy(arrays[k]) for k in arrays.files if k.startswith("loss/")}


def maps(seed=0, shape=(3, 7, 6), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=dtype)


def agree(found, expected):
    np.testing.assert_allclose(found.detach().numpy(), expected.numpy(), rtol=1e-5, atol=1e-7)


def test_kld_agrees_with_the_reference(golden):
    agree(kld(golden["pred"], golden["gt"]), golden["kld"])


def test_cc_agrees_with_the_reference(golden):
    agree(cc(golden["pred"], golden["gt"]), golden["cc"])


def test_nss_agrees_with_the_reference(golden):
    agree(nss(golden["pred"], golden["fix"]), golden["nss"])


def test_nss_of_the_fixations_agrees_with_the_reference(golden):
    agree(nss(golden["fix"], golden["fix"]), golden["nss_of_fix"])
    agree(nss(golden["gt"], golden["fix"]), golden["nss_of_gt"])


def test_sum_agrees_with_the_reference(golden):
    parts = golden["kld"] + 1 - golden["cc"] + golden["nss_of_fix"] - golden["nss"]
    agree(saliency_loss(golden["pred"], golden["gt"]), parts.mean())


def test_kld_by_hand():
    pred = torch.tensor([[[1.0, 3.0]]], dtype=torch.float64)
    target = torch.tensor([[[2.0, 2.0]]], dtype=torch.float64)
    expected = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert kld(pred, target).item() == pytest.approx(expected, rel=1e-12)


def test_cc_by_hand():
    pred, target = maps(1), maps(2)
    for i in range(3):
        expected = np.corrcoef(pred[i].flatten(), target[i].flatten())[0, 1]
        assert cc(pred, target)[i].item() == pytest.approx(expected, rel=1e-9)
        assert cc_loss(pred, target)[i].item() == pytest.approx(1 - expected, rel=1e-9)


def test_nss_by_hand_with_the_unbiased_deviation():
    pred, fixations = maps(1), maps(2) > 0.7
    for i in range(3):
        p = pred[i].numpy()
        expected = ((p - p.mean()) / p.std(ddof=1))[fixations[i].numpy()].mean()
        assert nss(pred, fixations)[i].item() == pytest.approx(expected, rel=1e-9)


def test_nss_loss_is_the_ideal_minus_the_score():
    pred, fixations = maps(1), maps(2) > 0.7
    expected = nss(fixations.double(), fixations) - nss(pred, fixations)
    torch.testing.assert_close(nss_loss(pred, fixations), expected)


def test_perfect_prediction_costs_nothing():
    target = (maps(3) > 0.8).double()
    assert kld(target, target).abs().max() < 1e-12
    assert cc_loss(target, target).abs().max() < 1e-9
    assert nss_loss(target, target).abs().max() < 1e-12


@pytest.mark.parametrize("part", [kld, cc_loss, nss_loss])
def test_losses_ignore_the_level_of_the_prediction(part):
    pred, target = maps(1), maps(2)
    fixations = target > 0.5
    torch.testing.assert_close(
        part(pred * 1e-2, fixations), part(pred, fixations), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("part", [kld, cc, cc_loss, nss, nss_loss])
def test_parts_have_one_value_for_each_sample(part):
    pred, target = maps(1), maps(2)
    whole = part(pred, target)
    assert whole.shape == (3,)
    alone = torch.cat([part(pred[i : i + 1], target[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(whole, alone)


def test_weights_and_threshold_reach_the_sum():
    pred, target = maps(1), maps(2)
    expected = (
        2.0 * kld(pred, target)
        + 0.5 * cc_loss(pred, target)
        + 0.2 * nss_loss(pred, (target > 0.8).double())
    ).mean()
    found = saliency_loss(pred, target, {"kld": 2.0, "cc": 0.5, "nss": 0.2}, fixation_threshold=0.8)
    assert found.shape == ()
    torch.testing.assert_close(found, expected)


def test_gradient_is_that_of_finite_differences():
    pred = maps(1, (2, 4, 3)).requires_grad_()
    target = maps(2, (2, 4, 3))
    assert torch.autograd.gradcheck(lambda p: saliency_loss(p, target), (pred,))


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_prediction_has_finite_loss_and_gradient(level, dtype):
    pred = torch.full((2, 8, 8), level, dtype=dtype, requires_grad=True)
    loss = saliency_loss(pred, maps(2, (2, 8, 8), dtype))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(pred.grad).all()


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_constant_target_has_a_finite_loss(level):
    pred = maps(1).requires_grad_()
    loss = saliency_loss(pred, torch.full((3, 7, 6), level, dtype=torch.float64))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(pred.grad).all()


def test_saturated_prediction_has_finite_gradient():
    logits = torch.zeros(1, 2, 8, 8)
    logits[:, 0] = 200.0
    logits[:, 0, 2, 2] = -200.0
    logits.requires_grad_()
    target = torch.zeros(1, 8, 8)
    target[0, 5, 5] = 1.0
    saliency_loss(logits.softmax(dim=1)[:, 1], target).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("given", "returned"),
    [
        pytest.param(torch.bfloat16, torch.float32, id="half"),
        pytest.param(torch.float32, torch.float32, id="single"),
        pytest.param(torch.float64, torch.float64, id="double"),
    ],
)
def test_scores_are_at_least_single_precision(given, returned):
    pred = maps(1, dtype=given)
    assert saliency_loss(pred, maps(2, dtype=torch.float32)).dtype == returned


def test_single_precision_gives_the_double_precision_value():
    pred, target = maps(1, dtype=torch.float32), maps(2, dtype=torch.float32)
    expected = saliency_loss(pred.double(), target.double()).item()
    assert saliency_loss(pred, target).item() == pytest.approx(expected, rel=1e-6)


def test_descent_leads_to_the_target():
    target = torch.zeros(1, 12, 12)
    target[0, 3:6, 7:10] = 1.0
    logits = torch.zeros(1, 12, 12, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        saliency_loss(logits.sigmoid(), target).backward()
        optimizer.step()
    assert cc(logits.sigmoid(), target).item() > 0.99


@pytest.mark.parametrize("part", [kld, cc, cc_loss, nss, nss_loss, saliency_loss])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param((2, 4, 4), (2, 4, 5), id="two_shapes"),
        pytest.param((4, 4), (4, 4), id="no_batch"),
        pytest.param((2, 1, 4, 4), (2, 1, 4, 4), id="channels"),
    ],
)
def test_maps_of_unfit_shape_are_refused(part, one, other):
    with pytest.raises(InputError, match=r"expected two of one shape \(B, H, W\)"):
        part(torch.rand(one), torch.rand(other))


@pytest.mark.parametrize("side_px", [32, 56, 128, 384])
def test_nss_loss_of_a_perfect_map_is_what_its_slopes_cost(side_px):
    middle = np.array([[side_px // 2, side_px // 2]])
    made = from_points(middle, (side_px, side_px), sigma_frac=0.02)
    target = torch.from_numpy(np.array(made.values))[None]
    assert 3 < nss_loss(target, target > 0.5).item() < 6
