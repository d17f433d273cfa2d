"""Hypercorrelation against the golden vectors and against sums in double precision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from napari_samic.core.errors import InputError
from napari_samic.models.samic.hypercorrelation import (
    NormalizedFeatures,
    correlate,
    prepare_reference,
    prepare_target,
)

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "hsnet_golden.npz"


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.exists():
        pytest.skip(f"no golden vectors at {GOLDEN}")
    return np.load(GOLDEN)


def golden_levels(golden, kind):
    blocks = [torch.from_numpy(golden[f"corr/{kind}_feat_{i:02}"]) for i in range(13)]
    return [blocks[:4], blocks[4:10], blocks[10:]]


@pytest.mark.parametrize("active_only", [True, False], ids=["active_cells", "dense"])
def test_golden_pyramid(golden, active_only):
    target = prepare_target(golden_levels(golden, "query"))
    heat_map = torch.from_numpy(golden["corr/mask"])
    reference = prepare_reference(
        golden_levels(golden, "support"), heat_map, active_only=active_only
    )
    for name, found in zip(("l4", "l3", "l2"), correlate(target, reference), strict=True):
        np.testing.assert_allclose(found, golden[f"corr/out_{name}"], atol=1e-5, rtol=0)


def test_golden_masked_features_give_the_reference_vectors(golden):
    heat_map = torch.from_numpy(golden["corr/mask"])
    found = prepare_reference(golden_levels(golden, "support"), heat_map, active_only=False)
    for image in range(2):
        vectors = [block for level in found.vectors[image] for block in level]
        for i, vector in enumerate(vectors):
            masked = torch.from_numpy(golden[f"corr/support_feat_masked_{i:02}"][image]).flatten(1)
            torch.testing.assert_close(vector, masked / (masked.norm(dim=0) + 1e-5), atol=1e-6,
                                       rtol=1e-5)  # fmt: skip


def levels(batch=2, seed=0, grids=((4, 5), (3, 2)), blocks=(2, 3)):
    generator = torch.Generator().manual_seed(seed)
    return [
        [torch.randn(batch, 6, *grid, generator=generator) * 3 + 1 for _ in range(n)]
        for grid, n in zip(grids, blocks, strict=True)
    ]


def gaussian(batch=2, side=40, sigma=3.0):
    axis = torch.arange(side, dtype=torch.float32)
    far = (axis[:, None] - 12) ** 2 + (axis - 25) ** 2
    return torch.exp(-far / (2 * sigma**2)).repeat(batch, 1, 1)


def cosine(a, b, weight):
    """One block (B, C, h, w) each, weight (B, hb, wb), by sums in double precision."""
    a, b = a.double(), b.double() * weight[:, None].double()
    a = a / (a.square().sum(1, keepdim=True).sqrt() + 1e-5)
    b = b / (b.square().sum(1, keepdim=True).sqrt() + 1e-5)
    return torch.einsum("bcij,bcmn->bijmn", a, b).clamp(min=0)


def pointwise(heat_map, grid):
    small = F.interpolate(heat_map[:, None], grid, mode="bilinear", align_corners=True)
    return small[:, 0]


def test_faithful_mode_multiplies_then_normalises():
    target, reference, heat_map = levels(seed=1), levels(seed=2), gaussian()
    found = correlate(prepare_target(target), prepare_reference(reference, heat_map))
    for i, level in enumerate(reversed(found)):
        weight = pointwise(heat_map, target[i][0].shape[2:])
        for j in range(level.shape[1]):
            wanted = cosine(target[i][j], reference[i][j], weight)
            torch.testing.assert_close(level[:, j].double(), wanted, atol=1e-5, rtol=0)


def test_weighted_mode_scales_plain_cosine_by_the_area_mean():
    target, reference, heat_map = levels(seed=1), levels(seed=2), gaussian()
    prepared = prepare_reference(reference, heat_map, mask_mode="weighted")
    found = correlate(prepare_target(target), prepared)[-1]
    plain = cosine(target[0][1], reference[0][1], torch.ones(2, 4, 5))
    area = F.avg_pool2d(heat_map, (10, 8)).double()
    wanted = plain * area[:, None, None]
    torch.testing.assert_close(found[:, 1].double(), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mask_mode", ["faithful", "weighted"])
def test_leaving_out_inactive_cells_changes_less_than_1e_5(mask_mode):
    target, heat_map = prepare_target(levels(seed=1)), gaussian(sigma=1.5)
    sparse, dense = (
        prepare_reference(levels(seed=2), heat_map, mask_mode=mask_mode, active_only=active_only)
        for active_only in (True, False)
    )
    assert 0 < sparse.vectors[0][0].shape[-1] < dense.vectors[0][0].shape[-1]
    for a, b in zip(correlate(target, sparse), correlate(target, dense), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_map_that_reaches_no_cell_correlates_with_nothing():
    nothing = prepare_reference(levels(), torch.zeros(2, 40, 40))
    assert all(not level.any() for level in correlate(prepare_target(levels()), nothing))


def test_centre_is_subtracted_from_both_sides():
    centre = [[torch.full((1, 6, 1, 1), 1.0)] * n for n in (2, 3)]
    moved = [[block - 1 for block in level] for level in levels()]
    heat_map = gaussian()
    found = correlate(
        prepare_target(levels(), centre), prepare_reference(levels(), heat_map, centre)
    )
    wanted = correlate(prepare_target(moved), prepare_reference(moved, heat_map))
    torch.testing.assert_close(found, wanted)


def test_levels_may_be_stacks():
    stacks = [torch.stack(level) for level in levels()]
    found = correlate(prepare_target(stacks), prepare_reference(stacks, gaussian()))
    wanted = correlate(prepare_target(levels()), prepare_reference(levels(), gaussian()))
    torch.testing.assert_close(found, wanted)


def test_result_is_stored_channels_last():
    found = correlate(prepare_target(levels()), prepare_reference(levels(), gaussian()))
    assert [tuple(x.shape) for x in found] == [(2, 3, 3, 2, 3, 2), (2, 2, 4, 5, 4, 5)]
    assert all(x.movedim(1, -1).is_contiguous() for x in found)


def test_one_target_meets_each_of_several_references():
    one = prepare_target(levels(batch=1, seed=5))
    several = prepare_reference(levels(batch=3, seed=6), gaussian(3))
    same = NormalizedFeatures.join([one, one, one])
    assert len(same) == 3
    torch.testing.assert_close(correlate(one, several), correlate(same, several))


def test_images_prepared_alone_and_joined_are_those_of_a_batch():
    heat_map = gaussian()
    heat_map[1] = heat_map[1].flip(0)
    alone = [
        prepare_reference([[f[i : i + 1] for f in level] for level in levels()], heat_map[i][None])
        for i in range(2)
    ]
    target = prepare_target(levels(seed=3))
    found = correlate(target, NormalizedFeatures.join(alone))
    torch.testing.assert_close(found, correlate(target, prepare_reference(levels(), heat_map)))


def test_features_are_left_as_they_were():
    given = levels()
    prepare_target(given)
    prepare_reference(given, gaussian())
    torch.testing.assert_close(given, levels(), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("job", "message"),
    [
        pytest.param(
            lambda: prepare_reference(levels(), gaussian(3)), r"expected \(2, H, W\)", id="maps"
        ),
        pytest.param(
            lambda: prepare_reference(levels(), -gaussian()), "negative", id="negative_map"
        ),
        pytest.param(
            lambda: prepare_reference(levels(), gaussian() * torch.nan), "non-finite", id="nan_map"
        ),
        pytest.param(
            lambda: prepare_reference(levels(), gaussian(), mask_mode="hard"), "hard", id="mode"
        ),
        pytest.param(lambda: prepare_target([]), "batch", id="no_level"),
        pytest.param(lambda: prepare_target([[]]), "level 0", id="no_block"),
        pytest.param(
            lambda: prepare_target([levels(1)[0], levels(2)[1]]), "batch", id="level_batches"
        ),
        pytest.param(lambda: prepare_target(levels(), levels()[:1]), "centre", id="centre"),
        pytest.param(
            lambda: correlate(prepare_target(levels(3)), prepare_reference(levels(2), gaussian(2))),
            "3 images",
            id="batches",
        ),
        pytest.param(
            lambda: correlate(prepare_reference(levels(), gaussian()), prepare_target(levels())),
            "target first",
            id="swapped",
        ),
        pytest.param(
            lambda: correlate(
                prepare_target(levels(blocks=(2, 2))), prepare_reference(levels(), gaussian())
            ),
            "level 1",
            id="blocks",
        ),
        pytest.param(lambda: NormalizedFeatures.join([]), "one set of grids", id="join_nothing"),
    ],
)
def test_what_does_not_fit_is_refused(job, message):
    with pytest.raises(InputError, match=message):
        job()


def test_blocks_of_other_widths_correlate_by_their_cosines():
    torch.manual_seed(0)
    narrow, wide = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)
    levels = [[narrow[:1], wide[:1]]]
    others = [[narrow[1:], wide[1:]]]
    heat = torch.ones(1, 4, 4)
    both = correlate(prepare_target(levels), prepare_reference(others, heat, active_only=False))[0]
    for i, (a, b) in enumerate(zip(levels[0], others[0], strict=True)):
        alone = correlate(prepare_target([[a]]), prepare_reference([[b]], heat, active_only=False))[
            0
        ]
        torch.testing.assert_close(both[:, i], alone[:, 0])
