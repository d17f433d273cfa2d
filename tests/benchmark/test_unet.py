"""The U-Net that others are compared with: it learns, answers by class, and is the same again."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from napari_samic.benchmark import learners, unet
from napari_samic.benchmark import run as benchmark_run
from napari_samic.benchmark.learners import TrialContext
from napari_samic.core.errors import ModelError, PromptError
from napari_samic.core.settings import AdaptSettings, TrainSettings
from napari_samic.core.types import Prompts, Reference, run_job
from napari_samic.evaluation.metrics import iou
from napari_samic.models.finetune import dataset
from napari_samic.models.hub import checkpoints, registry
from napari_samic.models.sam.segmenter import load_segmenter
from napari_samic.models.tiny import model

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(dataset, "WINDOW_PX", 64)
    monkeypatch.setattr(unet, "BATCH", 2)


def discs(places, shape=(96, 128), seed=0):
    """(H, W, 3) dark ground with bright discs at (row, column), and (H, W) ids."""
    rows, columns = np.indices(shape)
    image = np.random.default_rng(seed).integers(10, 40, (*shape, 3)).astype(np.uint8)
    ids = np.zeros(shape, np.int32)
    for number, (row, column) in enumerate(places, start=1):
        inside = (rows - row) ** 2 + (columns - column) ** 2 <= 18**2
        image[inside], ids[inside] = (240, 230, 220), number
    return image, ids


def shown(name, places, labels=(1, 1), seed=0):
    image, ids = discs(places, seed=seed)
    objects = [Prompts([p], [True], label=k) for p, k in zip(places, labels, strict=True)]
    return Reference(name, image, tuple(objects), ids)


FEW = (
    shown("one", [(30, 30), (60, 90)]),
    shown("two", [(60, 40), (28, 100)], seed=1),
)


def learned(references=FEW, steps=1, **options):
    return run_job(unet.learn(references, device=CPU, steps=steps, **options))


class Fixed(nn.Module):
    """Logits of two classes: whether red, and whether blue, is above 128; `ramp`: in column x."""

    def __init__(self, ramp=False):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.ramp = ramp

    def forward(self, x):
        if self.ramp:
            return torch.linspace(-4, 4, x.shape[-1]).expand(len(x), 1, *x.shape[-2:])
        return (x[:, [0, 2]] - 128) * self.gain


def test_bright_discs_are_learned_each_an_object():
    net = learned(steps=60)
    image, ids = discs([(40, 100), (50, 30)], seed=5)
    proposal = net.propose((), image)
    assert iou(proposal.answer.labels > 0, ids > 0) > 0.7
    at = [proposal.answer.labels[place] for place in ((40, 100), (50, 30))]
    assert 0 < min(at) < max(at)
    assert proposal.heat_map.values[ids > 0].mean() > 0.5 > proposal.heat_map.values[0].mean()


def test_each_class_has_pieces_of_its_own_at_the_size_of_the_image():
    image = np.zeros((50, 90, 3), np.uint8)
    image[10:20, 10:30, 0] = image[30:45, 50:80, 2] = image[30:45, 10:30, 2] = 255
    answer = unet.Unet(Fixed(), (3, 7)).propose((), image).answer
    assert answer.labels.shape == (50, 90)
    assert sorted(p.label for p in answer.objects) == [3, 7, 7]
    assert answer.objects[answer.labels[15, 20] - 1].label == 3
    assert answer.labels[37, 65] != answer.labels[37, 20]


def test_an_image_and_its_mirror_image_count_alike():
    values = unet.Unet(Fixed(ramp=True), (1,)).propose((), FEW[0].image).heat_map.values
    np.testing.assert_allclose(values, values[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(values, 0.5, atol=1e-6)


def test_classes_are_those_of_the_references():
    assert learned([shown("both", [(30, 30), (60, 90)], labels=(5, 2))]).labels == (2, 5)


def test_same_seed_is_the_same_network_and_another_is_another():
    first, again, other = (learned(steps=2, seed=s).net.state_dict() for s in (3, 3, 4))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("pretrained", [True, False], ids=["packaged", "scratch"])
def test_encoder_starts_with_the_packaged_weights_or_at_random(pretrained):
    packaged = model.unpack(checkpoints.read(registry.locate("tiny")), "tiny").image_encoder
    wanted = packaged.backbone.network.state_dict()
    found = learned(steps=0, pretrained=pretrained).net.state_dict()
    same = [torch.equal(found[f"1.encoder.model.{k}"], v) for k, v in wanted.items() if v.ndim > 1]
    assert all(same) == pretrained
    assert any(same) == pretrained


def test_every_step_is_told_and_the_job_may_be_closed():
    job = unet.learn(FEW, device=CPU, steps=3)
    step = next(job)
    job.close()
    assert (step.done, step.total) == (1, 3)
    assert step.data["loss"] > 0


def test_it_learns_whatever_mode_the_consumer_is_in():
    with torch.no_grad():
        before, after = (learned(steps=n).net.state_dict() for n in (0, 1))
    assert not all(torch.equal(before[k], after[k]) for k in before)


def test_references_without_an_object_are_refused():
    with pytest.raises(PromptError, match="no reference shows an object"):
        learned([Reference("bare", FEW[0].image, (), np.zeros((96, 128), np.int32))])


@pytest.mark.parametrize("way", ["unet", "unet-scratch"])
def test_it_is_a_way_of_the_benchmark(way, monkeypatch):
    monkeypatch.setattr(unet, "MOST", 1)
    segmenter = load_segmenter("tiny", device="cpu")
    given = TrialContext(segmenter, TrainSettings(), AdaptSettings(), seed=3)
    answer = run_job(learners.learn(way, FEW, given))
    wanted = learned(pretrained=way == "unet", seed=3).propose((), FEW[0].image).answer
    np.testing.assert_array_equal(answer(FEW[0].image).labels > 0, wanted.labels > 0)


def test_missing_package_is_told_before_anything_else(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    job = benchmark_run.benchmark(
        "folder", data=tmp_path / "data", out=tmp_path / "out", ways=("unet",)
    )
    with pytest.raises(ModelError, match="pip install segmentation-models-pytorch"):
        run_job(job)
