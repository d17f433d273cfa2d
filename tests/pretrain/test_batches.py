"""Pretraining: batches in pairs of one kind, prompts, and the loss that makes features match."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository root, where pretrain lies
from pretrain.data import objects

from napari_samic.evaluation.metrics import auc
from pretrain import batches, matching, prompting

SIDE = 128


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Six pictures: a bright square of kind a or b at a place of its own, the last held back."""
    folder = tmp_path_factory.mktemp("pool")
    images = np.zeros((6, SIDE, SIDE, 3), np.uint8)
    ids = np.zeros((6, SIDE, SIDE), np.uint16)
    rows = []
    for i in range(6):
        top = 16 + 8 * i
        images[i, top : top + 40, 40:90], ids[i, top : top + 40, 40:90] = 200, 1
        kinds = ["a" if i % 2 else "b"]
        rows.append({"set": "shapes", "name": str(i), "held_back": i == 5, "kinds": kinds})
    np.save(folder / "images.npy", images)
    np.save(folder / "ids.npy", ids)
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder


def test_pair_shows_one_kind_and_nothing_that_is_held_back(pool):
    drawn, rng = batches.Pool(pool, held_back=False), np.random.default_rng(0)
    pairs = [drawn.pair(rng) for _ in range(40)]
    assert {kind for kind, *_ in pairs} == {"a", "b"}
    for kind, *rows in pairs:
        assert all(drawn.rows[r]["kinds"] == [kind] for r in rows)
    assert 5 not in {r for _, *rows in pairs for r in rows}
    assert {r for _, *rows in pairs for r in rows} == {0, 1, 2, 3, 4}


def test_codes_say_which_ids_are_the_kind(pool):
    drawn = batches.Pool(pool, held_back=True)
    drawn.rows[5]["kinds"] = ["x", "a", "y", "a"]
    codes = drawn.codes(5, "a")
    assert [int(c) == 1 for c in codes] == [False, False, True, False, True]
    assert codes[1] != codes[3]


def test_batch_has_targets_where_the_pictures_are_bright(pool):
    rng = np.random.default_rng(1)
    batch = batches.draw(rng, batches.Pool(pool, held_back=False), pairs=3, targets=2, side=64)
    assert batch.images.shape == (6, 3, 64, 64)
    assert batch.same.shape == (6, 1, 16, 16)
    assert len(batch.owners) == len(batch.targets) == len(batch.prompts) > 6
    for owner, target, prompt in zip(batch.owners, batch.targets, batch.prompts, strict=True):
        assert torch.equal(target * batch.same[owner], target)
        for x, y, sign in prompt[0]:
            if sign:
                assert target[0, int(y + 0.5) // 4, int(x + 0.5) // 4] == 1


def test_batch_has_a_target_even_where_objects_are_rare(pool, monkeypatch):
    real, calls = batches.prompting.pick_target, []

    def rarely(*given):
        calls.append(1)
        return real(*given) if len(calls) > 20 else None

    monkeypatch.setattr(batches.prompting, "pick_target", rarely)
    rng, shown = np.random.default_rng(1), batches.Pool(pool, held_back=False)
    batch = batches.draw(rng, shown, pairs=1, targets=2, side=64)
    assert len(batch.images) == 2
    assert len(batch.targets) == len(batch.prompts) == len(batch.owners) >= 1


def test_same_seed_draws_the_same_batch(pool):
    drawn = batches.Pool(pool, held_back=False)
    torch.manual_seed(0)
    first = batches.draw(np.random.default_rng(3), drawn, pairs=1, targets=1, side=64)
    torch.manual_seed(0)
    again = batches.draw(np.random.default_rng(3), drawn, pairs=1, targets=1, side=64)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.same, again.same)


def taps(same, *, matching_kinds):
    """Two blocks a level whose features say where the kind is, or say nothing."""
    torch.manual_seed(0)
    levels = []
    for grid in (32, 16, 8):
        cells = torch.nn.functional.adaptive_avg_pool2d(same, grid)
        noise = torch.randn(len(same), 8, grid, grid)
        direction = torch.zeros(1, 8, 1, 1)
        direction[:, 0] = 20.0
        levels.append([noise + direction * cells * matching_kinds] * 2)
    return levels


def test_features_that_match_have_the_lower_loss():
    same = torch.zeros(2, 1, 64, 64)
    same[0, :, 8:40, 8:40], same[1, :, 24:60, 20:60] = 1, 1
    matcher = matching.Matcher((2, 2, 2))
    with torch.no_grad():
        good = matcher(np.random.default_rng(0), taps(same, matching_kinds=1), same)
        bad = matcher(np.random.default_rng(0), taps(same, matching_kinds=0), same)
    assert float(good) < 0.5 * float(bad)


def test_pair_without_the_kind_teaches_nothing():
    same = torch.zeros(2, 1, 64, 64)
    loss = matching.Matcher((2, 2, 2))(np.random.default_rng(0), taps(same, matching_kinds=1), same)
    assert float(loss.detach()) == 0


def test_area_under_curve():
    truth = torch.tensor([True, False, True, False])
    assert auc(torch.tensor([4.0, 1, 3, 2]), truth) == 1
    assert auc(torch.tensor([1.0, 4, 2, 3]), truth) == 0
    assert auc(torch.tensor([4.0, 3, 1, 2]), truth) == 0.5


def test_prompts_without_a_mask_are_drawn_without_one():
    prompts = [
        ([(10.0, 10.0, 1)], None, True, None),
        ([(5.0, 5.0, 1)], None, False, np.ones((8, 8))),
    ]
    maps = prompting.draw(32, prompts, prompting.hints(prompts, (2, 1, 8, 8)))
    assert maps.shape == (2, 10, 8, 8)
    assert float(maps[0, 8:].abs().max()) == 0
    assert float(maps[1, 9].min()) == 1
    assert float(maps[1, 8].min()) > 0


def test_correction_clicks_the_larger_error():
    target = torch.zeros(1, 1, 16, 16)
    target[..., 2:12, 2:12] = 1
    missed, extra = -torch.ones(1, 1, 16, 16), torch.ones(1, 1, 16, 16)
    for logits, sign in ((missed, 1), (extra, 0)):
        prompts = [([], None, False, None)]
        prompting.correct(np.random.default_rng(0), prompts, target, logits)
        x, y, found = prompts[0][0][0]
        assert found == sign
        assert bool(target[0, 0, int(y + 0.5) // 4, int(x + 0.5) // 4]) == bool(sign)


def test_objects_of_a_clothing_mask_keep_their_class():
    mask = np.zeros((20, 20), np.uint8)
    mask[2:6, 2:6], mask[10:14, 2:6], mask[2:6, 12:16] = 7, 7, 9
    ids, kinds = objects("clothing", mask)
    assert kinds == ["clothing-7", "clothing-7", "clothing-9"]
    assert [kinds[ids[r, c] - 1] for r, c in ((3, 3), (11, 3), (3, 13))] == kinds
