"""The packaged encoder grown to references: it learns, is judged, kept, and comes back whole."""

import numpy as np
import pytest
import torch
from toy_references import CPU, sample, samples

from napari_samic.core import settings as settings_room
from napari_samic.core.errors import FormatError
from napari_samic.core.settings import AdaptSettings
from napari_samic.core.types import run_job
from napari_samic.evaluation.metrics import iou
from napari_samic.models.features import timm_weights
from napari_samic.models.finetune import dataset, encoder, network
from napari_samic.models.finetune.network import ForegroundDistanceNet, ForegroundPredictor

QUICK = AdaptSettings(adapt_steps=30)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(dataset, "WINDOW_PX", 64)
    monkeypatch.setattr(dataset, "SIDES_PX", (64,))
    monkeypatch.setattr(encoder, "BATCH", 2)
    monkeypatch.setattr(settings_room, "ADAPT_STEPS", ((1, 30),))  # judged after 20


def adapt(given, settings=QUICK, **options):
    return run_job(encoder.finetune_encoder(given, [1], settings, device=CPU, **options))


@pytest.fixture(scope="module")
def grown():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "WINDOW_PX", 64)
        patch.setattr(dataset, "SIDES_PX", (64,))
        patch.setattr(encoder, "BATCH", 4)
        return adapt(samples(4), AdaptSettings(adapt_steps=60))


def test_it_finds_the_references_objects_in_another_image(grown):
    other = samples(1, seed=5)[0]
    seen = grown[0].predict(other.image)[1]
    truth = other.instances.numbers > 0
    assert iou(seen.foreground_prob > 0.5, truth) > 0.7
    assert seen.distance_map[truth].mean() > seen.distance_map[~truth].mean() + 0.2


def test_answers_are_at_the_size_of_the_image(grown):
    wide = sample(shape=(50, 131), discs=[(25, 60, 12)])
    seen = grown[0].predict(wide.image)[1]
    assert seen.foreground_prob.shape == seen.distance_map.shape == (50, 131)
    assert 0 <= seen.foreground_prob.min() <= seen.foreground_prob.max() <= 1


def test_packed_and_unpacked_it_sees_the_same(grown):
    again = ForegroundPredictor.unpack(grown[0].pack(), CPU)
    image = samples(1, seed=6)[0].image
    assert again.side_px == grown[0].side_px
    np.testing.assert_allclose(
        again.predict(image)[1].foreground_prob,
        grown[0].predict(image)[1].foreground_prob,
        atol=0.05,
    )


def test_damage_is_told(grown):
    content = grown[0].pack()
    content["state"].pop("last.weight")
    with pytest.raises(FormatError, match=r"damaged .* Train again"):
        ForegroundPredictor.unpack(content, CPU)


def test_same_seed_same_network():
    first, again = (adapt(samples(2), AdaptSettings(adapt_steps=3))[0] for _ in "ab")
    states = first.pack()["state"], again.pack()["state"]
    assert all((states[0][k] == states[1][k]).all() for k in states[0])


def test_judge_decides_after_two_thirds_and_then_all_are_learned_from(monkeypatch):
    sizes, seen = [], []
    real = dataset.ReferenceDataset.__init__

    def counted(self, given, *rest):
        sizes.extend([len(given)] * bool(given))
        real(self, given, *rest)

    monkeypatch.setattr(dataset.ReferenceDataset, "__init__", counted)
    given = samples(4)

    def judge(finder):
        seen.append(finder)
        return 0.4 if finder is None else 0.6

    finder, report = adapt(given[:3], held_out=given[3:], judge=judge)
    assert finder is not None
    assert sizes == [3, 4]
    assert (report.steps, report.before, report.after, report.accepted) == (30, 0.4, 0.6, True)
    assert report.held_out == ("3",)


def test_what_harms_is_not_kept():
    given = samples(4)
    finder, report = adapt(
        given[:3], held_out=given[3:], judge=lambda finder: 0.9 if finder is None else 0.7
    )
    assert finder is None
    assert report.steps == 20
    assert not report.stopped
    assert (report.before, report.after, report.accepted) == (0.9, 0.7, False)


@pytest.mark.parametrize(("aside", "why"), [(0, "four"), (1, "20 batches")])
def test_why_nobody_judged_is_told(aside, why):
    given = samples(4)
    held_out = given[4 - aside :]
    _, report = adapt(
        given[: 4 - aside], AdaptSettings(adapt_steps=2), held_out=held_out, judge=lambda _: 0.5
    )
    assert "not judged" in report.summary
    assert why in report.summary


