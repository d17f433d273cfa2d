"""Images without annotation: looked at twice, and learned from where the mean is sure."""

import numpy as np
import pytest
import torch
from torch import nn
from toy_references import CPU, GRAY, samples

from napari_samic.core.settings import AdaptSettings
from napari_samic.core.types import run_job
from napari_samic.models.finetune import dataset, encoder, semi_supervised
from napari_samic.models.finetune.semi_supervised import UnlabeledDataset


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(dataset, "WINDOW_PX", 64)
    monkeypatch.setattr(dataset, "SIDES_PX", (64,))


class Reds(nn.Module):
    """Says that red pixels are inside and deep in objects, and keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.inputs = []

    def forward(self, x):
        self.inputs.append(x.clone())
        return (redness(x)[:, None] > 57).float().repeat(1, 2, 1, 1) * 20 - 10


def redness(x):
    return x[:, 0] - x[:, 2]


def images(count, seed=0):
    return [sample.image for sample in samples(count, seed)]


def free(count, seed=0):
    made = UnlabeledDataset(64, seed)
    for image in images(count):
        made.add(image)
    return made


@pytest.fixture(autouse=True)
def two_references_do(monkeypatch):
    monkeypatch.setattr(encoder, "OTHERS_FROM", 2)
    monkeypatch.setattr(encoder, "BATCH", 2)


def adapt(more=(), steps=12):
    settings = AdaptSettings(adapt_steps=steps)
    return run_job(encoder.finetune_encoder(samples(2), [1], settings, device=CPU, unlabeled=more))


def test_what_the_mean_says_goes_with_the_changed_look():
    x, told, there = free(4).pseudo_labeled_batch(32, Reds())
    assert x.shape == (32, 3, 64, 64)
    assert told.shape == (32, 2, 64, 64)
    right = []
    for red, inside, seen in zip(redness(x), told[:, 0] > 0.5, there[:, 0] > 0, strict=True):
        if inside.any():
            right.append(bool(red[inside].median() > red[~inside & seen].median() + 29))
    assert len(right) > 20
    assert all(right)


def test_the_mean_is_asked_before_the_colours_change():
    mean = Reds()
    x, _, there = free(4).pseudo_labeled_batch(16, mean)
    [plain] = mean.inputs
    grey = torch.tensor(GRAY).float()
    for before, after, seen in zip(plain, x, there[:, 0] > 0, strict=True):
        assert (before[:, seen] - grey[:, None]).abs().amax(0).median() < 1  # most is ground
        assert (after[:, seen] - grey[:, None]).abs().amax(0).median() > 1


def test_windows_of_other_looks_come_with_what_is_said_of_them(monkeypatch):
    monkeypatch.setattr(
        semi_supervised, "WINDOW", (1.0, 1.0)
    )  # the whole look, so that all is exchanged
    mean = Reds()
    _, told, _ = free(3).pseudo_labeled_batch(16, mean)
    [plain] = mean.inputs
    said = torch.sigmoid(mean(plain))
    own, other = ((told == maps).flatten(1).all(1) for maps in (said, said.roll(1, 0)))
    assert (own | other).all()
    assert (own & ~other).any()
    assert (other & ~own).any()


def test_only_what_the_mean_is_sure_of_counts():
    logits = torch.randn(2, 4, 8, 8, requires_grad=True)
    there = torch.ones(2, 1, 8, 8)
    unsure = torch.full((2, 4, 8, 8), 0.7)
    assert semi_supervised.consistency_loss(logits, unsure, there).item() == 0
    sure = unsure.clone()
    sure[:, 1, :4] = 0.95  # inside of the second of two classes
    semi_supervised.consistency_loss(logits, sure, there).backward()
    touched = logits.grad.abs().sum((0, 2, 3)) > 0
    assert touched.tolist() == [False, True, False, True]
    assert not logits.grad[:, :, 4:].any()


def test_what_is_off_the_image_does_not_count():
    logits, there = torch.randn(1, 2, 8, 8), torch.zeros(1, 1, 8, 8)
    there[..., 0] = 1
    told = torch.full((1, 2, 8, 8), 0.9)
    other = torch.where(there > 0, logits, logits + 5)
    assert semi_supervised.consistency_loss(
        logits, told, there
    ) == semi_supervised.consistency_loss(other, told, there)


def test_they_are_looked_at_once_the_network_knows_something(monkeypatch):
    begun = []
    real = UnlabeledDataset.pseudo_labeled_batch

    def looked(self, count, mean):
        begun.append(count)
        return real(self, count, mean)

    monkeypatch.setattr(UnlabeledDataset, "pseudo_labeled_batch", looked)
    _, report = adapt(images(3))
    assert begun == [2] * 8  # of 12 batches the first quarter and one of weight 0 go without
    assert report.others == 3
    assert "3 images more" in report.summary


def test_they_change_what_is_learned_and_the_same_seed_learns_the_same():
    without, once, again = (adapt(more)[0].pack()["state"] for more in ((), images(3), images(3)))
    assert any((without[k] != once[k]).any() for k in once)
    assert all((once[k] == again[k]).all() for k in once)


@pytest.mark.parametrize(
    ("most", "room_px", "taken"),
    [
        pytest.param(2, 2**26, 2, id="as_many_as_help"),
        pytest.param(9, 3 * 64**2, 3, id="as_the_memory_holds"),
    ],
)
def test_no_more_are_read_than_are_taken(most, room_px, taken, monkeypatch):
    monkeypatch.setattr(encoder, "OTHERS", most)
    monkeypatch.setattr(semi_supervised, "ROOM_PX", room_px)
    reader = iter(images(5))
    _, report = adapt(reader, steps=3)
    assert report.others == taken
    assert len(list(reader)) == 5 - taken


def test_with_few_references_they_are_left_out_and_that_is_told(monkeypatch):
    monkeypatch.setattr(encoder, "OTHERS_FROM", 3)
    monkeypatch.setattr(UnlabeledDataset, "pseudo_labeled_batch", None)  # would fail
    _, report = adapt(images(2), steps=3)
    assert report.others == 0
    assert report.summary.startswith("adapted without other images")
    assert "without other" not in adapt((), steps=3)[1].summary


def test_classes_are_learned_each():
    two = [dataset.ReferenceSample(p.name, p.image, p.instances) for p in samples(2)]
    two[1] = dataset.ReferenceSample(
        two[1].name, two[1].image, type(two[1].instances)(two[1].instances.numbers, (7,))
    )
    settings = AdaptSettings(adapt_steps=6)
    finder, _ = run_job(
        encoder.finetune_encoder(two, [1, 7], settings, device=CPU, unlabeled=images(2, seed=3))
    )
    seen = finder.predict(images(1)[0])
    assert sorted(seen) == [1, 7]
    assert all(np.isfinite(one.foreground_prob).all() for one in seen.values())
