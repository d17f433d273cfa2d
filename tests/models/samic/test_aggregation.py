"""Which references are nearest, and how much each of their maps counts."""

import pytest
import torch

from napari_samic.models.samic import aggregation


def bell(row, column, height=1.0, side=24):
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return height * torch.exp(-((y - row) ** 2 + (x - column) ** 2) / 18.0)


def level(*means, grid=(4, 4)):
    """Blocks whose every cell has these channels."""
    return [torch.tensor(m)[None, :, None, None].expand(1, len(m), *grid).clone() for m in means]


def test_embedding_is_the_mean_of_each_block_at_length_1():
    blocks = level([3.0, 4.0], [0.0, 0.0])
    blocks[1][0, 0, 1, 2] = 160.0  # one cell of sixteen: the mean is (10, 0)
    found = aggregation.embedding(blocks, None, (64, 64), (64, 64))
    wanted = torch.tensor([0.6, 0.8, 1.0, 0.0], dtype=torch.float64) / 2**0.5
    torch.testing.assert_close(found, wanted)


def test_large_block_does_not_outshout_a_small_one():
    small, large = level([1.0, 0.0], [0.0, 1.0]), level([1.0, 0.0], [0.0, 1000.0])
    one, other = (aggregation.embedding(x, None, (8, 8), (8, 8)) for x in (small, large))
    torch.testing.assert_close(one, other)


def test_centre_is_taken_off_each_block():
    centre = [torch.full((1, 2, 1, 1), 1.0), torch.full((1, 2, 1, 1), -2.0)]
    moved = aggregation.embedding(level([4.0, 5.0], [-2.0, -1.0]), centre, (8, 8), (8, 8))
    torch.testing.assert_close(
        moved, aggregation.embedding(level([3.0, 4.0], [0.0, 1.0]), None, (8, 8), (8, 8))
    )


def test_padding_says_nothing_about_a_picture():
    padded = level([1.0, 2.0])
    padded[0][:, :, 2:] = torch.tensor([9.0, -9.0])[None, :, None, None]
    found = aggregation.embedding(padded, None, (32, 64), (64, 64))
    torch.testing.assert_close(
        found, aggregation.embedding(level([1.0, 2.0]), None, (8, 8), (8, 8))
    )


@pytest.mark.parametrize(
    ("count", "wanted"), [(1, [3]), (2, [1, 3]), (3, [0, 1, 3]), (9, [*range(4)])]
)
def test_nearest_come_in_their_own_order(count, wanted):
    known = torch.tensor([[0.6, 0.8], [0.8, 0.6], [-1.0, 0.0], [1.0, 0.0]])
    assert aggregation.nearest(list(known), torch.tensor([1.0, 0.0]), count) == wanted


def test_first_of_equally_near_ones_serve():
    one = torch.nn.functional.normalize(torch.rand(333, dtype=torch.float64), dim=0)
    assert aggregation.nearest([-one] + [one.clone() for _ in range(40)], one, 3) == [1, 2, 3]


def test_outlier_agrees_less():
    maps = torch.stack([bell(6, 6), bell(7, 6), bell(18, 18), bell(6, 7)])
    found = aggregation.agreement_weights(maps)
    assert found[2] == 0  # its correlation with the others is below 0
    assert found[[0, 1, 3]].min() > 0.7


def test_agreement_is_the_correlation_with_the_mean_of_the_others():
    torch.manual_seed(1)
    maps = bell(9, 9)[None] + 0.3 * torch.rand(3, 24, 24)
    for i, found in enumerate(aggregation.agreement_weights(maps)):
        others = torch.cat([maps[:i], maps[i + 1 :]]).mean(0)
        pair = torch.stack([maps[i].flatten(), others.flatten()])
        assert float(found) == pytest.approx(float(torch.corrcoef(pair)[0, 1]), abs=1e-5)


@pytest.mark.parametrize("maps", [
    pytest.param(bell(6, 6)[None], id="single"),
    pytest.param(torch.stack([bell(4, 4), bell(20, 20)]), id="nothing_in_common"),
    pytest.param(torch.zeros(3, 8, 8), id="blank"),
])  # fmt: skip
def test_without_agreement_all_count_the_same(maps):
    assert aggregation.agreement_weights(maps).tolist() == [1.0] * len(maps)


def test_even_is_the_plain_mean_to_the_bit():
    torch.manual_seed(0)
    maps = torch.rand(5, 16, 16)
    assert torch.equal(aggregation.weighted_mean(maps, "even"), maps.mean(0))
    assert torch.equal(aggregation.weighted_mean(maps[:1], "agreement"), maps[0])


def test_agreement_leaves_an_outlier_out_of_the_mean():
    maps = torch.stack([bell(6, 6), bell(7, 6), bell(18, 18)])
    assert aggregation.weighted_mean(maps, "even")[18, 18] > 0.3
    assert aggregation.weighted_mean(maps, "agreement")[18, 18] < 0.01
    assert aggregation.weighted_mean(maps, "agreement").argmax() // 24 in (6, 7)


def test_agreement_and_shares_are_multiplied():
    maps = torch.stack([bell(6, 6), bell(8, 6), bell(9, 9), bell(7, 8)])
    shares = [1.0, 0.2, 0.5, 2.0]
    product = aggregation.agreement_weights(maps) * torch.tensor(shares)
    wanted = (maps * (product / product.sum())[:, None, None]).sum(0)
    found = aggregation.weighted_mean(maps, "agreement", shares)
    torch.testing.assert_close(found, wanted)
    for other in (
        aggregation.weighted_mean(maps, "even", shares),
        aggregation.weighted_mean(maps, "agreement"),
    ):
        assert (found - other).abs().max() > 0.01