def test_one_image_is_too_little_to_refuse_it():
    given = samples(4)
    finder, report = adapt(
        given[:3], held_out=given[3:], judge=lambda finder: 0.5 if finder is None else 0.4
    )
    assert finder is not None
    assert report.steps == 30
    assert (report.before, report.after, report.accepted) == (0.5, 0.4, True)
    assert "too few images" in report.summary


@pytest.mark.parametrize(
    ("before", "after", "judges", "used"),
    [
        (0.4, 0.1, 1, True),
        (0.8, 0.61, 1, True),
        (0.8, 0.59, 1, False),
        (0.8, 0.75, 3, True),
        (0.8, 0.73, 3, False),
        (0.8, 0.78, 26, False),
        (1.0, 1.0, 1, False),
        (0.0, 0.0, 26, True),
    ],
)
def test_the_more_judges_the_less_worse_it_may_be(before, after, judges, used):
    assert encoder.should_accept(before, after, judges) is used


def test_stopped_at_once_it_leaves_nothing():
    asked = iter([False, False, True, True, True])
    finder, report = adapt(samples(2), stop=lambda: next(asked))
    assert finder is None
    assert "too early" in report.summary


def test_stopped_it_is_what_so_many_steps_give():
    given, asked = samples(3), []

    def stop():
        asked.append(1)
        return len(asked) > 22

    finder, report = adapt(given, AdaptSettings(adapt_steps=500), stop=stop)
    assert (report.steps, report.stopped, report.accepted) == (22, True, True)
    again, _ = adapt(given, AdaptSettings(adapt_steps=22))
    states = finder.pack()["state"], again.pack()["state"]
    assert all((states[0][k] == states[1][k]).all() for k in states[0])


def test_packaged_encoder_is_where_it_starts():
    first, other = (network.build(1, seed=s).state_dict() for s in (0, 1))
    kept = [name for name in first if name.startswith("encoder.backbone")]
    assert all((first[name] == other[name]).all() for name in kept)
    for name in ("last.weight", "context.weight"):
        assert (first[name] != other[name]).any(), name
    neck = timm_weights.packaged().neck.state_dict()
    assert all((first[f"encoder.neck.{k}"] == v).all() for k, v in neck.items())


def test_the_first_part_of_the_encoder_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(encoder, "RATE", 0.03)
    start = network.build(1).state_dict()
    learned = adapt(samples(2), AdaptSettings(adapt_steps=3))
    finder = learned[0]
    assert finder is not None
    state = finder.pack()["state"]
    stem, late = (
        f"encoder.backbone.network.{k}" for k in ("bn1.running_mean", "blocks.5.0.bn1.weight")
    )
    assert (state[stem] == start[stem].half()).all()
    assert (state[late] != start[late].half()).any()


def test_every_level_of_the_neck_reaches_the_answer():
    net = network.build(1).train()
    net(torch.randn(2, 3, 64, 64)).square().mean().backward()
    for name, weight in net.named_parameters():
        if "neck" not in name:
            continue
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


def test_stopped_after_it_was_judged_what_was_learned_is_used():
    given, judged = samples(4), []

    def judge(finder):
        judged.append(1)
        return 0.4 if finder is None else 0.6

    finder, report = adapt(given[:3], held_out=given[3:], judge=judge, stop=lambda: len(judged) > 1)
    assert finder is not None
    assert (report.steps, report.stopped) == (20, True)
    assert (report.before, report.after) == (0.4, 0.6)


def test_finder_goes_on_on_the_cpu_when_the_memory_of_its_device_is_full(grown, monkeypatch):
    image, forward = np.zeros((64, 80, 3), np.uint8), ForegroundDistanceNet.forward
    content = grown[0].pack()
    wanted = ForegroundPredictor.unpack(content, CPU).predict(image)[1]
    finder = ForegroundPredictor.unpack(content, torch.device("cpu:0"))  # stands in for a GPU

    def full(net, x):
        if finder.device != CPU:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(net, x)

    monkeypatch.setattr(ForegroundDistanceNet, "forward", full)
    with pytest.warns(RuntimeWarning, match="continuing on the CPU"):
        found = finder.predict(image)[1]
    np.testing.assert_array_equal(found.foreground_prob, wanted.foreground_prob)
    monkeypatch.setattr(finder, "device", torch.device("cpu:0"))
    monkeypatch.setattr(ForegroundDistanceNet, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        finder.predict(image)
